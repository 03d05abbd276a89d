import Inet

/// Which destinations the log has said to be in use: each one once, and not more than some, whatever the program does. So
/// somebody can write a policy from the log of a day (`tombolo check --suggest`).
public struct FirstUses: Sendable {
  public enum Use: Hashable, Sendable {
    /// A name that was asked for, and answered.
    case query(DomainName)
    /// Flows for a name; where the transport has no ports, 0.
    case name(DomainName, port: UInt16, FlowTransport)
    /// Flows to an address that was the answer for no name.
    case address(IPEndpoint, FlowTransport)

    public init(_ destination: IPEndpoint, _ name: DomainName?, _ transport: FlowTransport = .tcp) {
      self = name.map { .name($0, port: destination.port, transport) } ?? .address(destination, transport)
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
