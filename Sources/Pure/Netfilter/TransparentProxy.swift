import Inet

extension Ruleset {
  /// What turns every connection of an enclave in TCP mode to the proxy.
  ///
  /// Theory of operation. The default routes lead to the interface of TCP mode, or to `lo` where there is none, so every packet
  /// of the program passes the OUTPUT hook. The NAT chain there sees the first packet of each connection: DNS goes to the forwarder, all other TCP
  /// to the proxy, both on 127.0.0.1 or ::1 (that is what REDIRECT means in OUTPUT). Conntrack turns the following packets
  /// and the answers. The filter chain comes after NAT (priority 0 after -100). What has another destination than loopback by
  /// then is datagrams and ICMP, which leave through the interface for the proxy to read, or what can go nowhere: other
  /// transports, multicast, strays of a forgotten connection, everything where there is no interface. That is
  /// refused, so that the program's call fails at once and does not wait for a time-out.
  /// - Parameters:
  ///   - link: the interface.
  ///   - holdsConnections: connections leave through it too; only those that have no way there are turned to the proxy.
  ///   - carriesDatagrams: so do UDP and ICMP.
  ///   - local: more prefixes whose addresses are the enclave's own; connections to them are left alone.
  public static func transparentProxy(
    tcpPort: UInt16, dnsPort: UInt16, link: String? = nil, holdsConnections: Bool = false,
    carriesDatagrams: Bool = false, local: [IPPrefix] = []
  ) -> Ruleset {
    func table(_ family: Family, _ loopback: IPPrefix, multicast: IPPrefix, _ icmp: Transport) -> Table {
      let own = [loopback] + local.filter { $0.family == family }
      return Table(
        family,
        [
          Chain(
            "output_nat", .nat, .output, priority: -100,
            own.map { Rule([.destination($0)], .accept) } + toForwarder(dnsPort)
              + (holdsConnections ? link.map { [Rule([.transport(.tcp), .output($0)], .accept)] } ?? [] : []) + [
                Rule([.transport(.tcp)], .redirect(tcpPort))
              ]),
          Chain(
            "output_filter", .filter, .output, priority: 0,
            own.dropFirst().map { Rule([.destination($0)], .accept) }
              + (link.map { link in
                [Rule([.destination(multicast)], .reject(.adminProhibited))]
                  + ((holdsConnections ? [.tcp] : []) + (carriesDatagrams ? [.udp, icmp] : [])).map {
                    Rule([.transport($0), .output(link)], .accept)
                  }
              } ?? []) + [
                Rule([.destination(loopback, negated: true)], .reject(.adminProhibited))
              ]),
        ])
    }
    return Ruleset(
      name: "tombolo",
      tables: [
        table(.ip, .loopback4, multicast: .multicast4, .icmp), table(.ip6, .loopback6, multicast: .multicast6, .icmpv6),
      ])
  }

  /// What turns every query of an enclave in raw mode that would leave to the proxy, whatever server it is for, and nothing else.
  public static func queries(link: String, dnsPort: UInt16) -> Ruleset {
    Ruleset(name: "tombolo", tables: [Family.ip, .ip6].map { Table($0, [queriesChain(link, dnsPort)]) })
  }

  static func queriesChain(_ link: String, _ dnsPort: UInt16) -> Chain {
    Chain("output_nat", .nat, .output, priority: -100, toForwarder(dnsPort, [.output(link)]))
  }

  private static func toForwarder(_ dnsPort: UInt16, _ matches: [Match] = []) -> [Rule] {
    [Transport.udp, .tcp].map { Rule([.transport($0), .destinationPort(53)] + matches, .redirect(dnsPort)) }
  }
}

extension IPPrefix {
  /// 127.0.0.0/8 (RFC 1122 section 3.2.1.3).
  public static var loopback4: IPPrefix { IPPrefix(unchecked: .v4(IPv4Address(127, 0, 0, 0)), 8) }
  /// ::1/128 (RFC 4291 section 2.5.3).
  public static var loopback6: IPPrefix { IPPrefix(unchecked: .v6(.loopback), 128) }

  /// 224.0.0.0/4 (RFC 5771).
  static var multicast4: IPPrefix { IPPrefix(unchecked: .v4(IPv4Address(224, 0, 0, 0)), 4) }
  /// ff00::/8 (RFC 4291 section 2.7).
  static var multicast6: IPPrefix { IPPrefix(unchecked: .v6(IPv6Address(high: 0xff00 << 48, low: 0)), 8) }

  private init(unchecked address: IPAddress, _ length: UInt8) {
    guard let prefix = IPPrefix(address, length) else { preconditionFailure("\(length) bits of \(address)") }
    self = prefix
  }

  var family: Ruleset.Family {
    switch address {
    case .v4: .ip
    case .v6: .ip6
    }
  }
}
