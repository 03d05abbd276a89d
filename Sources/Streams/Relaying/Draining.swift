import EventLoop

/// Waits for open connections to end, for a while; then ends those that are left.
public final class Draining: EventSource {
  /// Two looks must find nothing: what was accepted just before is still on its way to being a connection.
  private static let look: Duration = .milliseconds(50)

  private let loop: EventLoop
  private let count: () -> Int
  private let abort: () -> Void
  private let finished: (Int) -> Void
  private var wasIdle = false
  private var isOver = false

  /// - Parameters:
  ///   - limit: for all of it.
  ///   - count: of connections.
  ///   - abort: resets them.
  ///   - finished: called once, with how many were reset.
  public init(
    loop: EventLoop, limit: Duration, count: @escaping () -> Int, abort: @escaping () -> Void,
    finished: @escaping (Int) -> Void
  ) {
    self.loop = loop
    self.count = count
    self.abort = abort
    self.finished = finished
    super.init()
    loop.schedule(after: limit, self, key: 1)
    loop.schedule(after: Self.look, self, key: 0)
  }

  override public func timerFired(_ key: Int) {
    guard !isOver else { return }
    let left = count()
    if key == 0, left > 0 || !wasIdle {
      wasIdle = left == 0
      loop.schedule(after: Self.look, self, key: 0)
      return
    }
    isOver = true
    if left > 0 { abort() }
    finished(left)
  }
}

/// The relays under way of one loop.
public final class OpenRelays {
  private var relays: [ObjectIdentifier: Relay] = [:]

  public init() {}

  public var count: Int { relays.count }

  /// One that has ended already is none.
  public func add(_ relay: Relay) {
    if !relay.ended { relays[ObjectIdentifier(relay)] = relay }
  }

  public func remove(_ relay: Relay) { relays[ObjectIdentifier(relay)] = nil }

  public func forEach(_ body: (Relay) -> Void) { relays.values.forEach(body) }

  /// Resets all of them.
  public func abort() { for relay in Array(relays.values) { relay.abort() } }
}
