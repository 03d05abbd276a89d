import CLinux
import LinuxSystem

/// Why an image could not be built, read or described. Prints as one sentence that names the file and what was found.
public enum ImageError: Error, Equatable, CustomStringConvertible, Sendable {
  case system(SystemError)
  /// A file that is not what it claims to be; the sentence says what was found and what was expected.
  case malformed(file: String, String)
  /// An EIF that is damaged.
  case damaged(file: String, EIFDamage)
  /// Something asked for that cannot be done.
  case refused(String)

  public var description: String {
    switch self {
    case .system(let error): error.description
    case .malformed(let file, let what): "\(file): \(what)"
    case .damaged(let file, let damage): "\(file): damaged: \(damage)"
    case .refused(let what): what
    }
  }
}

/// Runs a kernel wrapper and gives its failure this module's type.
func system<Result>(_ body: () throws(SystemError) -> Result) throws(ImageError) -> Result {
  do { return try body() } catch { throw .system(error) }
}

/// Names and paths are bytes in Linux; for a message, what is not UTF-8 is replaced.
func text(_ bytes: some Sequence<UInt8>) -> String { String(decoding: Array(bytes), as: UTF8.self) }

func withCPath<Result>(_ path: [UInt8], _ body: (UnsafePointer<CChar>) -> Result) -> Result {
  var terminated = path.map { CChar(bitPattern: $0) }
  terminated.append(0)
  return terminated.withUnsafeBufferPointer { buffer in
    guard let base = buffer.baseAddress else { preconditionFailure("an array of at least one element has an address") }
    return body(base)
  }
}

let hexDigits = Array("0123456789abcdef".utf8)

/// Lower-case hexadecimal.
public func hex(_ bytes: some Sequence<UInt8>) -> String {
  var out: [UInt8] = []
  for byte in bytes {
    out.append(hexDigits[Int(byte >> 4)])
    out.append(hexDigits[Int(byte & 15)])
  }
  return String(decoding: out, as: UTF8.self)
}

extension UInt64 {
  /// The big-endian number in `bytes[offset ..< offset + count]`, or nil where the bytes end before.
  init?(bigEndian bytes: [UInt8], at offset: Int, count: Int) {
    guard offset >= 0, count <= 8, offset <= bytes.count - count else { return nil }
    self = bytes[offset..<offset + count].reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// The same, least significant byte first.
  init?(littleEndian bytes: [UInt8], at offset: Int, count: Int) {
    guard offset >= 0, count <= 8, offset <= bytes.count - count else { return nil }
    self = bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}

extension [UInt8] {
  mutating func append(bigEndian value: some FixedWidthInteger & UnsignedInteger) {
    Swift.withUnsafeBytes(of: value.bigEndian) { append(contentsOf: $0) }
  }
}
