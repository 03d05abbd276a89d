/// How many connections there may be at a time, and for how long they may stay as they are.
public struct ConnectionLimits: Equatable, Sendable {
  /// nil: as many as there are descriptors for.
  public var outgoing: Int?
  public var incoming: Int?
  /// Without a byte in either direction; nil without limit.
  public var idle: Duration?
  /// The same once one direction has ended.
  public var halfClosed: Duration?
  /// How long the other side may take to connect.
  public var connect: Duration
  /// How long a stream may be silent before its hello.
  public var hello: Duration = .seconds(10)
  /// How long the host side keeps a flow of UDP that nobody uses. RFC 4787 section 4.3: at least 2 minutes, better 5.
  public var datagrams: Duration = .seconds(300)

  /// The host side's own connect(2) gives up after about 127 s: tcp(7), tcp_syn_retries.
  public static let hostConnect: Duration = .seconds(130)
  /// The host's answer must still arrive.
  public static let enclaveConnect: Duration = .seconds(135)
  public static let range = 1...1_000_000
  public static let timeForm = "a duration of at least 1s"
  /// Also for what may be without limit.
  public static let limitForm = "\"forever\", or " + timeForm

  public init(connect: Duration) { self.connect = connect }

  /// Whether a time is one that a limit may be.
  public static func isTime(_ time: Duration) -> Bool { time >= .seconds(1) }
}

/// Counts connections against their limits and the descriptors that there are; each holds two.
public struct ConnectionLedger: Sendable {
  public enum Direction: Sendable { case outgoing, incoming }

  /// Why there is not one more.
  public enum Bound: Equatable, Sendable {
    case limit(Int)
    /// RLIMIT_NOFILE.
    case openFiles(Int)
  }

  private static let descriptors = 2
  /// So many stay free behind every connection, for streams that are no connection's.
  private static let leaves = 16

  private let outgoingLimit: Int
  private let incomingLimit: Int
  private let openFiles: Int
  private var free: Int
  public private(set) var outgoing = 0
  public private(set) var incoming = 0

  /// - Parameter openFiles: RLIMIT_NOFILE.
  public init(_ limits: ConnectionLimits, openFiles: Int) {
    outgoingLimit = limits.outgoing ?? .max
    incomingLimit = limits.incoming ?? .max
    self.openFiles = openFiles
    free = openFiles - min(128, openFiles / 4)
  }

  public func count(_ direction: Direction) -> Int { direction == .outgoing ? outgoing : incoming }

  /// Connections of one direction leave a fifth of all descriptors to the other one.
  /// - Returns: nil where it may be had, and is counted.
  public mutating func take(_ direction: Direction) -> Bound? {
    let limit = direction == .outgoing ? outgoingLimit : incomingLimit
    let next = count(direction) + 1
    guard next <= limit else { return .limit(limit) }
    let left = free - Self.descriptors
    guard left >= Self.leaves, next * Self.descriptors <= 4 * left else { return .openFiles(openFiles) }
    free = left
    set(direction, next)
    return nil
  }

  public mutating func giveBack(_ direction: Direction) {
    guard count(direction) > 0 else { return }
    free += Self.descriptors
    set(direction, count(direction) - 1)
  }

  private mutating func set(_ direction: Direction, _ count: Int) {
    if direction == .outgoing { outgoing = count } else { incoming = count }
  }

  /// How many of one direction there can be with so many open files, while there are none of the other.
  public static func most(openFiles: Int) -> Int {
    let all = openFiles - min(128, openFiles / 4)
    return max(0, min(all - leaves, all * 4 / 5) / descriptors)
  }
}
