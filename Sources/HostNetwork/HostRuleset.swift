import Inet
import Netfilter

/// A port of the host that leads to a port of the enclave.
public struct Publication: Hashable, Sendable {
  /// 0.0.0.0 and :: stand for every address that the host has at that moment.
  public var listen: IPEndpoint
  public var port: UInt16

  public init(listen: IPEndpoint, port: UInt16) {
    self.listen = listen
    self.port = port
  }
}

/// The rules that join an enclave's link to the host's network.
///
/// - prerouting, output: a connection to a published port goes on to the enclave, with its client's own address.
/// - forward: into the enclave only what belongs to a connection of its own, or goes to a published port.
/// - postrouting: what leaves through another link has that link's address. Clients on the host's own 127.0.0.1 get the
///   link's address, because the enclave has a loopback of its own.
public enum HostRuleset {
  /// - Parameter link: the name of the link, which is the ruleset's name too.
  public static func make(
    link: String, enclave4: IPv4Address?, enclave6: IPv6Address?, published: [Publication]
  ) -> Ruleset {
    var tables: [Ruleset.Table] = []
    if let enclave4 { tables.append(table(.ip, link, .v4(enclave4), published)) }
    if let enclave6 { tables.append(table(.ip6, link, .v6(enclave6), published)) }
    return Ruleset(name: link, tables: tables)
  }

  private static func table(
    _ family: Ruleset.Family, _ link: String, _ enclave: IPAddress, _ published: [Publication]
  ) -> Ruleset.Table {
    let length = UInt8(enclave.bytes.count * 8)
    let own = IPPrefix(enclave, length).map { [$0] } ?? []
    let ports = published.filter { $0.listen.address.bytes.count == enclave.bytes.count }

    func translations(_ first: [Ruleset.Match]) -> [Ruleset.Rule] {
      ports.map { publication in
        let listen = publication.listen.address
        let place: Ruleset.Match =
          listen == .v4(.any) || listen == .v6(.any)
          ? .destinationIsLocal : IPPrefix(listen, length).map { .destination($0) } ?? .destinationIsLocal
        return .init(
          first + [place, .transport(.tcp), .destinationPort(publication.listen.port)],
          .dnat(enclave, port: publication.port))
      }
    }
    // There is no way from ::1 to another machine (RFC 4291 section 2.5.3), nor a route_localnet for IPv6.
    let loopback6: [Ruleset.Rule] = family == .ip6 ? [.init([.destination(.loopback6)], .accept)] : []
    let targets = Set(ports.map(\.port)).sorted()
    var leaving: [Ruleset.Rule] = own.map { .init([.source($0), .output(link, negated: true)], .masquerade) }
    if family == .ip { leaving.append(.init([.source(.loopback4), .output(link)], .masquerade)) }
    return .init(
      family,
      [
        .init("prerouting", .nat, .prerouting, priority: -100, translations([.input(link, negated: true)])),
        .init("output", .nat, .output, priority: -100, ports.isEmpty ? [] : loopback6 + translations([])),
        .init(
          "forward", .filter, .forward, priority: 0,
          [.init([.output(link), .state([.established, .related])], .accept)]
            + own.flatMap { prefix in
              targets.map {
                .init([.output(link), .destination(prefix), .transport(.tcp), .destinationPort($0)], .accept)
              }
            } + [
              .init([.output(link), .transport(.tcp)], .reject(.tcpReset)),
              .init([.output(link)], .reject(.adminProhibited)),
            ]),
        .init("postrouting", .nat, .postrouting, priority: 100, leaving),
      ])
  }
}
