import Inet

/// Responses for as long as they hold (RFC 1035 section 7.4, RFC 2308), with their TTLs counted down. Never a stale one.
public struct ResponseCache {
  /// What makes two queries the same: all of it but the id and the spelling of the name.
  private struct Key: Hashable {
    var name: DomainName
    var type: UInt16
    /// RD, AD and CD, and whether there are an OPT record and DO.
    var flags: UInt16
  }

  private struct Entry {
    var response: DNSMessage
    /// Its records, so that a hit need not read it again.
    var records: [ResourceRecord]
    var addresses: [ResponseReview.Answer]
    var stored: UInt32
    var lifetime: UInt32
    var number: UInt64
  }

  private let limit: Int
  private var entries: [Key: Entry] = [:]
  /// In the order in which they came; what has been replaced since is passed over.
  private var order: [(key: Key, number: UInt64)] = []
  private var first = 0
  private var number: UInt64 = 0
  public private(set) var bytes = 0

  /// What all responses together may have, for each one of `limit`: most are of a hundred.
  private static let byteShare = 2048

  /// - Parameter limit: how many responses are kept; 0 for none.
  public init(limit: Int) { self.limit = limit }

  public var count: Int { entries.count }

  /// nil for what must be asked each time: other classes and kinds of query, and options that are for one client (RFC 7871,
  /// RFC 7873).
  private static func key(_ query: DNSMessage) -> Key? {
    guard query.opcode == 0, query.count(of: .question) == 1, query.count(of: .answer) == 0,
      query.count(of: .authority) == 0, let question = query.question, question.networkClass == 1,
      // AXFR, IXFR and the other types that are questions only (RFC 6895 section 3.1).
      !(249...255).contains(question.type), let records = query.records
    else { return nil }
    var flags = UInt16(query.bytes[2] & 1) << 8 | UInt16(query.bytes[3] & 0x30)
    for record in records {
      guard record.type == RecordType.opt, record.data.isEmpty else { return nil }
      flags |= 1 | (record.ttl & 0x8000 != 0 ? 2 : 0)
    }
    return Key(name: question.domain, type: question.type, flags: flags)
  }

  /// - Parameter now: in seconds, of a clock that does not go back.
  /// - Returns: a response with the query's own id and spelling, and the addresses that it was stored with.
  public mutating func answer(
    _ query: DNSMessage, now: UInt32
  ) -> (response: DNSMessage, addresses: [ResponseReview.Answer])? {
    guard limit > 0, let key = Self.key(query), let entry = entries[key] else { return nil }
    let age = now &- entry.stored
    guard age < entry.lifetime else {
      remove(key)
      return nil
    }
    var response = entry.response
    var addresses = entry.addresses
    if age > 0 {
      response.age(entry.records, by: age)
      for index in addresses.indices { addresses[index].seconds -= min(age, addresses[index].seconds) }
    }
    return (response.spelled(as: query), addresses)
  }

  /// - Parameters:
  ///   - addresses: of the name that was asked for.
  ///   - lifetime: in seconds.
  public mutating func store(
    _ response: DNSMessage, to query: DNSMessage, addresses: [ResponseReview.Answer] = [], lifetime: UInt32, now: UInt32
  ) {
    guard let records = response.records else { return }
    store(response, records, to: query, addresses: addresses, lifetime: lifetime, now: now)
  }

  /// - Parameter review: with its lifetime.
  public mutating func store(_ review: ResponseReview, to query: DNSMessage, now: UInt32) {
    store(
      review.message, review.records, to: query, addresses: review.addresses, lifetime: review.lifetime ?? 0, now: now)
  }

  private mutating func store(
    _ response: DNSMessage, _ records: [ResourceRecord], to query: DNSMessage, addresses: [ResponseReview.Answer],
    lifetime: UInt32, now: UInt32
  ) {
    guard limit > 0, lifetime > 0, let key = Self.key(query), response.keepsItsNames(records) else { return }
    remove(key)
    let most = limit * Self.byteShare
    guard response.bytes.count <= most / 4 else { return }
    while entries.count >= limit || bytes + response.bytes.count > most {
      guard dropOldest() else { return }
    }
    number += 1
    entries[key] = Entry(
      response: response, records: records, addresses: addresses, stored: now, lifetime: lifetime, number: number)
    order.append((key, number))
    bytes += response.bytes.count
  }

  private mutating func dropOldest() -> Bool {
    while first < order.count {
      let oldest = order[first]
      first += 1
      if first > 64, first * 2 > order.count {
        order.removeFirst(first)
        first = 0
      }
      if entries[oldest.key]?.number == oldest.number {
        remove(oldest.key)
        return true
      }
    }
    return false
  }

  private mutating func remove(_ key: Key) {
    if let old = entries.removeValue(forKey: key) { bytes -= old.response.bytes.count }
    // Names that are asked for again and again must not pile up.
    if order.count - first > 4 * limit + 64 {
      order = order[first...].filter { entries[$0.key]?.number == $0.number }
      first = 0
    }
  }
}
