import Inet

/// Which destinations the log has said to be in use: each one once, and not more than some, whatever the program does. So
/// somebody can write a policy from the log of a day (`tombolo check --suggest`).
public struct FirstUses {
  public enum Use: Hashable, Sendable {
    /// A name that was asked for, and answered.
    case query(DomainName)
    /// Connections for a name.
    case name(DomainName, port: UInt16)
    /// Connections to an address that was the answer for no name.
    case address(IPEndpoint)
    /// Datagrams or echo requests, and the name that they are for; the port of the latter is 0.
    case datagrams(FlowTransport, IPEndpoint, DomainName?)

    public init(_ destination: IPEndpoint, _ name: DomainName?) {
      self = name.map { .name($0, port: destination.port) } ?? .address(destination)
    }
  }

  public enum Novelty: Equatable, Sendable {
    case first
    case known
    /// It is not known, and there is no room for it; said once.
    case tooMany
  }

  private let limit: Int
  /// The hashes of those that are known, in order. Their key is random and another one in each process (`Hasher`), so that
  /// nobody can make two destinations of the same hash; and a set of uses would be 30 KB of a boot's program.
  private var known: [Int] = []

  public init(limit: Int = 4096) { self.limit = limit }

  public mutating func note(_ use: Use) -> Novelty {
    guard known.count <= limit else { return .known }
    let hash = use.hashValue
    var low = 0
    var high = known.count
    while low < high {
      let middle = (low + high) / 2
      if known[middle] < hash { low = middle + 1 } else { high = middle }
    }
    if low < known.count, known[low] == hash { return .known }
    known.insert(hash, at: low)
    return known.count <= limit ? .first : .tooMany
  }
}
