import EventLoop

/// How long connections may stay as they are before they are reset; shared by all that have the same.
public final class RelayTimeouts: Sendable {
  /// Nanoseconds without a byte in either direction, 0 without limit.
  let idle: UInt64
  /// The same once one direction has ended.
  let halfClosed: UInt64

  /// nil where there are no limits.
  public init?(idle: Duration?, halfClosed: Duration?) {
    guard idle != nil || halfClosed != nil else { return nil }
    self.idle = idle?.nanoseconds ?? 0
    self.halfClosed = halfClosed?.nanoseconds ?? 0
  }

  /// For a connection that has ended in one direction, or in none; 0 without limit.
  func limit(isHalfClosed: Bool) -> UInt64 {
    guard isHalfClosed, halfClosed > 0 else { return idle }
    return idle > 0 ? min(idle, halfClosed) : halfClosed
  }

  /// How often it is looked.
  var look: UInt64 { max(limit(isHalfClosed: true) / 4, 10_000_000) }
}

/// How long a relay has been as it is.
final class RelayQuiet {
  private let timeouts: RelayTimeouts
  private var totals = Relay.Totals()
  private var isHalfClosed = false
  private var since: UInt64
  var timer: TimerToken?

  init(_ timeouts: RelayTimeouts, now: UInt64) {
    self.timeouts = timeouts
    since = now
  }

  var look: Duration { .nanoseconds(Int64(clamping: timeouts.look)) }

  /// Whether its time is over.
  func isOver(_ totals: Relay.Totals, isHalfClosed: Bool, now: UInt64) -> Bool {
    if totals != self.totals || isHalfClosed != self.isHalfClosed {
      self.totals = totals
      self.isHalfClosed = isHalfClosed
      since = now
    }
    let limit = timeouts.limit(isHalfClosed: isHalfClosed)
    return limit > 0 && now &- since >= limit
  }
}
