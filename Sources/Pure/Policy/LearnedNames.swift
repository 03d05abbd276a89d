import Inet

/// For which names an address was the answer of late, and until when that counts.
///
/// Who answers is not trusted: there is a bound on the addresses of a name, on the names of an address, and on all of them
/// together. Where the last is reached, the quarter that was learned first goes; where the first is, all of that name; where
/// the second is, the name that was learned first. A program that wants one of those asks again.
public struct LearnedNames {
  private struct Entry {
    var name: DomainName
    var until: UInt64
    var learned: UInt64
  }

  private let floor: UInt64
  private let limit: Int
  private let nameLimit: Int
  private let addressLimit: Int
  private var entries: [IPAddress: [Entry]] = [:]
  /// How many of each name.
  private var counts: [DomainName: Int] = [:]
  private var number: UInt64 = 0
  public private(set) var count = 0

  /// - Parameters:
  ///   - floor: in seconds; an address counts at least so long, since programs do not connect in the moment of the answer.
  ///   - limit: how many pairs of an address and a name.
  ///   - nameLimit: how many addresses of one name.
  ///   - addressLimit: how many names of one address.
  public init(floor: UInt32, limit: Int = 1 << 15, nameLimit: Int = 256, addressLimit: Int = 256) {
    self.floor = UInt64(floor)
    self.limit = limit
    self.nameLimit = nameLimit
    self.addressLimit = addressLimit
  }

  /// - Parameters:
  ///   - seconds: for which the answer holds.
  ///   - now: in seconds, of a clock that does not go back.
  public mutating func learn(_ address: IPAddress, of name: DomainName, seconds: UInt32, now: UInt64) {
    let address = address.unmapped
    // A second that has begun counts as if it had not: no less than what was said.
    let until = now + max(UInt64(seconds), floor)
    number += 1
    let ofName = counts[name] ?? 0
    if ofName > 0, let place = entries.index(forKey: address),
      Self.renew(name, until, number, &entries.values[place])
    {
      return
    }
    if count >= limit { makeRoom(now) }
    if ofName >= nameLimit, counts[name] ?? 0 >= nameLimit { remove { $0.name == name } }
    // The first is the one that was learned first: what is learned again goes to the end.
    if let place = entries.index(forKey: address), entries.values[place].count >= addressLimit {
      forget(entries.values[place].removeFirst().name)
      count -= 1
    }
    entries[address, default: []].append(Entry(name: name, until: until, learned: number))
    counts[name, default: 0] += 1
    count += 1
  }

  /// - Returns: whether the name is among them.
  private static func renew(_ name: DomainName, _ until: UInt64, _ number: UInt64, _ known: inout [Entry]) -> Bool {
    guard let index = known.lastIndex(where: { $0.name == name }) else { return false }
    let entry = Entry(name: name, until: max(known[index].until, until), learned: number)
    if index == known.count - 1 {
      known[index] = entry
    } else {
      known.remove(at: index)
      known.append(entry)
    }
    return true
  }

  /// The names for which the address was the answer, if that still counts; the one that was learned last is the first, as
  /// the program has most likely connected for that.
  public func names(of address: IPAddress, now: UInt64) -> [DomainName] {
    guard let known = entries[address.unmapped] else { return [] }
    return known.reversed().filter { $0.until >= now }.map(\.name)
  }

  private mutating func makeRoom(_ now: UInt64) {
    remove { $0.until < now }
    guard count >= limit else { return }
    var order: [UInt64] = []
    order.reserveCapacity(count)
    for known in entries.values { for entry in known { order.append(entry.learned) } }
    order.sort()
    let last = order[min(order.count - 1, limit / 4)]
    remove { $0.learned <= last }
  }

  private mutating func forget(_ name: DomainName) {
    let left = (counts[name] ?? 1) - 1
    counts[name] = left > 0 ? left : nil
  }

  private mutating func remove(where isGone: (Entry) -> Bool) {
    for (address, known) in entries {
      guard known.contains(where: isGone) else { continue }
      let kept = known.filter { !isGone($0) }
      for entry in known where isGone(entry) { forget(entry.name) }
      count -= known.count - kept.count
      entries[address] = kept.isEmpty ? nil : kept
    }
  }
}
