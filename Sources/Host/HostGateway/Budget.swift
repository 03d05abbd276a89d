import LinuxSystem

// Theory of operation.
//
// What an enclave can make the host side hold is counted, by enclave and by kind. One more is given where three things are so:
//
// - the enclave has fewer of that kind than the kind's limit;
// - the descriptors that it holds of that kind would be at most four times those that are free. So connections out, however
//   many, leave a fifth of all descriptors to published ports, names and streams that have only just come, and connections
//   never take the last few;
// - where several enclaves share one host side, all its descriptors together would be at most twice those that are free. So
//   one enclave has two thirds of them, two have two fifths each, and whoever comes next finds some
//   (dynamic thresholds, Choudhury and Hahne 1998, as switches share their buffers).
//
// Free are those of RLIMIT_NOFILE but for a reserve, which is this process's own.

/// A kind of thing that enclaves and their clients make the host side hold.
enum Holding: String, CaseIterable {
  /// A stream that has not said yet what it is.
  case hellos
  /// A connection out: a stream and a socket.
  case outgoing
  /// A connection to a published port: a socket and a stream.
  case incoming
  /// A stream of queries.
  case resolvers
  /// A query on its way.
  case queries
  /// A flow of datagrams: a socket.
  case flows

  /// So many descriptors stay free behind it: one for each kind, so that connections leave the other kinds something where
  /// there are few.
  var leaves: Int { self == .outgoing || self == .incoming || self == .flows ? Self.allCases.count : 0 }

  /// Each holds so many.
  var descriptors: Int { self == .outgoing || self == .incoming ? 2 : 1 }
}

/// What one enclave may hold at a time.
public struct HostLimits: Equatable, Sendable {
  public var outgoing = HostLimits.connectionsByDefault
  public var incoming = HostLimits.connectionsByDefault
  /// Streams without a hello: above this the oldest goes.
  var hellos = 512
  var resolvers = 8
  /// Flows of datagrams.
  var flows = 8192
  /// Bytes of datagrams for the enclave that wait on their stream; what comes beyond them is lost, as on any link.
  var datagramBytes = 2 << 20
  var queries = 1024
  /// Bytes of the queries on their way.
  var queryBytes = 1 << 20
  /// Bytes of answers that wait on one stream of queries.
  var answerBytes = 256 * 1024
  /// Bytes that wait in connections for a slow reader, before less is read at a time.
  var connectionBytes = 16 << 20
  /// RLIMIT_NOFILE.
  let openFiles: Int
  /// Descriptors for all enclaves.
  var descriptors: Int

  /// Connections, out and in each.
  var connections: Int {
    get { max(outgoing, incoming) }
    set { (outgoing, incoming) = (newValue, newValue) }
  }

  /// How many connections there can be of one direction, while there is nothing else.
  var mostConnections: Int { max(0, min(descriptors - Holding.outgoing.leaves, descriptors * 4 / 5) / 2) }

  public static let connectionsByDefault = 16384

  public init() { self.init(openFiles: openFilesLimit()) }

  /// - Parameter openFiles: RLIMIT_NOFILE.
  init(openFiles: Int) {
    self.openFiles = openFiles
    descriptors = openFiles - min(128, openFiles / 4)
  }

  func limit(_ kind: Holding) -> Int {
    switch kind {
    case .hellos: hellos
    case .outgoing: outgoing
    case .incoming: incoming
    case .resolvers: resolvers
    case .queries: queries
    case .flows: flows
    }
  }
}

/// The counting, and the decision.
struct BudgetLedger {
  private struct Held {
    var counts = [Int](repeating: 0, count: Holding.allCases.count)
    var descriptors = 0
    var bytes = 0
  }

  let limits: HostLimits
  /// Whether several enclaves share what there is.
  private let isShared: Bool
  private var held: [PeerKey: Held] = [:]
  private(set) var free: Int

  init(_ limits: HostLimits, isShared: Bool) {
    self.limits = limits
    self.isShared = isShared
    free = limits.descriptors
  }

  /// Of all enclaves, those on the way to being made included.
  var connections: Int {
    held.values.reduce(0) { $0 + $1.counts[Self.index(.outgoing)] + $1.counts[Self.index(.incoming)] }
  }

  func count(_ kind: Holding, of peer: PeerKey) -> Int { held[peer]?.counts[Self.index(kind)] ?? 0 }

  /// - Parameter bytes: of a query.
  /// - Returns: whether it may be had; it is counted then.
  mutating func take(_ kind: Holding, bytes: Int = 0, for peer: PeerKey) -> Bool {
    var mine = held[peer] ?? Held()
    let index = Self.index(kind)
    let left = free - kind.descriptors
    mine.counts[index] += 1
    mine.descriptors += kind.descriptors
    mine.bytes += bytes
    guard left >= kind.leaves, mine.counts[index] <= limits.limit(kind), mine.bytes <= limits.queryBytes,
      mine.counts[index] * kind.descriptors <= 4 * left, !isShared || mine.descriptors <= 2 * left
    else { return false }
    free = left
    held[peer] = mine
    return true
  }

  mutating func giveBack(_ kind: Holding, bytes: Int = 0, of peer: PeerKey) {
    guard var mine = held[peer], mine.counts[Self.index(kind)] > 0 else { return }
    mine.counts[Self.index(kind)] -= 1
    mine.descriptors -= kind.descriptors
    mine.bytes -= bytes
    free += kind.descriptors
    held[peer] = mine.descriptors == 0 ? nil : mine
  }

  /// What the enclave has as much of as it may: the kind, and not the descriptors.
  func isAtLimit(_ kind: Holding, of peer: PeerKey) -> Bool { count(kind, of: peer) >= limits.limit(kind) }

  private static func index(_ kind: Holding) -> Int {
    switch kind {
    case .hellos: 0
    case .outgoing: 1
    case .incoming: 2
    case .resolvers: 3
    case .queries: 4
    case .flows: 5
    }
  }
}

/// Gives out what enclaves may hold.
final class Budget {
  private var ledger: BudgetLedger
  private let counters: HostCounters
  private let complaints: ComplaintLog

  init(_ limits: HostLimits, isShared: Bool, counters: HostCounters, complaints: ComplaintLog) {
    ledger = BudgetLedger(limits, isShared: isShared)
    self.counters = counters
    self.complaints = complaints
  }

  var limits: HostLimits { ledger.limits }

  /// Connections of all enclaves, in and out.
  var connections: Int { ledger.connections }

  /// Something that is held; given back when this object goes.
  final class Lease {
    private let budget: Budget
    private let kind: Holding
    private let bytes: Int
    private let peer: PeerKey

    fileprivate init(_ budget: Budget, _ kind: Holding, _ bytes: Int, _ peer: PeerKey) {
      self.budget = budget
      self.kind = kind
      self.bytes = bytes
      self.peer = peer
    }

    deinit { budget.ledger.giveBack(kind, bytes: bytes, of: peer) }
  }

  /// nil where it would be too much, which is not counted as a refusal yet.
  func lease(_ kind: Holding, bytes: Int = 0, for peer: PeerKey) -> Lease? {
    ledger.take(kind, bytes: bytes, for: peer) ? Lease(self, kind, bytes, peer) : nil
  }

  /// Counts a refusal, and says it.
  func refused(_ kind: Holding, _ peer: PeerKey) {
    counters.overLimit[kind.rawValue, default: 0] &+= 1
    complaints.say(
      .overLimit,
      "\(peer == 0 ? "the enclave" : "the enclave with CID \(peer)") has too many at a time: \(kind.rawValue)"
        + " (\(ledger.count(kind, of: peer))"
        + (ledger.isAtLimit(kind, of: peer) || kind == .queries
          ? ")" : ", because this process may have \(limits.openFiles) files open: RLIMIT_NOFILE)"))
  }
}
