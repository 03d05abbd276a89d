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
  /// - Parameters:
  ///   - endpoint: its port says nothing where the transport has none.
  ///   - names: those for which the address was the answer.
  public func egress(to endpoint: IPEndpoint, _ transport: FlowTransport = .tcp, names: [DomainName] = []) -> Decision {
    destinations.denial(
      of: endpoint.address, port: transport.hasPorts ? endpoint.port : nil, transport, names: names
    ).map { .deny($0.description) } ?? .allow
  }

  /// The first of the names for which the flow is allowed.
  public func allowedName(
    at endpoint: IPEndpoint, _ names: [DomainName], _ transport: FlowTransport = .tcp
  ) -> DomainName? {
    let port = transport.hasPorts ? endpoint.port : nil
    return names.first { name in
      if case .allowed = destinations.rules.verdict(on: name, transport, port) { true } else { false }
    }
  }

  /// Why a flow that is allowed is.
  /// - Parameter name: for which it is.
  public func grounds(
    for endpoint: IPEndpoint, _ name: DomainName?, _ transport: FlowTransport = .tcp
  ) -> EgressRules.NameVerdict {
    let port = transport.hasPorts ? endpoint.port : nil
    if let rule = destinations.rule(allowing: endpoint.address, port: port, transport) { return .allowed(by: rule) }
    return name.map { destinations.rules.verdict(on: $0, transport, port) } ?? .allowed(by: nil)
  }

  /// A connection whose address is allowed, once it is known for which name the client asks the server.
  /// - Parameters:
  ///   - name: nil where it names none.
  ///   - names: those for which the address was the answer.
  ///   - requires: whether there must be a name.
  public func egress(
    to endpoint: IPEndpoint, _ transport: FlowTransport = .tcp, naming name: DomainName?, names: [DomainName],
    requires: Bool
  ) -> Decision {
    guard let name else { return requires ? .deny("the client names no server (egress.sni = \"require\")") : .allow }
    switch destinations.rules.verdict(on: name, transport, endpoint.port) {
    case .denied(let rule?): return .deny("the client asks for \(name): egress.deny has \"\(rule)\"")
    case .denied(nil): return .deny("the client asks for \(name): no rule of egress.allow names it")
    case .allowed: break
    }
    if names.contains(name) || destinations.rules.isOpen { return .allow }
    if destinations.rule(allowing: endpoint.address, port: endpoint.port, transport) != nil { return .allow }
    return .deny("the client asks for \(name), for which this address was not the answer")
  }
}
