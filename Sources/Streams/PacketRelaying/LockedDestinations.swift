import Policy

/// Where packets may go, as several queues' threads ask it; changed by the thread of the host side.
public final class LockedDestinations: Sendable {
  public struct Value: Sendable {
    /// Of each packet by itself.
    public var destinations: Destinations
    /// Of each flow; nil where `destinations` say all.
    public var flows: SharedFlows?

    public init(_ destinations: Destinations, _ flows: SharedFlows? = nil) {
      self.destinations = destinations
      self.flows = flows
    }
  }

  private let value: Locked<Value>

  public init(_ value: Destinations) { self.value = Locked(Value(value)) }

  public var current: Value {
    get { value.with { $0 } }
    set { value.with { $0 = newValue } }
  }
}
