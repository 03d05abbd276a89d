import Inet
import Testing

@testable import Netfilter

/// What `tombolo-init --plan` prints, and which rulesets are refused before any kernel sees them.
@Suite struct RulesetTests {
  /// The whole of TCP mode, as nft(8) reads it.
  @Test func transparentProxy() throws {
    let ruleset = Ruleset.transparentProxy(tcpPort: 12345, dnsPort: 5300)
    try ruleset.validate()
    #expect(
      ruleset.description == """
        table ip tombolo {
          chain output_nat {
            type nat hook output priority -100; policy accept;
            ip daddr 127.0.0.0/8 accept
            udp dport 53 redirect to :5300
            tcp dport 53 redirect to :5300
            meta l4proto tcp redirect to :12345
          }
          chain output_filter {
            type filter hook output priority 0; policy accept;
            ip daddr != 127.0.0.0/8 reject with icmp admin-prohibited
          }
        }
        table ip6 tombolo {
          chain output_nat {
            type nat hook output priority -100; policy accept;
            ip6 daddr ::1 accept
            udp dport 53 redirect to :5300
            tcp dport 53 redirect to :5300
            meta l4proto tcp redirect to :12345
          }
          chain output_filter {
            type filter hook output priority 0; policy accept;
            ip6 daddr != ::1 reject with icmpv6 admin-prohibited
          }
        }

        """)
  }

  /// An enclave's own addresses are not the proxy's business, in the family in which they are.
  @Test func ownAddresses() throws {
    let own = try #require(IPPrefix("10.0.0.2/32"))
    let lines = Ruleset.transparentProxy(tcpPort: 1, dnsPort: 2, local: [own]).description
      .split(separator: "\n").map { $0.drop { $0 == " " } }
    #expect(lines.count(where: { $0 == "ip daddr 10.0.0.2 accept" }) == 2)
    #expect(lines.count(where: { $0.contains("daddr") }) == 2 + 2 + 2)
  }

  @Test func rules() throws {
    let prefix = try #require(IPPrefix("10.64.0.0/11"))
    let six = try #require(IPAddress("2001:db8::2"))
    let cases: [(Ruleset.Rule, Ruleset.Family, String)] = [
      (.init([], .drop, counter: true), .ip, "counter drop"),
      (.init([.transport(.tcp)], .reject(.tcpReset)), .ip, "meta l4proto tcp reject with tcp reset"),
      (.init([.transport(.icmpv6)], .accept), .ip6, "meta l4proto ipv6-icmp accept"),
      (
        .init([.source(prefix, negated: true), .transport(.udp), .sourcePorts(1...2), .destinationPort(3)], .drop), .ip,
        "ip saddr != 10.64.0.0/11 udp sport 1-2 udp dport 3 drop"
      ),
      (
        .init([.input("eth0"), .output("tun0", negated: true), .state([.new, .established])], .accept), .ip6,
        "iifname \"eth0\" oifname != \"tun0\" ct state established,new accept"
      ),
      (.init([.transport(.tcp)], .dnat(six, port: 80)), .ip6, "meta l4proto tcp dnat to [2001:db8::2]:80"),
      (.init([], .dnat(six, port: nil)), .ip6, "dnat to 2001:db8::2"),
      (.init([.output("e")], .masquerade), .ip, "oifname \"e\" masquerade"),
      (.init([], .queue(0...3, [.bypass, .fanout])), .ip, "queue flags bypass,fanout to 0-3"),
      (.init([], .queue(7...7, [])), .ip, "queue to 7"),
    ]
    for (rule, family, text) in cases { #expect(rule.description(in: family) == text) }
  }

  /// What one of the two kinds of kernel would refuse, or worse take for something else, is refused with its place.
  @Test func validation() throws {
    let four = try #require(IPPrefix("10.0.0.0/8"))
    let all = try #require(IPPrefix("0.0.0.0/0"))
    let six = try #require(IPAddress("2001:db8::2"))
    func defect(
      _ rule: Ruleset.Rule, _ kind: Ruleset.Kind = .filter, _ hook: Ruleset.Hook = .output,
      _ family: Ruleset.Family = .ip,
      chain: String = "c", table: String = "t"
    ) -> String? {
      let chain = Ruleset.Chain(chain, kind, hook, priority: 0, [.init([], .accept), rule])
      do {
        try Ruleset(name: table, tables: [.init(family, [chain])]).validate()
        return nil
      } catch {
        return error.description
      }
    }
    #expect(defect(.init([], .accept)) == nil)
    #expect(
      defect(.init([.destinationPort(53)], .drop))
        == "table ip t chain c rule 2 (th dport 53 drop): a port needs tcp or udp before it")
    #expect(defect(.init([.transport(.icmp), .sourcePort(1)], .drop)) != nil)
    #expect(defect(.init([.transport(.tcp), .transport(.tcp)], .drop))?.hasSuffix("the same field twice") == true)
    #expect(defect(.init([.destination(four)], .drop), .filter, .output, .ip6)?.contains("other family") == true)
    #expect(defect(.init([.source(all, negated: true)], .drop))?.contains("nothing is outside") == true)
    #expect(defect(.init([.transport(.icmpv6)], .drop))?.contains("other family") == true)
    #expect(defect(.init([.transport(.icmp)], .drop), .filter, .output, .ip6)?.contains("other family") == true)
    #expect(defect(.init([.transport(.tcp)], .redirect(1)))?.contains("only in a nat chain") == true)
    #expect(defect(.init([.transport(.tcp)], .redirect(1)), .nat, .postrouting)?.contains("only in a nat") == true)
    #expect(defect(.init([], .redirect(1)), .nat)?.contains("a port needs") == true)
    #expect(defect(.init([], .dnat(six, port: nil)), .nat)?.contains("other family") == true)
    #expect(defect(.init([], .dnat(six, port: nil)), .nat, .output, .ip6) == nil)
    #expect(defect(.init([], .masquerade), .nat, .output)?.contains("postrouting") == true)
    #expect(defect(.init([], .reject(.adminProhibited)), .nat)?.contains("filter") == true)
    #expect(defect(.init([], .reject(.tcpReset)))?.contains("needs tcp") == true)
    #expect(defect(.init([], .queue(0...0, [])), .nat)?.contains("filter") == true)
    #expect(defect(.init([], .queue(0...65535, [])))?.contains("65535") == true)
    #expect(defect(.init([.transport(.tcp)], .redirect(0)), .nat)?.contains("no port") == true)
    #expect(defect(.init([.transport(.tcp)], .dnat(six, port: 0)), .nat, .output, .ip6)?.contains("no port") == true)
    #expect(defect(.init([.input("eth0")], .drop))?.contains("no input interface") == true)
    #expect(defect(.init([.output("eth0")], .drop), .filter, .input)?.contains("no output interface") == true)
    for name in ["", "sixteen-letters-", "a b", "a/b", "a\"b", ".", "..", "é"] {
      #expect(defect(.init([.output(name)], .drop))?.contains("no interface name") == true, "\(name)")
    }
    #expect(defect(.init([.state([])], .drop))?.contains("no connection state") == true)
    #expect(defect(.init([], .accept), .nat, .forward)?.contains("no NAT in the forward hook") == true)
    #expect(defect(.init([], .accept), .filter, .prerouting)?.contains("no filter") == true)
    for name in ["", "1a", "a-b", "a b", String(repeating: "x", count: 27)] {
      #expect(defect(.init([], .accept), chain: name) != nil, "\(name)")
    }
    for name in ["", "a_b", String(repeating: "x", count: 17)] {
      #expect(defect(.init([], .accept), table: name) != nil, "\(name)")
    }
    let chain = Ruleset.Chain("c", .filter, .output, priority: 0, [])
    #expect(throws: RulesetError.self) {
      try Ruleset(name: "t", tables: [.init(.ip, [chain, chain])]).validate()
    }
    #expect(throws: RulesetError.self) {
      try Ruleset(name: "t", tables: [.init(.ip, []), .init(.ip, [])]).validate()
    }
  }
}
