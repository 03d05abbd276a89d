import Inet
import Netfilter
import Testing

@testable import HostNetwork

@Suite struct SharedAddressTests {
  /// What of the host's traffic an enclave with its address gets: too much, and the host cannot be reached any more.
  @Test func ruleset() throws {
    let kept = HostConnection(
      local: IPEndpoint(.v4(IPv4Address(10, 8, 0, 1)), 40000), remote: IPEndpoint(.v4(IPv4Address(10, 8, 0, 2)), 443))
    let ruleset = SharedRuleset.make(
      addresses: [kept.local.address, .v6(IPv6Address(high: 0xfd08_0000_0000_0000, low: 1))],
      ports: PortRanges([80...80, 1024...61439]), firstQueue: 7766, queues: 2, kept: [kept])
    try ruleset.validate()
    #expect(
      ruleset.description == """
        table ip tomboloq {
          chain input {
            type filter hook input priority -10; policy accept;
            ip saddr 10.8.0.2 tcp sport 443 tcp dport 40000 ip daddr 10.8.0.1 accept
            tcp dport 80 ip daddr 10.8.0.1 iifname != "lo" queue to 7767-7768
            udp dport 80 ip daddr 10.8.0.1 iifname != "lo" queue to 7766
            tcp dport 1024-61439 ip daddr 10.8.0.1 iifname != "lo" queue to 7767-7768
            udp dport 1024-61439 ip daddr 10.8.0.1 iifname != "lo" queue to 7766
            icmp type destination-unreachable ip daddr 10.8.0.1 queue flags bypass to 7766
            icmp type time-exceeded ip daddr 10.8.0.1 queue flags bypass to 7766
            icmp type parameter-problem ip daddr 10.8.0.1 queue flags bypass to 7766
          }
        }
        table ip6 tomboloq {
          chain input {
            type filter hook input priority -10; policy accept;
            tcp dport 80 ip6 daddr fd08::1 iifname != "lo" queue to 7767-7768
            udp dport 80 ip6 daddr fd08::1 iifname != "lo" queue to 7766
            tcp dport 1024-61439 ip6 daddr fd08::1 iifname != "lo" queue to 7767-7768
            udp dport 1024-61439 ip6 daddr fd08::1 iifname != "lo" queue to 7766
            icmpv6 type destination-unreachable ip6 daddr fd08::1 queue flags bypass to 7766
            icmpv6 type packet-too-big ip6 daddr fd08::1 queue flags bypass to 7766
            icmpv6 type time-exceeded ip6 daddr fd08::1 queue flags bypass to 7766
            icmpv6 type parameter-problem ip6 daddr fd08::1 queue flags bypass to 7766
            ip6 daddr :: socket transparent <= 1 drop
          }
        }

        """)
  }

  /// proc_net_tcp(5): lines of a machine with a listener, a connection over IPv4 and one over IPv6.
  @Test func connections() {
    let text4 = """
        sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
         0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
         1: 0100080A:9C40 0200080A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
         2: 0100080A:9C41 0200080A:1F90 06 00000000:00000000 03:00000000 00000000     0        0 0 3 0
         3: 0100080A:9C42 garbage 01
      """
    #expect(HostConnection.parse(text4).map { "\($0.local) \($0.remote)" } == ["10.8.0.1:40000 10.8.0.2:8080"])
    #expect(HostConnection.listeners(text4).map(\.local.port) == [8080])
    let text6 = """
        sl  local_address                         remote_address                        st tx_queue rx_queue
         0: 000008FD000000000000000001000000:9C40 000008FD000000000000000002000000:01BB 01 00000000:00000000 00:0
         1: 0000000000000000FFFF00000100080A:9C43 0000000000000000FFFF00000200080A:01BB 01 00000000:00000000 00:0
      """
    // A socket of both families has an IPv4 connection under its IPv6 name.
    #expect(
      HostConnection.parse(text6).map { "\($0.local) \($0.remote)" } == [
        "[fd08::1]:40000 [fd08::2]:443", "10.8.0.1:40003 10.8.0.2:443",
      ])
  }
}
