import Inet
import Netfilter
import Testing

@testable import HostNetwork

@Suite struct HostNetworkTests {
  /// What an operator reads with `nft list ruleset` while an enclave runs, and what all of its safety hangs on.
  @Test func ruleset() throws {
    let ruleset = HostRuleset.make(
      link: "tombolo0", enclave4: IPv4Address(10, 118, 0, 2), enclave6: nil,
      published: [
        Publication(listen: IPEndpoint(.v4(.any), 8080), port: 80),
        Publication(listen: IPEndpoint(.v4(IPv4Address(192, 0, 2, 1)), 443), port: 443),
        // IPv6 has no enclave here to lead to.
        Publication(listen: IPEndpoint(.v6(.any), 8080), port: 80),
      ])
    try ruleset.validate()
    #expect(
      ruleset.description == """
        table ip tombolo0 {
          chain prerouting {
            type nat hook prerouting priority -100; policy accept;
            iifname != "tombolo0" fib daddr type local tcp dport 8080 dnat to 10.118.0.2:80
            iifname != "tombolo0" ip daddr 192.0.2.1 tcp dport 443 dnat to 10.118.0.2:443
          }
          chain output {
            type nat hook output priority -100; policy accept;
            fib daddr type local tcp dport 8080 dnat to 10.118.0.2:80
            ip daddr 192.0.2.1 tcp dport 443 dnat to 10.118.0.2:443
          }
          chain forward {
            type filter hook forward priority 0; policy accept;
            oifname "tombolo0" ct state established,related accept
            oifname "tombolo0" ip daddr 10.118.0.2 tcp dport 80 accept
            oifname "tombolo0" ip daddr 10.118.0.2 tcp dport 443 accept
            oifname "tombolo0" meta l4proto tcp reject with tcp reset
            oifname "tombolo0" reject with icmp admin-prohibited
          }
          chain postrouting {
            type nat hook postrouting priority 100; policy accept;
            ip saddr 10.118.0.2 oifname != "tombolo0" masquerade
            ip saddr 127.0.0.0/8 oifname "tombolo0" masquerade
          }
        }

        """)
  }

  /// The host must not take the enclave's own address.
  @Test(arguments: [
    ("10.118.0.2/30", "10.118.0.1/30"), ("10.118.0.1/30", "10.118.0.2/30"), ("10.118.3.7/24", "10.118.3.1/24"),
    ("10.118.3.1/16", "10.118.0.1/16"), ("10.118.0.6/30", "10.118.0.5/30"),
    ("fd74:6f6d:626f::2/64", "fd74:6f6d:626f::1/64"), ("fd74::1/126", "fd74::2/126"),
  ]) func hostAddress(enclave: String, host: String) throws {
    let prefix = try #require(IPPrefix(enclave))
    #expect(HostTunnel.hostAddress(beside: prefix)?.description == host)
  }

  /// Settings survive the way through the file, and a file that somebody else has written leads to no other path.
  @Test func sysctlsAsText() {
    let text = "ipv4/ip_forward 0\nipv6/conf/eth0.5/accept_ra 1\n"
    #expect(Sysctls(text: text).text == text)
    #expect(Sysctls(text: "../../kernel/core_pattern x\nipv4/../../kernel/x 1\nipv4/ip_forward\n").saved.isEmpty)
  }
}
