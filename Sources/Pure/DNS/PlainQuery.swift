import Inet

// A query has room for more than its question: bytes behind it, options, capital and small letters, bits that mean nothing.
// The server of the name would get all of it, and a policy that judges names alone would not see it.

extension DNSMessage {
  /// What resolvers send since DNS flag day 2020: fits into one packet on every path.
  private static let bufferSize: UInt16 = 1232
  /// RD; AD and CD (RFC 4035 section 3.2).
  private static let flags: (UInt8, UInt8) = (0x01, 0x30)

  /// The same question with nothing else than what a server needs for its answer: RD, AD, CD, and of EDNS that it is spoken,
  /// and DO. nil for what is no query with one question that can be read to its end.
  public func plainQuery() -> DNSMessage? {
    guard !isResponse, opcode == 0, count(of: .question) == 1, let question, let records,
      records.allSatisfy({ $0.section == .additional })
    else { return nil }
    let options = records.filter { $0.type == RecordType.opt }
    guard options.count <= 1 else { return nil }
    var made: [UInt8] = []
    made.reserveCapacity(Self.headerLength + question.domain.labels.count + 5 + 11)
    made += bytes[..<4]
    made[2] &= Self.flags.0
    made[3] &= Self.flags.1
    for byte in [0, 1, 0, 0, 0, 0, 0, UInt8(options.count)] as [UInt8] { made.append(byte) }
    made += question.domain.labels
    made.append(0)
    // Type and class.
    made += bytes[(question.end - 4)..<question.end]
    if let option = options.first {
      for byte in [0, 0, UInt8(RecordType.opt), UInt8(Self.bufferSize >> 8), UInt8(Self.bufferSize & 0xff)] as [UInt8] {
        made.append(byte)
      }
      // Extended code and version, DO, no options (RFC 6891 section 6.1.3).
      for byte in [0, 0, option.ttl & 0x8000 != 0 ? 0x80 : 0, 0, 0, 0] as [UInt8] { made.append(byte) }
    }
    return DNSMessage(made)
  }

  /// This response with the id and the spelling of a query for the same name.
  public func spelled(as query: DNSMessage) -> DNSMessage {
    var made = self
    made.id = query.id
    if hasQuestion(of: query) { return made }
    if let mine = question, let asked = query.question, mine.domain == asked.domain, mine.end == asked.end {
      made.bytes.replaceSubrange(Self.headerLength..<mine.end, with: query.bytes[Self.headerLength..<mine.end])
    }
    return made
  }
}
