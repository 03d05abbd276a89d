import CLinux
import Foundation
import Inet
import Netfilter
import Netlink
import Testing

/// The host's raw mode with both back ends: an enclave behind a link, its published port reached from outside, its own
/// connections masqueraded. Without this nobody reaches an enclave in raw mode and it reaches nobody.
@Suite(.serialized) struct PublishedPortTests {
  @Test(arguments: ["nf_tables", "xtables"], [false, true]) func dnatAndMasquerade(backend: String, v6: Bool) throws {
    try inNetworkNamespace {
      // client (namespace of its own) c0 -- c1 host (this one) e1 -- e0 enclave (namespace of its own)
      let length = v6 ? 64 : 24
      let client = try address(v6 ? "2001:db8:c::2" : "192.0.2.2")
      let outside = try address(v6 ? "2001:db8:c::1" : "192.0.2.1")
      let inside = try address(v6 ? "2001:db8:e::1" : "10.77.0.1")
      let enclave = try address(v6 ? "2001:db8:e::2" : "10.77.0.2")
      try shell("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
      try noDuplicateDetection()
      let spaces = try (0..<2).map { _ in try NetworkNamespace.make() }
      for (space, (pair, own)) in zip(spaces, [("c", client), ("e", enclave)]) {
        try space.run { try noDuplicateDetection() }
        try shell("ip link add \(pair)1 type veth peer name \(pair)0 netns \(space.path)")
        try space.run {
          try shell("ip link set lo up; ip link set \(pair)0 up")
          try shell("ip addr add \(own)/\(length) dev \(pair)0 \(v6 ? "nodad" : "")")
        }
      }
      var socket = try RouteSocket()
      for (link, own) in [("c1", outside), ("e1", inside)] {
        try socket.setLink(named: link, up: true)
        try socket.addAddress(try prefix("\(own)/\(length)"), link: try socket.linkIndex(named: link))
      }

      try spaces[1].run { try shell("ip route add default via \(inside)") }

      let range = try prefix("\(enclave)/\(length)")
      let forward: [Ruleset.Rule] = [
        .init([.state([.established, .related])], .accept),
        .init([.input("c1"), .output("e1"), .destination(range), .transport(.tcp), .destinationPort(8080)], .accept),
        .init([.input("e1"), .output("c1"), .source(range)], .accept),
        .init([.transport(.tcp)], .reject(.tcpReset)),
        .init([], .reject(.adminProhibited)),
      ]
      let ruleset = Ruleset(
        name: "host",
        tables: [
          .init(
            v6 ? .ip6 : .ip,
            [
              .init(
                "pre", .nat, .prerouting, priority: -100,
                [.init([.input("c1"), .transport(.tcp), .destinationPort(80)], .dnat(enclave, port: 8080))]),
              .init("fwd1", .filter, .forward, priority: 0, forward),
              .init(
                "post", .nat, .postrouting, priority: 100, [.init([.output("c1"), .source(range)], .masquerade)]),
            ])
        ])
      if backend == "nf_tables" { try NFTables.apply(ruleset) } else { try XTables.apply(ruleset) }

      // A socket belongs to the namespace in which it was made.
      let server = try spaces[1].run { try TestSocket.listener(TestSocket.stream, IPEndpoint(enclave, 8080)) }
      let caller = try spaces[0].run { try TestSocket(TestSocket.stream, like: client) }
      try caller.connect(IPEndpoint(outside, 80))
      let accepted = try server.accept()
      try caller.send("in")
      #expect(try accepted.receive().text == "in")

      let outer = try spaces[0].run { try TestSocket.listener(TestSocket.datagram, IPEndpoint(client, 7)) }
      let program = try spaces[1].run { try TestSocket(TestSocket.datagram, like: client) }
      try program.send("out", to: IPEndpoint(client, 7))
      let datagram = try outer.receive()
      #expect(datagram.text == "out")
      #expect(datagram.from?.address == outside)
      try outer.send("back", to: datagram.from)
      #expect(try program.receive().text == "back")

      // What is not published stays closed.
      let intruder = try spaces[0].run {
        try shell("ip route add \(range.network) via \(outside)")
        return try TestSocket(TestSocket.stream, like: client)
      }
      let thrown = #expect(throws: TestSocket.Failed.self) { try intruder.connect(IPEndpoint(enclave, 8081)) }
      #expect(thrown?.code == ECONNREFUSED)
    }
  }

  /// Link-local addresses, from which neighbours are sought, would be tentative for the first second.
  private func noDuplicateDetection() throws {
    for links in ["all", "default"] { try shell("echo 0 > /proc/sys/net/ipv6/conf/\(links)/accept_dad") }
  }
}

extension IPPrefix {
  /// With the bits behind the length zero, as ip(8) wants it.
  fileprivate var network: String {
    var bytes = address.bytes
    for index in bytes.indices where index >= Int(length) / 8 { bytes[index] = 0 }
    return IPAddress(bytes: bytes).map { "\($0)/\(length)" } ?? ""
  }
}
