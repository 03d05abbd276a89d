/// How much each caller may ask the device for: it does one thing at a time, and a caller that asks without end must not be
/// the only one who is answered. A bucket of tokens for each, one a request to the device.
public struct CallerBudgets: Sendable {
  private struct Bucket {
    var caller: UInt32
    /// In billionths of a token.
    var tokens: UInt64
    var filled: UInt64
  }

  private static let whole: UInt64 = 1_000_000_000
  /// Buckets kept; those that have been full for longest go first.
  private static let limit = 256

  private let rate: UInt64
  private let capacity: UInt64
  private var buckets: [Bucket] = []

  /// - Parameter rate: requests a second; as many as two seconds bring may be asked for at once, and all registers.
  public init(rate: Int) {
    self.rate = UInt64(max(1, rate))
    capacity = max(2 * self.rate, 64) * Self.whole
  }

  /// - Parameter now: in nanoseconds, not falling.
  public mutating func take(_ cost: Int, _ caller: UInt32, now: UInt64) -> Bool {
    var bucket = Bucket(caller: caller, tokens: capacity, filled: now)
    if let index = buckets.firstIndex(where: { $0.caller == caller }) { bucket = buckets.remove(at: index) }
    let (gained, overflow) = (now &- bucket.filled).multipliedReportingOverflow(by: rate)
    bucket.tokens = overflow ? capacity : min(capacity, bucket.tokens &+ min(gained, capacity))
    bucket.filled = now
    let price = UInt64(max(0, cost)) &* Self.whole
    let isEnough = bucket.tokens >= price
    if isEnough { bucket.tokens -= price }
    // The one that was asked for last stands last.
    if buckets.count >= Self.limit { buckets.removeFirst() }
    buckets.append(bucket)
    return isEnough
  }
}
