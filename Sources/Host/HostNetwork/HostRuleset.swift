import Inet
import Netfilter

/// A port of the host that leads to a port of the enclave.
public struct Publication: Hashable, Sendable {
  /// 0.0.0.0 and :: stand for every address that the host has at that moment.
  public var listen: IPEndpoint
  public var port: UInt16
  public var transport: PortTransport

  public init(listen: IPEndpoint, port: UInt16, transport: PortTransport = .tcp) {
    self.listen = listen
    self.port = port
    self.transport = transport
  }
}

/// The rules that join an enclave's link to the host's network.
///
/// - prerouting, output: a connection to a published port goes on to the enclave, with its client's own address; so does
///   the enclave's own, which comes back to it. Port 53 of the link's name server leads to where it listens: a port of the
///   kernel's choice, since port 53 of the host may be published.
/// - input: from the enclave nothing reaches the host itself but its name server, and what the operator has opened.
/// - forward: into the enclave only what belongs to a connection of its own, or goes to a published port. Where the host
///   did not forward before Tombolo made it, nothing is forwarded but from and to enclaves.
/// - postrouting: what the enclave sends gets the address of the link through which it leaves, its own link among them: an
///   answer to its own address would not come back this way. Clients on the host's own 127.0.0.1 get the link's address,
///   because the enclave has a loopback of its own.
struct HostRuleset {
  /// The name of the link, which is the ruleset's name too.
  var link: String
  var enclave4: IPv4Address?
  var enclave6: IPv6Address?
  var published: [Publication] = []
  /// Where the link's name server listens.
  var nameServer: (address: IPv4Address, udp: UInt16, tcp: UInt16)?
  /// Ports of the host that are open to the enclave.
  var hostPorts = PortRanges([])
  /// Where we switch forwarding on.
  var forwarding = Forwarding()

  /// What the host forwarded before the first enclave.
  struct Forwarding: Equatable {
    var was4 = true
    var was6 = true
    /// Links from which IPv4 was forwarded although it was not in general (`net.ipv4.conf.LINK.forwarding`).
    var links: [String] = []
  }

  /// All links of enclaves.
  static let anyEnclave = "tombolo*"

  func ruleset() -> Ruleset {
    var tables: [Ruleset.Table] = []
    if let enclave4 { tables.append(table(.ip, .v4(enclave4))) }
    if let enclave6 { tables.append(table(.ip6, .v6(enclave6))) }
    return Ruleset(name: link, tables: tables)
  }

  private func table(_ family: Ruleset.Family, _ enclave: IPAddress) -> Ruleset.Table {
    .init(
      family,
      [
        .init(
          "prerouting", .nat, .prerouting, priority: -100,
          (family == .ip ? nameServerTranslations : []) + translations(enclave)),
        // There is no way from ::1 to another machine (RFC 4291 section 2.5.3), nor a route_localnet for IPv6.
        .init(
          "output", .nat, .output, priority: -100,
          publications(enclave).isEmpty
            ? [] : (family == .ip6 ? [.init([.destination(.loopback6)], .accept)] : []) + translations(enclave)),
        .init("input", .filter, .input, priority: 0, entering(family)),
        .init("forward", .filter, .forward, priority: 0, passing(family, enclave)),
        .init("postrouting", .nat, .postrouting, priority: 100, leaving(family, enclave)),
      ])
  }

  private func publications(_ enclave: IPAddress) -> [Publication] {
    published.filter { $0.listen.address.bytes.count == enclave.bytes.count }
  }

  private func whole(_ address: IPAddress) -> IPPrefix? { IPPrefix(address, UInt8(address.bytes.count * 8)) }

  private func translations(_ enclave: IPAddress) -> [Ruleset.Rule] {
    publications(enclave).map { publication in
      let listen = publication.listen.address
      let place: Ruleset.Match =
        listen == .v4(.any) || listen == .v6(.any)
        ? .destinationIsLocal : whole(listen).map { .destination($0) } ?? .destinationIsLocal
      return .init(
        [place, .transport(.init(publication.transport)), .destinationPort(publication.listen.port)],
        .dnat(enclave, port: publication.port))
    }
  }

  private var nameServerTranslations: [Ruleset.Rule] {
    guard let nameServer, let place = whole(.v4(nameServer.address)) else { return [] }
    return [(Ruleset.Transport.udp, nameServer.udp), (.tcp, nameServer.tcp)].map { transport, port in
      .init(
        [.input(link), .destination(place), .transport(transport), .destinationPort(53)],
        .dnat(.v4(nameServer.address), port: port))
    }
  }

  private func entering(_ family: Ruleset.Family) -> [Ruleset.Rule] {
    var rules: [Ruleset.Rule] = [.init([.input(link), .state([.established, .related])], .accept)]
    if family == .ip, let nameServer, let place = whole(.v4(nameServer.address)) {
      rules += [(Ruleset.Transport.udp, nameServer.udp), (.tcp, nameServer.tcp)].map { transport, port in
        .init([.input(link), .destination(place), .transport(transport), .destinationPort(port)], .accept)
      }
    }
    for range in hostPorts.ranges {
      rules += [Ruleset.Transport.tcp, .udp].map {
        .init([.input(link), .transport($0), .destinationPorts(range)], .accept)
      }
    }
    return rules + [
      .init([.input(link), .transport(.tcp)], .reject(.tcpReset)), .init([.input(link)], .reject(.adminProhibited)),
    ]
  }

  private func passing(_ family: Ruleset.Family, _ enclave: IPAddress) -> [Ruleset.Rule] {
    var rules: [Ruleset.Rule] = [.init([.output(link), .state([.established, .related])], .accept)]
    if let own = whole(enclave) {
      for transport in PortTransport.allCases {
        let targets = Set(publications(enclave).filter { $0.transport == transport }.map(\.port)).sorted()
        rules += targets.map {
          .init([.output(link), .destination(own), .transport(.init(transport)), .destinationPort($0)], .accept)
        }
      }
    }
    rules += [
      .init([.output(link), .transport(.tcp)], .reject(.tcpReset)), .init([.output(link)], .reject(.adminProhibited)),
    ]
    guard !(family == .ip ? forwarding.was4 : forwarding.was6) else { return rules }
    if family == .ip { rules += forwarding.links.map { .init([.input($0)], .return) } }
    return rules + [
      .init([.input(Self.anyEnclave, negated: true), .output(Self.anyEnclave, negated: true)], .drop)
    ]
  }

  private func leaving(_ family: Ruleset.Family, _ enclave: IPAddress) -> [Ruleset.Rule] {
    var rules: [Ruleset.Rule] = whole(enclave).map { [.init([.source($0)], .masquerade)] } ?? []
    if family == .ip { rules.append(.init([.source(.loopback4), .output(link)], .masquerade)) }
    return rules
  }
}

extension Ruleset.Transport {
  init(_ transport: PortTransport) { self = transport == .tcp ? .tcp : .udp }
}
