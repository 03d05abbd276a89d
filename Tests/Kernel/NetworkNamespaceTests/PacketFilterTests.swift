import CLinux
import Foundation
import Inet
import Netfilter
import Netlink
import Testing

/// The choice of the back end at boot.
@Suite(.serialized) struct PacketFilterTests {
  @Test func prefersNFTables() throws {
    try inNetworkNamespace {
      #expect(try PacketFilter.install(NFTablesTests.proxy) == .nfTables)
      #expect(try shell("nft list tables") == "table ip tombolo\ntable ip6 tombolo\n")
      #expect(!(try shell("iptables-legacy-save").contains("tombolo")))
      try PacketFilter.nfTables.remove(rulesetNamed: "tombolo")
      #expect(try shell("nft list tables").isEmpty)
    }
  }

  /// This kernel has nf_tables without its queue, and legacy xtables with one: an enclave must get its rules all the same,
  /// and nothing may be left of the first attempt.
  @Test func fallsBackToXTables() throws {
    try inNetworkNamespace {
      var ruleset = NFTablesTests.proxy
      ruleset.tables[1].chains[1].rules.append(.init([.transport(.udp)], .queue(0...0, .bypass)))
      #expect(try PacketFilter.install(ruleset) == .xtables)
      #expect(try shell("nft list tables").isEmpty)
      #expect(try shell("ip6tables-legacy-save").contains("-A tombolo_output_filter -p udp -j NFQUEUE"))
      #expect(try shell("iptables-legacy-save").contains("-A tombolo_output_nat -p tcp -j REDIRECT"))
      try PacketFilter.xtables.remove(rulesetNamed: "tombolo")
      #expect(!(try shell("iptables-legacy-save; ip6tables-legacy-save").contains("tombolo")))
    }
  }

  /// Where no back end can, the operator reads what each of them said, and neither has left anything.
  @Test func refusalOfAll() throws {
    try inNetworkNamespace { () throws in
      var ruleset = NFTablesTests.proxy
      // More than all queues: both kinds of kernel code check it (nft_queue is missing here anyway).
      ruleset.tables[1].chains[1].rules.append(.init([], .queue(1...65535, [])))
      ruleset.tables[1].chains[1].rules.append(.init([], .queue(2...65535, .init(rawValue: 0x80))))
      let thrown = #expect(throws: NoPacketFilter.self) { try PacketFilter.install(ruleset) }
      #expect(
        thrown?.description.hasPrefix(
          "the kernel takes no packet filter rules: nf_tables: add rule ip6 tombolo output_filter queue to 1-65535: "
            + "No such file or directory (ENOENT)") == true, "\(String(describing: thrown))")
      #expect(
        thrown?.description.hasSuffix(
          "legacy xtables: setsockopt IP6T_SO_SET_REPLACE filter: Invalid argument (EINVAL)") == true,
        "\(String(describing: thrown))")
      #expect(try shell("nft list tables").isEmpty)
      #expect(!(try shell("iptables-legacy-save; ip6tables-legacy-save").contains("tombolo")))
    }
  }
}
