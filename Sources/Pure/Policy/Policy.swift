import Inet

/// What may pass, decided without looking at the network. Both ends ask their own: the enclave's is part of the
/// measured image, the host's belongs to the operator of the parent.
public struct Policy: Equatable, Sendable {
  public enum Decision: Equatable, Sendable {
    case allow
    /// The reason, as a sentence for the log.
    case deny(String)
  }

  /// Ports of the program that the other side may reach.
  public var ingressPorts: Set<UInt16>
  /// Where the program may connect to, and send packets.
  public var destinations: Destinations

  public init(ingressPorts: Set<UInt16> = [], destinations: Destinations = Destinations()) {
    self.ingressPorts = ingressPorts
    self.destinations = destinations
  }

  /// A connection from outside to the program.
  public func ingress(port: UInt16) -> Decision {
    ingressPorts.contains(port)
      ? .allow : .deny("port \(port) is not in [ingress] ports \(ingressPorts.sorted())")
  }

  /// A connection of the program to the outside.
  public func egress(to endpoint: IPEndpoint) -> Decision {
    destinations.denial(of: endpoint.address, port: endpoint.port).map { .deny($0.description) } ?? .allow
  }

  /// A name that the program asks for.
  public func resolve(name: String) -> Decision { .allow }
}
