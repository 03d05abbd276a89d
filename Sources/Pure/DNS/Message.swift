/// What a forwarder must know of a DNS message (RFC 1035 section 4.1): it passes messages on as they are and reads
/// the header, the question and the EDNS buffer size. Every accessor is total over any bytes.
public struct DNSMessage: Equatable, Sendable {
  public static let headerLength = 12
  /// What a resolver without EDNS accepts over UDP, in bytes (RFC 1035 section 4.2.1).
  public static let plainUDPLimit = 512

  public var bytes: [UInt8]

  /// nil for fewer bytes than a header or more than TCP's length field can say.
  public init?(_ bytes: [UInt8]) {
    guard (Self.headerLength...65535).contains(bytes.count) else { return nil }
    self.bytes = bytes
  }

  public var id: UInt16 {
    get { UInt16(bytes[0]) << 8 | UInt16(bytes[1]) }
    set {
      bytes[0] = UInt8(newValue >> 8)
      bytes[1] = UInt8(newValue & 0xff)
    }
  }

  /// The QR bit: a response rather than a query.
  public var isResponse: Bool { bytes[2] & 0x80 != 0 }
  /// The TC bit: cut to fit into a datagram.
  public var isTruncated: Bool { bytes[2] & 0x02 != 0 }

  /// The first question, or nil where there is none or it cannot be read.
  public var question: Question? {
    guard count(at: 4) >= 1, let (name, end) = readName(from: Self.headerLength), end + 4 <= bytes.count else {
      return nil
    }
    return Question(
      name: name, type: UInt16(bytes[end]) << 8 | UInt16(bytes[end + 1]), end: end + 4)
  }

  public struct Question: Equatable, Sendable, CustomStringConvertible {
    /// In presentation form without the final dot; bytes outside printable ASCII as \DDD.
    public var name: String
    /// 1 A, 28 AAAA, …
    public var type: UInt16
    /// The offset just behind the question.
    public var end: Int

    public var description: String {
      let types: [UInt16: String] = [
        1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 65: "HTTPS",
      ]
      return "\(name.isEmpty ? "." : name) \(types[type] ?? "TYPE\(type)")"
    }
  }

  /// The requestor's UDP payload size (RFC 6891 section 6.2.3), at least 512; 512 without an OPT record.
  public var udpLimit: Int {
    guard var offset = question?.end, count(at: 4) == 1 else { return Self.plainUDPLimit }
    let records = count(at: 6) + count(at: 8) + count(at: 10)
    for _ in 0..<min(records, 64) {
      guard let (_, end) = readName(from: offset), end + 10 <= bytes.count else { break }
      let type = UInt16(bytes[end]) << 8 | UInt16(bytes[end + 1])
      if type == 41 { return max(Self.plainUDPLimit, Int(bytes[end + 2]) << 8 | Int(bytes[end + 3])) }
      offset = end + 10 + (Int(bytes[end + 8]) << 8 | Int(bytes[end + 9]))
    }
    return Self.plainUDPLimit
  }

  /// A response to this query with no records: RCODE 2 is SERVFAIL, 5 REFUSED (RFC 1035 section 4.1.1).
  public func errorResponse(code: UInt8) -> DNSMessage {
    var response = headerAndQuestion()
    response.bytes[2] = 0x80 | (bytes[2] & 0x79)
    response.bytes[3] = 0x80 | (code & 0x0f)
    return response
  }

  /// This response cut to its header and question with TC set, so that the client asks again over TCP.
  public func truncated() -> DNSMessage {
    var response = headerAndQuestion()
    response.bytes[2] |= 0x02
    return response
  }

  private func headerAndQuestion() -> DNSMessage {
    var copy = self
    let end = question?.end
    copy.bytes = Array(bytes[..<(end ?? Self.headerLength)])
    copy.bytes[4] = 0
    copy.bytes[5] = end == nil ? 0 : 1
    for index in 6..<12 { copy.bytes[index] = 0 }
    return copy
  }

  private func count(at offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }

  /// A name (RFC 1035 section 3.1) and the offset behind it. Compression pointers must point backwards, which bounds
  /// the walk; names are at most 255 bytes.
  private func readName(from start: Int) -> (name: String, end: Int)? {
    var labels: [String] = []
    var offset = start
    var end: Int?
    var lowest = start
    var total = 0
    while offset < bytes.count {
      let length = Int(bytes[offset])
      switch length & 0xc0 {
      case 0 where length == 0:
        return (labels.joined(separator: "."), end ?? offset + 1)
      case 0:
        total += length + 1
        guard total <= 254, offset + 1 + length <= bytes.count else { return nil }
        labels.append(Self.text(bytes[offset + 1..<offset + 1 + length]))
        offset += 1 + length
      case 0xc0:
        guard offset + 1 < bytes.count else { return nil }
        let target = (length & 0x3f) << 8 | Int(bytes[offset + 1])
        // Not into the header: a name of bytes that a forwarder changes (the id) would be another one behind it.
        guard target < lowest, target >= Self.headerLength else { return nil }
        if end == nil { end = offset + 2 }
        lowest = target
        offset = target
      default:
        return nil
      }
    }
    return nil
  }

  private static func text(_ label: ArraySlice<UInt8>) -> String {
    label.reduce(into: "") { text, byte in
      switch byte {
      case UInt8(ascii: "."), UInt8(ascii: "\\"): text += "\\" + String(UnicodeScalar(byte))
      case 0x21...0x7e: text.unicodeScalars.append(UnicodeScalar(byte))
      default: text += "\\" + String(repeating: "0", count: 3 - String(byte).count) + String(byte)
      }
    }
  }
}
