/// How a process ended, by wait(2).
public enum ExitStatus: Equatable, Sendable, CustomStringConvertible {
  case exited(UInt8)
  case signalled(Int32)

  /// What a shell would say: the status, or 128 plus the signal.
  public var code: UInt8 {
    switch self {
    case .exited(let status): status
    case .signalled(let signal): UInt8(truncatingIfNeeded: 128 + signal)
    }
  }

  public var description: String {
    switch self {
    case .exited(let status): "exited with status \(status)"
    case .signalled(let signal): "was ended by signal \(signal)"
    }
  }
}

/// The delays before a service is started again: the first restart is at once, because a proxy that died once must
/// be back within a second; after that they double from 100 ms to 5 s until it has run for 10 s.
public struct RestartBackoff: Equatable, Sendable {
  public static let first: Duration = .milliseconds(100)
  public static let longest: Duration = .seconds(5)
  public static let steady: Duration = .seconds(10)

  /// Deaths since it last ran steadily.
  public private(set) var tally = 0

  public init() {}

  /// - Parameter uptime: how long the process that has just died ran.
  public mutating func delay(afterUptime uptime: Duration) -> Duration {
    if uptime >= Self.steady { tally = 0 }
    defer { tally += 1 }
    guard tally > 0 else { return .zero }
    return min(Self.longest, Self.first * (1 << min(tally - 1, 10)))
  }
}
