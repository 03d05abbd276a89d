/// How many lines about denied destinations, or connections that failed, go to the log: the first ones at once, then one a second, with the number of
/// those that were left out. A program that tries again and again must not fill the log.
public struct DenialBudget: Equatable, Sendable {
  private static let burst: UInt64 = 10
  private static let interval: UInt64 = 1_000_000_000

  private var left = burst
  private var last: UInt64 = 0
  private var suppressed: UInt64 = 0

  private let what: String

  /// - Parameter what: happened to those that are only counted.
  public init(_ what: String = "were denied") { self.what = what }

  /// - Parameter now: in nanoseconds, of a clock that does not go back.
  /// - Returns: what the line ends with: nothing, or how many were left out; nil for no line.
  public mutating func admit(at now: UInt64) -> String? {
    let elapsed = now >= last ? (now - last) / Self.interval : 0
    if elapsed > 0 {
      left = min(Self.burst, left &+ elapsed)
      last = now
    }
    guard left > 0 else {
      suppressed &+= 1
      return nil
    }
    left -= 1
    defer { suppressed = 0 }
    return suppressed == 0 ? "" : " (and \(suppressed) more \(what) since the last such line)"
  }
}
