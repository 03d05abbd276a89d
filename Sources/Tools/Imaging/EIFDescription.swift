import CDecompress
import FoundationEssentials

/// All that can be said of an EIF from its bytes.
public struct EIFDescription: Sendable {
  public let version: UInt16
  public let isARM64: Bool
  public let defaultMemory: UInt64
  public let defaultCPUs: UInt64
  public let fileSize: Int
  public let sections: [EIFSection]
  public let checksum: UInt32
  public let computedChecksum: UInt32
  public let commandLine: String
  /// The metadata section as it stands there: JSON.
  public let metadata: [UInt8]?
  public let measurements: Measurements
  public let signature: ImageSignature?
  /// What is wrong, where the sections could be told apart all the same.
  public let damage: EIFDamage?

  private static let largestText = 16 << 20

  /// Reads a whole file: bounds and order of the sections, the checksum, the measurements, the signature.
  /// - Throws: `ImageError.damaged` where the structure does not hold; damage within sections is in `damage`.
  public init(path: String) throws(ImageError) {
    let source = try FileSlice(path: path)
    let header: EIFHeader
    do {
      header = try EIFHeader(try source.bytes(at: 0, EIFFormat.headerSize))
      sections = try EIFDescription.sections(header, source)
    } catch let error as EIFDamage {
      throw .damaged(file: path, error)
    } catch let error as ImageError {
      throw error
    } catch {
      throw .malformed(file: path, "\(error)")
    }
    version = header.version
    isARM64 = header.flags & EIFFormat.arm64Flag != 0
    defaultMemory = header.defaultMemory
    defaultCPUs = header.defaultCPUs
    fileSize = source.count
    checksum = header.checksum

    let (sum, measurer) = try EIFDescription.measure(source, sections)
    computedChecksum = sum
    var damage: EIFDamage? = sum == header.checksum ? nil : .checksum(found: header.checksum, computed: sum)

    let sections = self.sections
    func contents(_ kind: EIFSectionKind) throws(ImageError) -> [UInt8]? {
      guard let section = sections.first(where: { $0.kind == kind }) else { return nil }
      guard section.size <= EIFDescription.largestText else {
        throw .malformed(
          file: path, "has a \(kind) of \(section.size) bytes; at most \(EIFDescription.largestText) were expected")
      }
      return try source.bytes(at: section.dataOffset, section.size)
    }
    let line = try contents(.commandLine) ?? []
    let lineText = line.contains(0) ? nil : String(validating: line, as: UTF8.self)
    if lineText == nil { damage = damage ?? .commandLine }
    commandLine = lineText ?? text(line)

    metadata = try contents(.metadata)
    if let metadata {
      if !EIFDescription.isObject(metadata) { damage = damage ?? .metadata("not a JSON object") }
    } else if header.version >= 4 {
      damage = damage ?? .missing(.metadata)
    }

    var signature: ImageSignature?
    var certificate: [UInt8]?
    if let bytes = try contents(.signature) {
      do throws(EIFDamage) {
        let read = try ImageSignature(section: bytes)
        signature = read
        certificate = read.certificate.der
      } catch {
        damage = damage ?? error
      }
    }
    self.signature = signature
    measurements = measurer.measurements(certificate: certificate)
    if let signature, signature.signedPCR0 != measurements.pcr0 {
      damage = damage ?? .signature("another PCR0 was signed (\(hex(signature.signedPCR0)))")
    }
    self.damage = damage
  }

  /// Whether every byte is as it was written, as far as the file itself can tell.
  public var checksumMatches: Bool { checksum == computedChecksum }

  /// The sections, which must follow one another without gaps: AWS's reader goes by their order, QEMU's by the header's
  /// table, and a file in which the two disagree is one thing to the one and another to the other.
  private static func sections(_ header: EIFHeader, _ source: FileSlice) throws -> [EIFSection] {
    var sections: [EIFSection] = []
    var expected = EIFFormat.headerSize
    for (index, (offset, size)) in zip(header.offsets, header.sizes).enumerated() {
      guard offset == UInt64(expected) else {
        throw EIFDamage.sectionOffset(index: index, found: offset, expected: expected)
      }
      let front = try source.bytes(at: expected, EIFFormat.sectionHeaderSize)
      guard let kindNumber = UInt64(bigEndian: front, at: 0, count: 2),
        let flags = UInt64(bigEndian: front, at: 2, count: 2),
        let ownSize = UInt64(bigEndian: front, at: 4, count: 8)
      else { throw EIFDamage.sectionHeaderTruncated(index: index, fileSize: source.count) }
      let rawKind = UInt16(truncatingIfNeeded: kindNumber)
      guard let kind = EIFSectionKind(rawValue: rawKind) else {
        throw EIFDamage.sectionKind(index: index, found: rawKind)
      }
      guard flags == 0 else { throw EIFDamage.sectionFlags(index: index, found: UInt16(truncatingIfNeeded: flags)) }
      guard ownSize == size else {
        throw EIFDamage.sectionSize(index: index, kind: kind, header: size, section: ownSize)
      }
      let available = source.count - expected - EIFFormat.sectionHeaderSize
      guard size <= UInt64(available) else {
        throw EIFDamage.sectionTruncated(index: index, kind: kind, size: size, available: available)
      }
      if kind != .ramdisk, sections.contains(where: { $0.kind == kind }) { throw EIFDamage.repeated(kind) }
      sections.append(EIFSection(kind: kind, offset: expected, size: Int(size)))
      expected += EIFFormat.sectionHeaderSize + Int(size)
    }
    for kind in [EIFSectionKind.kernel, .commandLine, .ramdisk] where !sections.contains(where: { $0.kind == kind }) {
      throw EIFDamage.missing(kind)
    }
    if source.count > expected { throw EIFDamage.trailingBytes(source.count - expected) }
    return sections
  }

  private static func measure(
    _ source: FileSlice, _ sections: [EIFSection]
  ) throws(ImageError) -> (UInt32, Measurer) {
    var measurer = Measurer()
    var sum: UInt32 = 0
    func add(_ chunk: UnsafeRawBufferPointer) {
      sum = cdecompress_crc32(sum, chunk.bindMemory(to: UInt8.self).baseAddress, chunk.count)
    }
    func add(_ start: Int, _ count: Int) throws(ImageError) { try source.bytes(at: start, count).withUnsafeBytes(add) }
    try add(0, EIFFormat.checksumOffset)
    for section in sections {
      try add(section.offset, EIFFormat.sectionHeaderSize)
      measurer.begin(section.kind)
      try source.part(section.dataOffset, section.size)?.forEachChunk { (chunk) throws(ImageError) in
        add(chunk)
        measurer.update(chunk)
      }
    }
    return (sum, measurer)
  }

  private static func isObject(_ bytes: [UInt8]) -> Bool {
    struct Anything: Decodable {
      init(from decoder: any Decoder) throws { _ = try decoder.container(keyedBy: Key.self) }
    }
    struct Key: CodingKey {
      var stringValue: String
      var intValue: Int?
      init?(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }
    return (try? JSONDecoder().decode(Anything.self, from: Data(bytes))) != nil
  }
}
