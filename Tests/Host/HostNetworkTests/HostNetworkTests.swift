import Inet
import Netfilter
import Testing

@testable import HostNetwork

@Suite struct HostNetworkTests {
  /// What an operator reads with `nft list ruleset` while an enclave runs, and what all of its safety hangs on.
  @Test func ruleset() throws {
    var rules = HostRuleset(
      link: "tombolo0", enclave4: IPv4Address(10, 118, 0, 2),
      published: [
        Publication(listen: IPEndpoint(.v4(.any), 8080), port: 80),
        Publication(listen: IPEndpoint(.v4(IPv4Address(192, 0, 2, 1)), 443), port: 443),
        Publication(listen: IPEndpoint(.v4(.any), 53), port: 53, transport: .udp),
        // IPv6 has no enclave here to lead to.
        Publication(listen: IPEndpoint(.v6(.any), 8080), port: 80),
      ], nameServer: (IPv4Address(169, 254, 53, 53), udp: 40001, tcp: 40002), hostPorts: PortRanges([5432...5433]))
    rules.forwarding = .init(was4: false, was6: false, links: ["eth1"])
    let ruleset = rules.ruleset()
    try ruleset.validate()
    #expect(
      ruleset.description == """
        table ip tombolo0 {
          chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            iifname "tombolo0" ip daddr 169.254.53.53 udp dport 53 dnat to 169.254.53.53:40001
            iifname "tombolo0" ip daddr 169.254.53.53 tcp dport 53 dnat to 169.254.53.53:40002
            fib daddr type local tcp dport 8080 dnat to 10.118.0.2:80
            ip daddr 192.0.2.1 tcp dport 443 dnat to 10.118.0.2:443
            fib daddr type local udp dport 53 dnat to 10.118.0.2:53
          }
          chain output {
            type nat hook output priority -100; policy accept;
            fib daddr type local tcp dport 8080 dnat to 10.118.0.2:80
            ip daddr 192.0.2.1 tcp dport 443 dnat to 10.118.0.2:443
            fib daddr type local udp dport 53 dnat to 10.118.0.2:53
          }
          chain input {
            type filter hook input priority 0; policy accept;
            iifname "tombolo0" ct state established,related accept
            iifname "tombolo0" ip daddr 169.254.53.53 udp dport 40001 accept
            iifname "tombolo0" ip daddr 169.254.53.53 tcp dport 40002 accept
            iifname "tombolo0" tcp dport 5432-5433 accept
            iifname "tombolo0" udp dport 5432-5433 accept
            iifname "tombolo0" meta l4proto tcp reject with tcp reset
            iifname "tombolo0" reject with icmp admin-prohibited
          }
          chain forward {
            type filter hook forward priority 0; policy accept;
            oifname "tombolo0" ct state established,related accept
            oifname "tombolo0" ip daddr 10.118.0.2 tcp dport 80 accept
            oifname "tombolo0" ip daddr 10.118.0.2 tcp dport 443 accept
            oifname "tombolo0" ip daddr 10.118.0.2 udp dport 53 accept
            oifname "tombolo0" meta l4proto tcp reject with tcp reset
            oifname "tombolo0" reject with icmp admin-prohibited
            iifname "eth1" return
            iifname != "tombolo*" oifname != "tombolo*" drop
          }
          chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 10.118.0.2 masquerade
            ip saddr 127.0.0.0/8 oifname "tombolo0" masquerade
          }
        }

        """)
  }

  /// What was forwarded before the first enclave goes on, on the links where it was.
  @Test func forwardingBefore() {
    let text = """
      ipv4/ip_forward 0
      ipv4/conf/all/forwarding 0
      ipv4/conf/eth0/forwarding 0
      ipv4/conf/eth1.5/forwarding 1
      ipv4/conf/lo/forwarding 1
      ipv4/conf/tombolo0/forwarding 1
      ipv6/conf/all/forwarding 1
      ipv6/conf/eth2/forwarding 1

      """
    #expect(Sysctls(text: text).forwarding == .init(was4: false, was6: true, links: ["eth1.5"]))
  }

  /// The host must not take the enclave's own address.
  @Test(arguments: [
    ("10.118.0.2/30", "10.118.0.1/30"), ("10.118.0.1/30", "10.118.0.2/30"), ("10.118.3.7/24", "10.118.3.1/24"),
    ("10.118.3.1/16", "10.118.0.1/16"), ("10.118.0.6/30", "10.118.0.5/30"),
    ("fd74:6f6d:626f::2/64", "fd74:6f6d:626f::1/64"), ("fd74::1/126", "fd74::2/126"),
  ]) func hostAddress(enclave: String, host: String) throws {
    let prefix = try #require(IPPrefix(enclave))
    #expect(HostLink.hostAddress(beside: prefix)?.description == host)
  }

  /// A network of which the machine has something is not taken; one that holds half the private addresses says nothing.
  @Test func freeNetworks() {
    func taken(_ texts: String...) -> [IPPrefix] { texts.compactMap { IPPrefix($0) } }
    func first4(_ texts: String...) -> String? {
      FreeNetwork.first4(from: 0, taken: texts.compactMap { IPPrefix($0) })?.description
    }
    #expect(first4() == "10.118.0.2/30")
    #expect(first4("10.0.0.0/8", "10.118.0.0/16", "192.168.0.0/24") == "10.118.0.2/30")
    #expect(first4("10.118.0.2/30") == "10.118.0.6/30")
    #expect(first4("10.118.0.1/32", "10.118.0.4/31", "10.118.0.11/32") == "10.118.0.14/30")
    #expect(first4("10.118.0.0/17") == "10.118.128.2/30")
    #expect(first4("10.118.0.0/17", "10.118.128.0/17") == nil)
    #expect(FreeNetwork.first4(from: 16383, taken: taken("10.118.255.254/32"))?.description == "10.118.0.2/30")
    #expect(
      FreeNetwork.first6(from: 0, taken: taken("fd74:6f6d:626f::/64", "fd74:6f6d:626f:1::7/128", "fd00::/8"))?
        .description
        == "fd74:6f6d:626f:2::2/64")
  }

  /// Settings survive the way through the file, and a file that somebody else has written leads to no other path.
  @Test func sysctlsAsText() {
    let text = "ipv4/ip_forward 0\nipv6/conf/eth0.5/accept_ra 1\n"
    #expect(Sysctls(text: text).text == text)
    #expect(Sysctls(text: "../../kernel/core_pattern x\nipv4/../../kernel/x 1\nipv4/ip_forward\n").saved.isEmpty)
  }
}
