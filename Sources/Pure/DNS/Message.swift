import Inet

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

  /// A query for a name, with recursion wanted (RFC 1035 section 4.1.1).
  public init?(asking name: DomainName, type: UInt16) {
    self.init(
      [0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0] + name.labels + [0, UInt8(type >> 8), UInt8(type & 0xff), 0, 1])
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

  /// The kind of request; 0 is a query (RFC 1035 section 4.1.1).
  public var opcode: UInt8 { bytes[2] >> 3 & 15 }
  /// The response code's lower four bits; 0 is no error, 3 that the name does not exist.
  public var code: UInt8 { bytes[3] & 15 }

  /// How many records each section says that it has, the questions first.
  public func count(of section: Section) -> Int { count(at: 4 + section.rawValue * 2) }

  public enum Section: Int, Sendable { case question, answer, authority, additional }

  /// The first question, or nil where there is none or it cannot be read.
  public var question: Question? {
    guard count(at: 4) >= 1, let (labels, end) = readName(from: Self.headerLength), end + 4 <= bytes.count,
      let name = DomainName(labels: labels)
    else { return nil }
    return Question(
      labels: labels, domain: name, type: UInt16(at: end, bytes), networkClass: UInt16(at: end + 2, bytes), end: end + 4
    )
  }

  /// The offset behind the first question; nil where `question` is.
  var endOfQuestion: Int? {
    guard count(at: 4) >= 1, let end = endOfName(from: Self.headerLength), end + 4 <= bytes.count else { return nil }
    return end + 4
  }

  /// Whether the first question is the same byte for byte, or both have none. No name of a first question is compressed, since
  /// there is nothing before it, so these bytes are all of it.
  public func hasQuestion(of other: DNSMessage) -> Bool {
    guard let end = other.endOfQuestion else { return endOfQuestion == nil }
    guard count(at: 4) >= 1, bytes.count >= end else { return false }
    return bytes[Self.headerLength..<end].elementsEqual(other.bytes[Self.headerLength..<end])
  }

  /// Whether the first question is a query's, but for capital and small letters.
  public func answers(_ query: DNSMessage) -> Bool {
    guard let end = query.endOfQuestion else { return false }
    if endOfQuestion == end, hasQuestion(of: query) { return true }
    guard let asked = query.question, let mine = question else { return false }
    return mine.asksTheSame(as: asked)
  }

  public struct Question: Equatable, Sendable, CustomStringConvertible {
    /// As they came, in capital and small letters.
    public var labels: [UInt8]
    public var domain: DomainName
    /// 1 A, 28 AAAA, …
    public var type: UInt16
    /// 1 for the internet.
    public var networkClass: UInt16
    /// The offset just behind the question.
    public var end: Int

    /// In small letters, without the final dot; bytes outside printable ASCII as \DDD.
    public var name: String { domain.description }

    /// Whether it is the same but for capital and small letters.
    public func asksTheSame(as other: Question) -> Bool {
      domain == other.domain && type == other.type && networkClass == other.networkClass
    }

    public var description: String { "\(name) \(RecordType.name(type))" }
  }

  /// The requestor's UDP payload size (RFC 6891 section 6.2.3), at least 512; 512 without an OPT record.
  public var udpLimit: Int {
    guard var offset = endOfQuestion, count(at: 4) == 1 else { return Self.plainUDPLimit }
    let records = count(at: 6) + count(at: 8) + count(at: 10)
    for _ in 0..<min(records, 64) {
      guard let end = endOfName(from: offset), end + 10 <= bytes.count else { break }
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
    let end = endOfQuestion
    copy.bytes = Array(bytes[..<(end ?? Self.headerLength)])
    copy.bytes[4] = 0
    copy.bytes[5] = end == nil ? 0 : 1
    for index in 6..<12 { copy.bytes[index] = 0 }
    return copy
  }

  private func count(at offset: Int) -> Int { Int(bytes[offset]) << 8 | Int(bytes[offset + 1]) }

  /// A name's labels (RFC 1035 section 3.1), each behind its length and without the root's, and the offset behind it.
  /// Compression pointers must point backwards, which bounds the walk; names are at most 255 bytes.
  func readName(from start: Int) -> (labels: [UInt8], end: Int)? {
    var count = 0
    guard let end = walkName(from: start, { range, isLabel in if isLabel { count += range.count } }) else { return nil }
    // Without a pointer all labels stand together, with the root's behind them.
    if end == start + count + 1 { return (Array(bytes[start..<start + count]), end) }
    var labels: [UInt8] = []
    labels.reserveCapacity(count)
    _ = walkName(from: start) { range, isLabel in if isLabel { labels += bytes[range] } }
    return (labels, end)
  }

  /// The offset behind a name; nil where `readName` is. Allocates nothing.
  func endOfName(from start: Int) -> Int? { walkName(from: start) { _, _ in } }

  /// - Parameter visit: takes each range of bytes that the name is read from, and whether it is a label with its length.
  /// - Returns: the offset behind the name.
  @inline(__always)
  func walkName(from start: Int, _ visit: (_ range: Range<Int>, _ isLabel: Bool) -> Void) -> Int? {
    var count = 0
    var offset = start
    var end: Int?
    var lowest = start
    while offset < bytes.count {
      let length = Int(bytes[offset])
      switch length & 0xc0 {
      case 0 where length == 0:
        visit(offset..<offset + 1, false)
        return end ?? offset + 1
      case 0:
        guard count + length + 1 <= DomainName.limit, offset + 1 + length <= bytes.count else { return nil }
        visit(offset..<offset + 1 + length, true)
        count += length + 1
        offset += 1 + length
      case 0xc0:
        guard offset + 1 < bytes.count else { return nil }
        let target = (length & 0x3f) << 8 | Int(bytes[offset + 1])
        // Not into the header: a name of bytes that a forwarder changes (the id) would be another one behind it.
        guard target < lowest, target >= Self.headerLength else { return nil }
        visit(offset..<offset + 2, false)
        if end == nil { end = offset + 2 }
        lowest = target
        offset = target
      default:
        return nil
      }
    }
    return nil
  }
}

extension UInt16 {
  /// Two bytes in network order, which must be there.
  init(at offset: Int, _ bytes: [UInt8]) { self = UInt16(bytes[offset]) << 8 | UInt16(bytes[offset + 1]) }
}

extension UInt32 {
  init(at offset: Int, _ bytes: [UInt8]) {
    self = UInt32(UInt16(at: offset, bytes)) << 16 | UInt32(UInt16(at: offset + 2, bytes))
  }
}

/// The types of records that something is done for (RFC 1035 section 3.2.2 and later).
public enum RecordType {
  public static let a: UInt16 = 1
  public static let cname: UInt16 = 5
  public static let soa: UInt16 = 6
  public static let ptr: UInt16 = 12
  public static let aaaa: UInt16 = 28
  public static let opt: UInt16 = 41
  public static let svcb: UInt16 = 64
  public static let https: UInt16 = 65
  /// Every type, as far as the server likes (RFC 8482).
  public static let any: UInt16 = 255

  static func name(_ type: UInt16) -> String {
    switch type {
    case a: "A"
    case 2: "NS"
    case cname: "CNAME"
    case soa: "SOA"
    case ptr: "PTR"
    case 15: "MX"
    case 16: "TXT"
    case aaaa: "AAAA"
    case 33: "SRV"
    case svcb: "SVCB"
    case https: "HTTPS"
    default: "TYPE\(type)"
    }
  }
}
