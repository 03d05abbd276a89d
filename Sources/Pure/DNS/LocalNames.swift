import Inet

/// Answers that no server is asked for: fixed ones, and those of RFC 6761 section 6.3 and 6.4.
public struct LocalNames: Equatable, Sendable {
  public var hosts: [FixedHost]

  /// In seconds: how long a program may keep such an answer.
  private static let lifetime: UInt32 = 60
  private static let localhost = DomainName(labels: [9] + Array("localhost".utf8)) ?? .root
  private static let invalid = DomainName(labels: [7] + Array("invalid".utf8)) ?? .root
  private static let nameError: UInt8 = 3

  public init(hosts: [FixedHost]) { self.hosts = hosts }

  /// The names that an address is fixed for.
  public func names(of address: IPAddress) -> [DomainName] {
    hosts.isEmpty ? [] : hosts.filter { $0.addresses.contains(address.unmapped) }.map(\.name)
  }

  /// Whether nobody outside may be asked for the name.
  public static func isReserved(_ name: DomainName) -> Bool { name.isWithin(localhost) || name.isWithin(invalid) }

  /// nil where a server must be asked.
  public func answer(_ query: DNSMessage, _ question: DNSMessage.Question) -> DNSMessage? {
    guard question.networkClass == 1 else { return nil }
    if let host = hosts.first(where: { $0.name == question.domain }) {
      return Self.addresses(host.addresses, query, question)
    }
    if question.domain.isWithin(Self.localhost) {
      return Self.addresses([.v4(.loopback), .v6(.loopback)], query, question)
    }
    if question.domain.isWithin(Self.invalid) { return query.errorResponse(code: Self.nameError) }
    guard let address = question.domain.reverseAddress else { return nil }
    let names = address.isLoopback ? [Self.localhost] : names(of: address)
    guard !names.isEmpty else { return nil }
    return query.reply(
      question.type == RecordType.ptr
        ? names.map { .init(type: RecordType.ptr, seconds: Self.lifetime, data: $0.labels + [0]) } : [])
  }

  private static func addresses(_ all: [IPAddress], _ query: DNSMessage, _ question: DNSMessage.Question) -> DNSMessage
  {
    query.reply(
      all.compactMap { address in
        let type = address.bitCount == 32 ? RecordType.a : RecordType.aaaa
        return type == question.type ? .init(type: type, seconds: lifetime, data: address.bytes) : nil
      })
  }
}

extension DNSMessage {
  struct NewRecord {
    var type: UInt16
    var seconds: UInt32
    var data: [UInt8]
  }

  /// A response to this query with records of the name asked for.
  func reply(_ records: [NewRecord]) -> DNSMessage {
    var response = errorResponse(code: 0)
    response.bytes[6] = UInt8(truncatingIfNeeded: records.count >> 8)
    response.bytes[7] = UInt8(truncatingIfNeeded: records.count)
    for record in records {
      response.bytes += [0xc0, UInt8(Self.headerLength), UInt8(record.type >> 8), UInt8(record.type & 0xff), 0, 1]
      for shift: UInt32 in [24, 16, 8, 0] { response.bytes.append(UInt8(record.seconds >> shift & 0xff)) }
      response.bytes += [UInt8(record.data.count >> 8), UInt8(record.data.count & 0xff)] + record.data
    }
    return response
  }
}

extension DomainName {
  private static let arpa = DomainName(labels: [4] + Array("arpa".utf8)) ?? .root

  /// The address whose names this one is asked for: 1.0.0.127.in-addr.arpa (RFC 1035 section 3.5), and ip6.arpa (RFC 3596
  /// section 2.5).
  public var reverseAddress: IPAddress? {
    guard isWithin(Self.arpa) else { return nil }
    var parts: [ArraySlice<UInt8>] = []
    var offset = 0
    while offset < labels.count {
      let end = offset + 1 + Int(labels[offset])
      parts.append(labels[(offset + 1)..<end])
      offset = end
    }
    guard parts.count >= 2 else { return nil }
    let zone = parts[parts.count - 2]
    let rest = parts.dropLast(2).reversed()
    if zone.elementsEqual("in-addr".utf8), rest.count == 4 {
      return IPv4Address(rest.map { String(decoding: $0, as: UTF8.self) }.joined(separator: ".")).map { .v4($0) }
    }
    guard zone.elementsEqual("ip6".utf8), rest.count == 32 else { return nil }
    var bytes: [UInt8] = []
    for (index, part) in rest.enumerated() {
      guard part.count == 1, let digit = part.first.flatMap({ Character(UnicodeScalar($0)).hexDigitValue }) else {
        return nil
      }
      if index % 2 == 0 { bytes.append(UInt8(digit) << 4) } else { bytes[index / 2] |= UInt8(digit) }
    }
    return IPAddress(bytes: bytes)
  }
}
