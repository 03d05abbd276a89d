import CLinux
import Foundation
import Inet
import LinuxSystem
import Netlink
import Testing

/// Links, addresses and routes, set with our own netlink code and read back with ip(8).
@Suite(.serialized) struct RouteTests {
  /// Without these an enclave's program has no network at all.
  @Test func enclaveLinksAndRoutes() throws {
    try inNetworkNamespace {
      // The second time nothing may fail: the init program may be started again in the same namespace.
      for _ in 0..<2 { try EnclaveRoutes.setUp(ipv6: true) }
      let lo = try #require(try json("ip -j addr show dev lo").first)
      #expect((lo["flags"] as? [String])?.contains("UP") == true)
      let addresses = (lo["addr_info"] as? [[String: Any]] ?? []).map {
        "\($0["local"] ?? "")/\($0["prefixlen"] ?? "") \($0["scope"] ?? "")"
      }
      #expect(
        addresses.sorted() == [
          "127.0.0.1/8 host", "127.0.1.1/8 host", "::1/128 host", "fd54:6f6d:626f::1/128 global",
        ])
      let four = try json("ip -j route show")
      #expect(four.count == 1)
      #expect(four.first?["dst"] as? String == "default")
      #expect(four.first?["dev"] as? String == "lo")
      #expect(four.first?["prefsrc"] as? String == "127.0.0.1")
      // Not `table main`: ip(8) takes every local route for one of the table `local` and leaves it out.
      let six = try json("ip -j -6 route show table all type local").filter { $0["table"] == nil }
      #expect(six.map { $0["dst"] as? String } == ["default"])
      #expect(six.first?["prefsrc"] as? String == "::1")
    }
  }

  /// What we list is what there is: the status command and the boot log show it.
  @Test func lists() throws {
    try inNetworkNamespace {
      try shell("ip link add v0 type veth peer name v1")
      var socket = try RouteSocket()
      try socket.setLink(named: "v0", up: true, mtu: 9000)
      try socket.setLink(named: "v1", up: true)
      let v0 = try socket.linkIndex(named: "v0")
      for text in ["10.1.2.3/24", "2001:db8::3/64"] {
        try socket.addAddress(try prefix(text), link: v0)
        try socket.addAddress(try prefix(text), link: v0)
      }
      let gateway = Route(.ip, link: v0, gateway: try address("10.1.2.1"), preferredSource: try address("10.1.2.3"))
      let other = Route(
        .ip6, to: try prefix("2001:db8:1::/48"), link: v0, gateway: try address("2001:db8::1"), table: 1000)
      try socket.addRoute(gateway)
      try socket.addRoute(other)

      let links = try socket.links()
      #expect(Set(links.map(\.name)) == ["lo", "v0", "v1"])
      let link = try #require(links.first { $0.name == "v0" })
      #expect(link.mtu == 9000)
      #expect(link.isUp)
      #expect(!link.isLoopback)
      #expect(try socket.link(named: "v0") == link)
      #expect(try socket.addresses().filter { $0.link == v0 }.map { "\($0.prefix)" }.contains("10.1.2.3/24"))
      #expect(try socket.addresses().filter { $0.link == v0 }.map { "\($0.prefix)" }.contains("2001:db8::3/64"))
      let routes = try socket.routes()
      #expect(routes.contains(gateway))
      #expect(routes.contains(other))
      #expect(try shell("ip -4 route show default").hasPrefix("default via 10.1.2.1 dev v0 src 10.1.2.3"))
      #expect(try shell("ip -6 route show table 1000").hasPrefix("2001:db8:1::/48 via 2001:db8::1 dev v0"))
      #expect(try shell("ip -4 addr show dev v0").contains("inet 10.1.2.3/24 scope global v0"))
      // No tentative second: the first connection of a program would fail in it.
      #expect(!(try shell("ip -6 addr show dev v0 to 2001:db8::3")).contains("tentative"))

      try socket.removeRoute(gateway)
      try socket.removeRoute(other)
      #expect(try shell("ip -4 route show default").isEmpty)
      #expect(!(try socket.routes().contains(other)))
      try socket.setLink(named: "v0", up: false)
      #expect(try !socket.link(named: "v0").isUp)
    }
  }

  /// More addresses than one datagram holds: a dump of several parts is put together.
  @Test func longDump() throws {
    try inNetworkNamespace {
      var socket = try RouteSocket()
      try socket.setLink(named: "lo", up: true)
      let lo = try socket.linkIndex(named: "lo")
      for number in 0..<1500 { try socket.addAddress(try prefix("10.9.\(number / 250).\(number % 250)/32"), link: lo) }
      #expect(try socket.addresses().filter { "\($0.prefix)".hasPrefix("10.9.") }.count == 1500)
    }
  }

  /// An operator must read from the error what was wrong, in the kernel's own words.
  @Test func errors() throws {
    try inNetworkNamespace {
      var socket = try RouteSocket()
      try socket.setLink(named: "lo", up: true)
      let lo = try socket.linkIndex(named: "lo")
      let route = Route(.ip, to: try prefix("10.0.0.0/8"), link: lo, gateway: try address("192.0.2.1"))
      var thrown = #expect(throws: NetlinkError.self) { try socket.addRoute(route) }
      #expect(
        thrown?.description
          == "add route 10.0.0.0/8 via 192.0.2.1 dev #1: Network is unreachable (ENETUNREACH): Nexthop has invalid gateway"
      )
      thrown = #expect(throws: NetlinkError.self) { try socket.linkIndex(named: "nope0") }
      #expect(thrown?.errno == ENODEV)
      #expect(thrown?.description == "get link nope0: No such device (ENODEV)")
      let absent = Route(.ip, to: try prefix("10.0.0.0/8"), link: lo)
      thrown = #expect(throws: NetlinkError.self) { try socket.removeRoute(absent) }
      #expect(thrown?.errno == ESRCH)
      try socket.addRoute(absent)
      thrown = #expect(throws: NetlinkError.self) { try socket.addRoute(absent) }
      #expect(thrown?.errno == EEXIST)
      try socket.addRoute(absent, replace: true)
      // The socket is as good as new after errors.
      #expect(try socket.links().count >= 1)
    }
  }

  /// An image whose kernel has IPv6 switched off must boot with IPv4 alone.
  @Test func probesIPv6() throws {
    try inNetworkNamespace {
      #expect(IPv6Support.probe() == .available)
      try shell("echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6")
      #expect(IPv6Support.probe() == .disabled)
      try EnclaveRoutes.setUp(ipv6: false)
      let thrown = #expect(throws: NetlinkError.self) { try EnclaveRoutes.setUp(ipv6: true) }
      #expect(thrown?.errno == EACCES)
      #expect(thrown?.request == "add address ::1/128 dev #1")
    }
  }
}
