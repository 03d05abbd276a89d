import Policy

/// The destinations that several queues' threads ask, changed by the thread of the host side.
public final class LockedDestinations: Sendable {
  private let value: Locked<Destinations>

  public init(_ value: Destinations) { self.value = Locked(value) }

  public var current: Destinations {
    get { value.with { $0 } }
    set { value.with { $0 = newValue } }
  }
}
