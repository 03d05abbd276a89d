/// A domain name in lower case, as its labels: each behind its length, without the root's (RFC 1035 section 3.1).
///
/// Bytes and not text, so that a label that has a dot in it is not taken for two.
public struct DomainName: Hashable, Sendable, CustomStringConvertible {
  /// At most 254 of them (RFC 1035 section 2.3.4 has 255 with the root's).
  public let labels: [UInt8]
  /// RFC 1035 section 2.3.4.
  public static let labelLimit = 63
  public static let limit = 254
  /// The same as text, without a last dot.
  public static let textLimit = 253

  public static let root = DomainName(canonical: [])

  private init(canonical labels: [UInt8]) { self.labels = labels }

  /// All bytes at once: an array hashes each one by itself, which takes longer than everything else that is done with a name.
  public func hash(into hasher: inout Hasher) { labels.withUnsafeBytes { hasher.combine(bytes: $0) } }

  /// - Returns: nil where the bytes are not whole labels of 1 to 63 bytes, together at most 254.
  public init?(labels bytes: [UInt8]) {
    guard bytes.count <= Self.limit else { return nil }
    var offset = 0
    var lower = bytes
    while offset < bytes.count {
      let length = Int(bytes[offset])
      guard (1...Self.labelLimit).contains(length), offset + length < bytes.count else { return nil }
      // A name that is in small letters already shares its memory with what it was made from.
      for index in offset + 1...offset + length {
        let small = Self.lowercased(bytes[index])
        if small != bytes[index] { lower[index] = small }
      }
      offset += length + 1
    }
    labels = lower
  }

  /// Why a text is not the name of a host or a domain.
  public struct Defect: Error, Equatable, Sendable, CustomStringConvertible {
    public var description: String
    public init(description: String) { self.description = description }
  }

  /// Reads a name of letters, digits, "-" and "_", with or without a last dot. One that is not ASCII is wanted in the form
  /// in which DNS has it (A-labels, RFC 5890): which of several ways to write it was meant is not for us to say.
  public init(text: some StringProtocol) throws(Defect) {
    var bytes = Substring(text).utf8
    guard bytes.allSatisfy({ $0 < 0x80 }) else {
      throw Defect(description: "expected the form that DNS has (A-labels, \"xn--…\") for letters that are not ASCII")
    }
    if bytes.last == UInt8(ascii: "."), bytes.count > 1 { bytes = bytes.dropLast() }
    guard !bytes.isEmpty else { throw Defect(description: "expected a name") }
    guard bytes.count <= Self.textLimit else {
      throw Defect(description: "found a name of \(bytes.count) bytes, expected at most \(Self.textLimit)")
    }
    var labels: [UInt8] = []
    var last = bytes[bytes.startIndex..<bytes.startIndex]
    for label in bytes.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false) {
      guard !label.isEmpty else { throw Defect(description: "found an empty label between two dots") }
      guard label.count <= Self.labelLimit else {
        throw Defect(description: "found a label of \(label.count) bytes, expected at most \(Self.labelLimit)")
      }
      guard label.allSatisfy(Self.isHostByte) else {
        throw Defect(description: "expected labels of letters, digits, \"-\" and \"_\"")
      }
      guard label.first != UInt8(ascii: "-"), label.last != UInt8(ascii: "-") else {
        throw Defect(description: "found a label that begins or ends with \"-\"")
      }
      labels.append(UInt8(truncatingIfNeeded: label.count))
      for byte in label { labels.append(Self.lowercased(byte)) }
      last = label
    }
    // RFC 1123 section 2.1: the last label of a name is never a number, so that it cannot be an address.
    guard !last.allSatisfy({ (0x30...0x39).contains($0) }) else {
      throw Defect(description: "expected a name, whose last label is no number, or an address")
    }
    self.labels = labels
  }

  private static func isHostByte(_ byte: UInt8) -> Bool {
    (0x61...0x7a).contains(byte | 0x20) || (0x30...0x39).contains(byte) || byte == 0x2d || byte == 0x5f
  }

  private static func lowercased(_ byte: UInt8) -> UInt8 { (0x41...0x5a).contains(byte) ? byte | 0x20 : byte }

  /// The labels from the last to the first, each behind its length: what begins with another name's is below that name.
  public var fromRoot: [UInt8] {
    var reversed = [UInt8](repeating: 0, count: labels.count)
    var offset = 0
    while offset < labels.count {
      let end = offset + Int(labels[offset]) + 1
      let target = labels.count - end
      for index in offset..<end { reversed[target + index - offset] = labels[index] }
      offset = end
    }
    return reversed
  }

  /// Whether the name is the other one or below it.
  public func isWithin(_ other: DomainName) -> Bool {
    let above = labels.count - other.labels.count
    guard above >= 0 else { return false }
    var offset = 0
    while offset < above { offset += Int(labels[offset]) + 1 }
    return offset == above && labels[above...].elementsEqual(other.labels)
  }

  /// Without a last dot; "." for the root. Bytes that are not printable ASCII are written as \DDD, dots in a label as "\.".
  public var description: String {
    if labels.isEmpty { return "." }
    var text: [UInt8] = []
    var offset = 0
    while offset < labels.count {
      if offset > 0 { text.append(UInt8(ascii: ".")) }
      let end = offset + Int(labels[offset])
      for byte in labels[(offset + 1)...end] {
        switch byte {
        case UInt8(ascii: "."), UInt8(ascii: "\\"): text += [UInt8(ascii: "\\"), byte]
        case 0x21...0x7e: text.append(byte)
        default: text += [UInt8(ascii: "\\"), 0x30 + byte / 100, 0x30 + byte / 10 % 10, 0x30 + byte % 10]
        }
      }
      offset = end + 1
    }
    return String(decoding: text, as: UTF8.self)
  }
}
