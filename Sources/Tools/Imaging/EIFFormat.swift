/// The Enclave Image Format, version 4: constants and the two headers. All numbers are big-endian.
///
/// Source: src/defs/mod.rs of aws-nitro-enclaves-image-format; QEMU's reader of the same files is hw/core/eif.c.
enum EIFFormat {
  static let magic: [UInt8] = [0x2e, 0x65, 0x69, 0x66]  // ".eif"
  static let version: UInt16 = 4
  static let headerSize = 548
  static let sectionHeaderSize = 12
  static let mostSections = 32
  static let checksumOffset = headerSize - 4
  static let arm64Flag: UInt16 = 1
}

public enum EIFSectionKind: UInt16, Sendable, CustomStringConvertible {
  case kernel = 1
  case commandLine = 2
  case ramdisk = 3
  case signature = 4
  case metadata = 5

  public var description: String {
    switch self {
    case .kernel: "kernel"
    case .commandLine: "command line"
    case .ramdisk: "ramdisk"
    case .signature: "signature"
    case .metadata: "metadata"
    }
  }
}

/// A section: where its 12-byte header stands, and the size of the data behind that.
public struct EIFSection: Equatable, Sendable {
  public var kind: EIFSectionKind
  public var offset: Int
  public var size: Int
  var dataOffset: Int { offset + EIFFormat.sectionHeaderSize }
}

struct EIFHeader: Equatable {
  var version: UInt16 = EIFFormat.version
  var flags: UInt16 = 0
  /// What `nitro-cli` takes where it is not told: these are its own builder's values.
  var defaultMemory: UInt64 = 1 << 30
  var defaultCPUs: UInt64 = 2
  /// At most 32.
  var offsets: [UInt64] = []
  var sizes: [UInt64] = []
  var checksum: UInt32 = 0

  /// All but the last four bytes, which are the checksum.
  var bytesBeforeChecksum: [UInt8] {
    var bytes = EIFFormat.magic
    bytes.append(bigEndian: version)
    bytes.append(bigEndian: flags)
    bytes.append(bigEndian: defaultMemory)
    bytes.append(bigEndian: defaultCPUs)
    bytes.append(bigEndian: UInt16(0))
    bytes.append(bigEndian: UInt16(truncatingIfNeeded: offsets.count))
    for table in [offsets, sizes] {
      for index in 0..<EIFFormat.mostSections { bytes.append(bigEndian: index < table.count ? table[index] : 0) }
    }
    bytes.append(bigEndian: UInt32(0))
    return bytes
  }

  var bytes: [UInt8] {
    var bytes = bytesBeforeChecksum
    bytes.append(bigEndian: checksum)
    return bytes
  }

  init() {}

  init(_ bytes: [UInt8]) throws(EIFDamage) {
    guard bytes.starts(with: EIFFormat.magic) else { throw .magic(Array(bytes.prefix(4))) }
    guard bytes.count >= EIFFormat.headerSize else { throw .headerTruncated(bytes.count) }
    func number(_ offset: Int, _ count: Int) -> UInt64 { UInt64(bigEndian: bytes, at: offset, count: count) ?? 0 }
    version = UInt16(truncatingIfNeeded: number(4, 2))
    guard version >= 3, version <= EIFFormat.version else { throw .version(version) }
    flags = UInt16(truncatingIfNeeded: number(6, 2))
    defaultMemory = number(8, 8)
    defaultCPUs = number(16, 8)
    let count = Int(number(26, 2))
    guard count >= 2, count <= EIFFormat.mostSections else { throw .sectionCount(count) }
    offsets = (0..<count).map { number(28 + 8 * $0, 8) }
    sizes = (0..<count).map { number(284 + 8 * $0, 8) }
    checksum = UInt32(truncatingIfNeeded: number(EIFFormat.checksumOffset, 4))
  }
}

/// What is wrong with an EIF.
public enum EIFDamage: Error, Equatable, CustomStringConvertible, Sendable {
  case magic([UInt8])
  case headerTruncated(Int)
  case version(UInt16)
  case sectionCount(Int)
  case sectionOffset(index: Int, found: UInt64, expected: Int)
  case sectionHeaderTruncated(index: Int, fileSize: Int)
  case sectionKind(index: Int, found: UInt16)
  case sectionFlags(index: Int, found: UInt16)
  case sectionSize(index: Int, kind: EIFSectionKind, header: UInt64, section: UInt64)
  case sectionTruncated(index: Int, kind: EIFSectionKind, size: UInt64, available: Int)
  case repeated(EIFSectionKind)
  case missing(EIFSectionKind)
  case trailingBytes(Int)
  case checksum(found: UInt32, computed: UInt32)
  case commandLine
  case metadata(String)
  case signature(String)

  public var description: String {
    switch self {
    case .magic(let found):
      found.isEmpty
        ? "the file is empty"
        : "it begins with \(hex(found)), an EIF with 2e656966 (\".eif\"): not an EIF, or its start is overwritten"
    case .headerTruncated(let count): "it ends after \(count) bytes, within its header of \(EIFFormat.headerSize)"
    case .version(let found): "its header gives version \(found); 3 and 4 are known"
    case .sectionCount(let count): "its header counts \(count) sections; 2 to \(EIFFormat.mostSections) were expected"
    case .sectionOffset(let index, let found, let expected):
      "section \(index) begins at byte \(found) by the header; by what stands before it, at \(expected)"
    case .sectionHeaderTruncated(let index, let size):
      "the file ends at byte \(size), within the header of section \(index)"
    case .sectionKind(let index, let found): "section \(index) is of type \(found); 1 to 5 are known"
    case .sectionFlags(let index, let found): "section \(index) has flags \(found); 0 was expected"
    case .sectionSize(let index, let kind, let header, let section):
      "section \(index) (\(kind)) has \(header) bytes by the file's header and \(section) by its own"
    case .sectionTruncated(let index, let kind, let size, let available):
      "section \(index) (\(kind)) has \(size) bytes, of which the file holds \(available)"
    case .repeated(let kind): "it has more than one \(kind) section"
    case .missing(let kind): "it has no \(kind) section"
    case .trailingBytes(let count): "\(count) bytes follow its last section"
    case .checksum(let found, let computed):
      "its CRC-32 is \(hex32(computed)), its header says \(hex32(found)): its structure is whole, but bytes in it have changed"
    case .commandLine: "its command line is not text, or has a NUL in it"
    case .metadata(let what): "its metadata section is \(what)"
    case .signature(let what): "its signature section: \(what)"
    }
  }
}

func hex32(_ value: UInt32) -> String {
  var bytes: [UInt8] = []
  bytes.append(bigEndian: value)
  return hex(bytes)
}
