/// How often there was what, for at most so many different ones: the first ones are kept, and what comes when there is no room
/// is counted together.
public struct BoundedCounts<Key: Hashable & Sendable>: Sendable {
  public let limit: Int
  public private(set) var counts: [Key: UInt64] = [:]
  public private(set) var others: UInt64 = 0

  public init(limit: Int) { self.limit = limit }

  public var isEmpty: Bool { counts.isEmpty && others == 0 }

  public mutating func add(_ key: Key, _ count: UInt64 = 1) {
    if let known = counts[key] {
      counts[key] = known &+ count
    } else if counts.count < limit {
      counts[key] = count
    } else {
      others &+= count
    }
  }

  /// Counts what nobody knows the name of.
  public mutating func addOthers(_ count: UInt64) { others &+= count }
}
