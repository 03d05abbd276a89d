import Inet

// Theory of operation.
//
// A response to a query of the program is looked at as a whole before anything of it counts. Only records of the chain that
// begins with the name asked for are believed: the name itself, what it is an alias of (CNAME), and so on, into whatever
// zone. Their addresses belong to the name that was asked. Addresses that must not be reached are taken out, wherever they
// stand (DNS rebinding). TTLs above the ceiling are lowered to it, so that the program does not keep an address for longer
// than it may be reached.

/// What became of a response.
public struct ResponseReview: Equatable, Sendable {
  /// As the program gets it.
  public var message: DNSMessage
  /// The addresses of the name asked for, with the seconds for which the answer holds.
  public var addresses: [Answer] = []
  /// Addresses that were taken out.
  public var barred: [IPAddress] = []
  /// Those of `message`.
  private(set) var records: [ResourceRecord]
  /// In seconds: for how long the whole may be kept; nil for not at all.
  public var lifetime: UInt32?

  public struct Answer: Equatable, Sendable {
    public var address: IPAddress
    public var seconds: UInt32
  }

  /// What to look for.
  public struct Rules {
    /// Addresses that no port of may be reached.
    public var isBarred: (IPAddress) -> Bool
    /// Takes ECH's keys out of HTTPS and SVCB records.
    public var removesHiding: Bool
    /// In seconds.
    public var ceiling: UInt32

    public init(isBarred: @escaping (IPAddress) -> Bool, removesHiding: Bool, ceiling: UInt32) {
      self.isBarred = isBarred
      self.removesHiding = removesHiding
      self.ceiling = ceiling
    }
  }

  /// RFC 2308 section 5: three hours for what does not exist.
  private static let negativeCeiling: UInt32 = 10_800

  /// - Returns: nil for a response that cannot be read as a whole, or has become too long.
  public init?(_ response: DNSMessage, to question: DNSMessage.Question, _ rules: Rules) {
    guard let records = response.records else { return nil }
    message = response
    self.records = records
    var chain: [DomainName] = [question.domain]
    // Aliases come in their order, as RFC 1034 section 3.6.2 has them; servers that mix them are met by a second walk.
    for _ in 0..<2 {
      for record in records where record.section == .answer && chain.contains(record.name) {
        if let alias = response.alias(record), !chain.contains(alias), chain.count < Self.chainLimit {
          chain.append(alias)
        }
      }
    }
    var changed: [Int: [UInt8]?] = [:]
    for (index, record) in records.enumerated() {
      let isAnswer =
        record.section == .answer && chain.contains(record.name)
        && (record.type == question.type || question.type == RecordType.any)
      let seconds = min(record.ttl, rules.ceiling)
      if let address = response.address(record) {
        if rules.isBarred(address) {
          barred.append(address)
          changed[index] = .some(nil)
        } else if isAnswer {
          addresses.append(Answer(address: address, seconds: seconds))
        }
      } else if record.type == RecordType.https || record.type == RecordType.svcb {
        guard var binding = ServiceBinding(response, record) else { return nil }
        barred += binding.hints.filter(rules.isBarred)
        binding.removeHints(where: rules.isBarred)
        if rules.removesHiding { binding.removeHiding() }
        if isAnswer { addresses += binding.hints.map { Answer(address: $0, seconds: seconds) } }
        if binding.hasChanged { changed[index] = .some(binding.data) }
      }
    }
    lifetime = Self.lifetime(response, records, rules.ceiling)
    if !changed.isEmpty {
      var index = -1
      var isReadable = true
      let made = response.rewritten(records) { record in
        index += 1
        if let change = changed[index] { return change }
        guard let data = response.plainData(record) else {
          isReadable = false
          return nil
        }
        return data
      }
      guard let made, isReadable, let again = made.records else { return nil }
      message = made
      message.lowerTTLs(again, to: rules.ceiling)
    } else {
      message.lowerTTLs(records, to: rules.ceiling)
    }
    // A name that goes on in the bytes of a TTL is another one now.
    guard message == response else {
      guard let again = message.records else { return nil }
      self.records = again
      return
    }
  }

  /// Longer than any chain that a resolver follows.
  private static let chainLimit = 32

  private static func lifetime(_ response: DNSMessage, _ records: [ResourceRecord], _ ceiling: UInt32) -> UInt32? {
    guard response.opcode == 0, !response.isTruncated, response.code == 0 || response.code == 3 else { return nil }
    var lowest = ceiling
    for record in records where record.type != RecordType.opt { lowest = min(lowest, record.ttl) }
    let isNegative =
      response.code == 3
      || !records.contains { $0.section == .answer && $0.type != RecordType.cname && $0.type != RecordType.opt }
    if isNegative {
      // RFC 2308 section 5: no SOA record, nothing to keep it by.
      guard let soa = records.first(where: { $0.section == .authority && $0.type == RecordType.soa }),
        soa.data.count >= 20
      else { return nil }
      lowest = min(lowest, UInt32(at: soa.data.upperBound - 4, response.bytes), negativeCeiling)
    }
    return lowest == 0 ? nil : lowest
  }
}

extension DNSMessage {
  fileprivate mutating func lowerTTLs(_ records: [ResourceRecord], to ceiling: UInt32) {
    for record in records where record.type != RecordType.opt && record.ttl > ceiling { setTTL(record, ceiling) }
  }

  mutating func setTTL(_ record: ResourceRecord, _ seconds: UInt32) {
    for index in 0..<4 {
      bytes[record.ttlOffset + index] = UInt8(truncatingIfNeeded: seconds >> UInt32(24 - 8 * index))
    }
  }

  /// Whether every name stays the same whatever the TTLs are: a name that goes on in the bytes of one does not.
  func keepsItsNames(_ records: [ResourceRecord]) -> Bool {
    readsNoTTL(records) || readsTheSameWithAnyTTL(records)
  }

  func readsTheSameWithAnyTTL(_ records: [ResourceRecord]) -> Bool {
    [UInt32.min, .max].allSatisfy { ttl in
      var other = self
      for record in records where record.type != RecordType.opt { other.setTTL(record, ttl) }
      guard let again = other.records else { return false }
      return zip(again, records).allSatisfy { $0.labels == $1.labels && other.plainData($0) == plainData($1) }
    }
  }

  /// Whether no name is read from the bytes of a TTL. Names go on elsewhere only behind a pointer, so this is soon seen.
  func readsNoTTL(_ records: [ResourceRecord]) -> Bool {
    /// A range of bytes of a name.
    func isClear(_ range: Range<Int>) -> Bool {
      // They stand in their order: the last one that begins before the range's end.
      var low = 0
      var high = records.count
      while low < high {
        let middle = (low + high) / 2
        if records[middle].ttlOffset < range.upperBound { low = middle + 1 } else { high = middle }
      }
      return low == 0 || records[low - 1].ttlOffset + 4 <= range.lowerBound
    }
    /// The offset behind a name that is clear of them.
    func end(_ start: Int) -> Int? {
      var isFree = true
      let end = walkName(from: start) { range, _ in if isFree { isFree = isClear(range) } }
      return isFree ? end : nil
    }
    for record in records {
      guard end(record.nameOffset) != nil else { return false }
      guard let names = record.namesInData else { continue }
      var offset = record.data.lowerBound + names.before
      for _ in 0..<names.count {
        guard offset <= record.data.upperBound, let next = end(offset) else { return false }
        offset = next
      }
    }
    return true
  }

  /// The same so many seconds later. OPT records have something else in the TTL's place.
  mutating func age(_ records: [ResourceRecord], by seconds: UInt32) {
    for record in records where record.type != RecordType.opt {
      setTTL(record, record.ttl > seconds ? record.ttl - seconds : 0)
    }
  }
}
