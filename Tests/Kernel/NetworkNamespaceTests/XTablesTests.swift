import CLinux
import Foundation
import Inet
import LinuxSystem
import Netfilter
import Netlink
import Testing

/// The kernel's legacy tables, read back with iptables-legacy-save(8).
@Suite(.serialized) struct XTablesTests {
  static let proxy = NFTablesTests.proxy

  /// The whole of TCP mode on a kernel without nf_tables, as stock Nitro kernels are.
  @Test(arguments: [false, true]) func transparentProxy(v6: Bool) throws {
    try inNetworkNamespace {
      try EnclaveRoutes.setUp(ipv6: true)
      for family in Ruleset.Family.allCases {
        #expect(XTables.isAvailable(table: .nat, family: family))
        #expect(XTables.isAvailable(table: .filter, family: family))
      }
      try XTables.apply(Self.proxy)
      try RedirectChecks(v6: v6).all()
    }
  }

  /// What the kernel has, in the words of iptables: the golden text of TCP mode.
  @Test func savedProxy() throws {
    try inNetworkNamespace {
      try XTables.apply(Self.proxy)
      expectEqual(
        try saved("iptables-legacy-save"),
        [
          "*filter",
          ":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", ":tombolo_output_filter -",
          "-A OUTPUT -j tombolo_output_filter",
          "-A tombolo_output_filter ! -d 127.0.0.0/8 -j REJECT --reject-with icmp-admin-prohibited",
          "COMMIT",
          "*nat",
          ":PREROUTING ACCEPT", ":INPUT ACCEPT", ":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":tombolo_output_nat -",
          "-A OUTPUT -j tombolo_output_nat",
          "-A tombolo_output_nat -d 127.0.0.0/8 -j ACCEPT",
          "-A tombolo_output_nat -p udp -m udp --dport 53 -j REDIRECT --to-ports 5300",
          "-A tombolo_output_nat -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 5300",
          "-A tombolo_output_nat -p tcp -j REDIRECT --to-ports 12345",
          "COMMIT",
        ])
      expectEqual(
        try saved("ip6tables-legacy-save").filter { $0.hasPrefix("-A") },
        [
          "-A OUTPUT -j tombolo_output_filter",
          "-A tombolo_output_filter ! -d ::1/128 -j REJECT --reject-with icmp6-adm-prohibited",
          "-A OUTPUT -j tombolo_output_nat",
          "-A tombolo_output_nat -d ::1/128 -j ACCEPT",
          "-A tombolo_output_nat -p udp -m udp --dport 53 -j REDIRECT --to-ports 5300",
          "-A tombolo_output_nat -p tcp -m tcp --dport 53 -j REDIRECT --to-ports 5300",
          "-A tombolo_output_nat -p tcp -j REDIRECT --to-ports 12345",
        ])
    }
  }

  /// `-j NFQUEUE`: what takes an enclave's packets on kernels without nf_tables' queue expression.
  @Test func savedCapture() throws {
    try inNetworkNamespace {
      try XTables.apply(CaptureSocketTests.rules)
      for command in ["iptables-legacy-save", "ip6tables-legacy-save"] {
        expectEqual(
          try saved(command).filter { $0.hasPrefix("-A tombolo") },
          [
            "-A tombolo_output -o lo -p tcp -j NFQUEUE --queue-balance 101:102",
            "-A tombolo_output -o lo -p udp -j NFQUEUE --queue-num 100",
            "-A tombolo_output -o lo -j DROP",
          ])
      }
    }
  }

  /// Every match and verdict, for the host's raw mode. iptables(8) prints only the newest revision of DNAT that the
  /// kernel has, and ours is the one that Linux 4.14 has too; `PublishedPortTests` shows that it works.
  @Test func savedEverything() throws {
    try inNetworkNamespace {
      try XTables.apply(NFTablesTests.everything)
      expectEqual(
        try saved("iptables-legacy-save").filter { $0.hasPrefix("-A tombolo") },
        [
          "-A tombolo_arriving -p icmp -j ACCEPT",
          "-A tombolo_arriving -d 10.0.0.2/32 -m socket -j DROP",
          "-A tombolo_through -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
          "-A tombolo_through -i a ! -o b -m conntrack --ctstate INVALID,NEW,UNTRACKED -j DROP",
          "-A tombolo_through ! -d 10.64.0.0/11 -p tcp -j REJECT --reject-with tcp-reset",
          "-A tombolo_through ! -s 10.0.0.0/8 -d 10.0.0.2/32 -j REJECT --reject-with icmp-admin-prohibited",
          "-A tombolo_through -j ACCEPT",
          "-A tombolo_post -s 10.0.0.0/8 -o eth0 -j MASQUERADE",
          "-A tombolo_pre -i eth0 -p tcp -m tcp --dport 443 -j DNAT [unsupported revision]",
          "-A tombolo_pre -s 10.64.0.0/11 ! -i eth0 -j DNAT [unsupported revision]",
          "-A tombolo_pre -p udp -m udp --sport 1000:2000 --dport 53:54 -j REDIRECT --to-ports 5300",
        ])
      expectEqual(
        try saved("ip6tables-legacy-save").filter { $0.hasPrefix("-A tombolo") },
        [
          "-A tombolo_arriving -p ipv6-icmp -j ACCEPT",
          "-A tombolo_arriving -d 2001:db8::2/128 -m socket -j DROP",
          "-A tombolo_through -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
          "-A tombolo_through -i a ! -o b -m conntrack --ctstate INVALID,NEW,UNTRACKED -j DROP",
          "-A tombolo_through ! -d 2001:db8:8000::/33 -p tcp -j REJECT --reject-with tcp-reset",
          "-A tombolo_through ! -s 2001:db8::/32 -d 2001:db8::2/128 -j REJECT --reject-with icmp6-adm-prohibited",
          "-A tombolo_through -j ACCEPT",
          "-A tombolo_post -s 2001:db8::/32 -o eth0 -j MASQUERADE",
          "-A tombolo_pre -i eth0 -p tcp -m tcp --dport 443 -j DNAT [unsupported revision]",
          "-A tombolo_pre -s 2001:db8:8000::/33 ! -i eth0 -j DNAT [unsupported revision]",
          "-A tombolo_pre -p udp -m udp --sport 1000:2000 --dport 53:54 -j REDIRECT --to-ports 5300",
        ])
    }
  }

  /// The host may have rules of its own, Docker's for example; they stay as they are, counters and all, and starting
  /// twice does not double ours.
  @Test(arguments: ["iptables-legacy", "ip6tables-legacy"]) func leavesOthersAlone(program: String) throws {
    try inNetworkNamespace {
      let host = program.hasPrefix("ip6") ? "2001:db8::7" : "10.0.0.7"
      for rule in [
        "-N FIRST", "-N tomboloX", "-A FIRST -s \(host) -m comment --comment 'a b' -j RETURN", "-A FIRST -g tomboloX",
        "-A tomboloX -p tcp -m multiport --dports 1,2,3 -j DROP", "-A OUTPUT -d \(host)", "-A OUTPUT -j FIRST",
        "-P FORWARD DROP", "-A INPUT -i lo -j ACCEPT",
        "-t nat -N MINE", "-t nat -A MINE -j RETURN", "-t nat -A PREROUTING -j MINE", "-t nat -A OUTPUT -p tcp -j MINE",
      ] { try shell("\(program) \(rule)") }
      // Counters that say something.
      try shell("ip link set lo up")
      let table = try shell("\(program)-save -c | sed 's/\\[0:0\\]/[7:77]/'")
      let path = FileManager.default.temporaryDirectory.appendingPathComponent("tombolo-\(getpid())-\(program)").path
      defer { try? FileManager.default.removeItem(atPath: path) }
      try table.write(toFile: path, atomically: true, encoding: .utf8)
      try shell("\(program)-restore -c < \(path)")
      let before = try saved("\(program)-save -c")
      #expect(before.contains { $0.contains("[7:77]") })

      try XTables.apply(Self.proxy)
      let once = try saved("\(program)-save -c")
      #expect(once.count == before.count + 9)
      expectEqual(once.filter { !$0.contains("tombolo_") }, before)
      try XTables.apply(Self.proxy)
      expectEqual(try saved("\(program)-save -c"), once)
      try XTables.remove(rulesetNamed: "tombolo")
      expectEqual(try saved("\(program)-save -c"), before)
      try XTables.remove(rulesetNamed: "tombolo")
      expectEqual(try saved("\(program)-save -c"), before)

      // Rules that came after ours and lean on them: one that only counts goes on at the next, one that jumps to a
      // chain of ours goes with it. (iptables itself forgets the policies' counters with every rule that it adds.)
      try XTables.apply(Self.proxy)
      try shell("\(program) -I OUTPUT 1 -d \(host)")
      try shell("\(program) -A FIRST -j tombolo_output_filter")
      try XTables.remove(rulesetNamed: "tombolo")
      try shell("\(program) -D OUTPUT 1")
      expectEqual(try saved("\(program)-save"), try saved("cat \(path)"))
    }
  }

  /// Queues for raw mode; the flag is one more thing that old kernels may lack.
  @Test func queue() throws {
    try inNetworkNamespace {
      let chain = Ruleset.Chain("q", .filter, .output, priority: 0, [.init([], .queue(2...5, [.bypass, .fanout]))])
      try XTables.apply(Ruleset(name: "tombolo", tables: [.init(.ip, [chain])]))
      #expect(
        try saved("iptables-legacy-save").contains(
          "-A tombolo_q -j NFQUEUE --queue-balance 2:5 --queue-bypass --queue-cpu-fanout"))
    }
  }

  /// Without comments, and without the counters of chains, which packets of the test itself change.
  private func expectEqual(_ found: [String], _ wanted: [String], at location: SourceLocation = #_sourceLocation) {
    let difference = wanted.difference(from: found).map {
      switch $0 {
      case .remove(_, let line, _): "found  \(line)"
      case .insert(_, let line, _): "wanted \(line)"
      }
    }
    #expect(difference.isEmpty, "\(difference.joined(separator: "\n"))", sourceLocation: location)
  }

  private func saved(_ command: String) throws -> [String] {
    try shell(command).split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
      let line = line.hasPrefix("[") && !command.hasSuffix("-c") ? line.drop { $0 != " " }.dropFirst() : line
      return line.hasPrefix(":") && !command.hasSuffix("-c")
        ? line.split(separator: " ").prefix(2).joined(separator: " ") : String(line)
    }
  }
}
