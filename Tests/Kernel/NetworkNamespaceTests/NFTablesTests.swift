import CLinux
import Foundation
import Inet
import Netfilter
import Netlink
import Testing

/// The kernel's nf_tables, read back with nft(8).
@Suite(.serialized) struct NFTablesTests {
  static let proxy = Ruleset.transparentProxy(tcpPort: RedirectChecks.tcpPort, dnsPort: RedirectChecks.dnsPort)

  @Test func isAvailable() throws {
    #expect(try inNetworkNamespace { NFTables.isAvailable() })
  }

  /// The whole of TCP mode: a program that knows of nothing reaches the proxy over IPv4 and IPv6.
  @Test(arguments: [false, true]) func transparentProxy(v6: Bool) throws {
    try inNetworkNamespace {
      try EnclaveRoutes.setUp(ipv6: true)
      try NFTables.apply(Self.proxy)
      try RedirectChecks(v6: v6).all()
    }
  }

  /// What the plan prints is what the kernel has: our messages and nft(8) reading our text make the same ruleset.
  @Test(arguments: [proxy, everything]) func kernelAgreesWithDescription(_ ruleset: Ruleset) throws {
    let ours = try inNetworkNamespace {
      try NFTables.apply(ruleset)
      return try shell("nft -nn list ruleset")
    }
    let theirs = try inNetworkNamespace {
      let path = FileManager.default.temporaryDirectory.appendingPathComponent("tombolo-\(getpid()).nft").path
      defer { try? FileManager.default.removeItem(atPath: path) }
      try ruleset.description.write(toFile: path, atomically: true, encoding: .utf8)
      try shell("nft -f \(path)")
      return try shell("nft -nn list ruleset")
    }
    #expect(ours == theirs)
    #expect(ours.contains("table ip tombolo"))
  }

  /// Starting twice must not double the rules, and somebody else's tables are none of our business.
  @Test func replacesItselfAndNothingElse() throws {
    try inNetworkNamespace {
      try shell("nft add table ip mine; nft add chain ip mine keep")
      try NFTables.apply(Self.proxy)
      let once = try shell("nft list ruleset")
      try NFTables.apply(Self.proxy)
      #expect(try shell("nft list ruleset") == once)
      try NFTables.remove(tableNamed: "tombolo")
      #expect(try shell("nft list tables") == "table ip mine\n")
      try NFTables.remove(tableNamed: "tombolo")
    }
  }

  /// A ruleset is put in place whole or not at all, and the error names the rule and the kernel's reason.
  @Test func refusalNamesTheRuleAndChangesNothing() throws {
    try inNetworkNamespace { () throws in
      var ruleset = Self.proxy
      ruleset.tables[0].chains[0].priority = Int32.min
      let invalid = #expect(throws: RulesetError.self) { try NFTables.apply(ruleset) }
      #expect(
        invalid?.description
          == "table ip tombolo chain output_nat: NAT must come after conntrack (priority -200)")
      ruleset = Self.proxy
      ruleset.tables[1].chains[1] = .init(
        "x", .filter, .output, priority: 0,
        [
          .init([.transport(.tcp)], .accept), .init([], .queue(0...1, [])),
        ])
      // This test kernel has no nft_queue, as many have not.
      let thrown = #expect(throws: NetlinkError.self) { try NFTables.apply(ruleset) }
      #expect(thrown?.request == "add rule ip6 tombolo x queue to 0-1")
      #expect(thrown?.errno == ENOENT)
      #expect(try shell("nft list ruleset").isEmpty)
    }
  }

  /// The host publishes ports by the hundred; every rule must arrive, in order.
  @Test func manyRules() throws {
    try inNetworkNamespace {
      let rules = (1...2000).map { port in
        Ruleset.Rule([.transport(.tcp), .destinationPort(UInt16(port))], .accept)
      }
      let chain = Ruleset.Chain("forward", .filter, .forward, priority: 0, rules)
      try NFTables.apply(Ruleset(name: "many", tables: [.init(.ip, [chain])]))
      let ports = try shell("nft list ruleset").split(separator: "\n").filter { $0.contains("dport") }
      #expect(ports.count == 2000)
      #expect(ports.last?.contains("tcp dport 2000 accept") == true)
    }
  }

  /// Every match and verdict that this kernel has.
  static let everything: Ruleset = {
    func table(_ family: Ruleset.Family, _ odd: String, _ whole: String, _ host: String, _ icmp: Ruleset.Transport)
      -> Ruleset.Table
    {
      guard let odd = IPPrefix(odd), let whole = IPPrefix(whole), let host = IPPrefix(host) else { fatalError() }
      return .init(
        family,
        [
          .init(
            "pre", .nat, .prerouting, priority: -100,
            [
              .init(
                [.input("eth0"), .transport(.tcp), .destinationPort(443)], .dnat(host.address, port: 8443),
                counter: true),
              .init([.input("eth0", negated: true), .source(odd)], .dnat(host.address, port: nil)),
              .init([.transport(.udp), .sourcePorts(1000...2000), .destinationPorts(53...54)], .redirect(5300)),
            ]),
          .init(
            "arriving", .filter, .input, priority: 0,
            [.init([.transport(icmp)], .accept), .init([.destination(host), .hasSocket], .drop)]),
          .init(
            "through", .filter, .forward, priority: 10,
            [
              .init([.state([.established, .related])], .accept),
              .init([.state([.invalid, .new, .untracked]), .input("a"), .output("b", negated: true)], .drop),
              .init([.destination(odd, negated: true), .transport(.tcp)], .reject(.tcpReset)),
              .init([.source(whole, negated: true), .destination(host)], .reject(.adminProhibited)),
              .init([], .accept),
            ]),
          .init("post", .nat, .postrouting, priority: 100, [.init([.output("eth0"), .source(whole)], .masquerade)]),
        ])
    }
    return Ruleset(
      name: "tombolo",
      tables: [
        table(.ip, "10.64.0.0/11", "10.0.0.0/8", "10.0.0.2/32", .icmp),
        table(.ip6, "2001:db8:8000::/33", "2001:db8::/32", "2001:db8::2/128", .icmpv6),
      ])
  }()
}
