import CLinux
import Foundation
import Inet
import Netlink
import Testing

/// What the transparent proxy's rules must do, whichever back end put them in place.
struct RedirectChecks {
  static let tcpPort: UInt16 = 12345
  static let dnsPort: UInt16 = 5300
  let v6: Bool
  let far: IPAddress
  let loopback: IPAddress

  init(v6: Bool) throws {
    self.v6 = v6
    far = try address(v6 ? "2001:db8::1" : "93.184.216.34")
    loopback = try address(v6 ? "::1" : "127.0.0.1")
  }

  func all() throws {
    try connectionsAreTurned()
    try dnsIsTurned()
    try theRestFailsAtOnce()
    try loopbackIsLeftAlone()
  }

  /// A program's connection reaches the proxy, which learns where it wanted to go.
  func connectionsAreTurned() throws {
    let proxy = try TestSocket.listener(TestSocket.stream, IPEndpoint(loopback, Self.tcpPort))
    for port: UInt16 in [80, 443, 65535] {
      let program = try TestSocket(TestSocket.stream, like: far)
      try program.connect(IPEndpoint(far, port))
      let accepted = try proxy.accept()
      #expect(try accepted.originalDestination(v6: v6) == IPEndpoint(far, port))
      try program.send("request")
      #expect(try accepted.receive().text == "request")
      try accepted.send("answer")
      #expect(try program.receive().text == "answer")
    }
  }

  /// Names resolve: both a connected and an unconnected resolver see the answer come from the server that they asked.
  func dnsIsTurned() throws {
    let forwarder = try TestSocket.listener(TestSocket.datagram, IPEndpoint(loopback, Self.dnsPort))
    let server = IPEndpoint(far, 53)
    for connected in [true, false] {
      let program = try TestSocket(TestSocket.datagram, like: far)
      if connected { try program.connect(server) }
      try program.send("query", to: connected ? nil : server)
      let query = try forwarder.receive()
      #expect(query.text == "query")
      try forwarder.send("answer", to: query.from)
      let answer = try program.receive()
      #expect(answer.text == "answer")
      #expect(answer.from == server)
    }
    let stream = try TestSocket.listener(TestSocket.stream, IPEndpoint(loopback, Self.dnsPort))
    let program = try TestSocket(TestSocket.stream, like: far)
    try program.connect(server)
    #expect(try stream.accept().originalDestination(v6: v6) == server)
  }

  /// UDP and ping to elsewhere cannot work in TCP mode; a program must not wait for a time-out to learn it.
  func theRestFailsAtOnce() throws {
    let kinds: [(Int32, Int32)] = [
      (TestSocket.datagram, 0),
      (Int32(SOCK_RAW.rawValue), Int32(v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP)),
    ]
    for (type, number) in kinds {
      let program = try TestSocket(type, like: far, protocol: number)
      let start = ContinuousClock.now
      // An echo request, as far as anybody looks.
      let text = v6 ? "\u{80}\0\0\0\0\0\0\0" : "\u{8}\0\0\0\0\0\0\0"
      let thrown = #expect(throws: TestSocket.Failed.self) {
        try program.send(text, to: IPEndpoint(far, type == TestSocket.datagram ? 123 : 0))
        _ = try program.receive()
      }
      #expect([EPERM, EHOSTUNREACH, ECONNREFUSED, EACCES].contains(thrown?.code), "\(String(describing: thrown))")
      #expect(ContinuousClock.now - start < .seconds(1))
    }
  }

  /// Services inside talk to each other over loopback as if there were no rules.
  func loopbackIsLeftAlone() throws {
    let server = try TestSocket.listener(TestSocket.stream, IPEndpoint(loopback, 8080))
    let client = try TestSocket(TestSocket.stream, like: loopback)
    try client.connect(IPEndpoint(loopback, 8080))
    try client.send("hello")
    #expect(try server.accept().receive().text == "hello")
    let resolver = try TestSocket.listener(TestSocket.datagram, IPEndpoint(loopback, 53))
    let asking = try TestSocket(TestSocket.datagram, like: loopback)
    try asking.send("local", to: IPEndpoint(loopback, 53))
    #expect(try resolver.receive().text == "local")
    let refused = try TestSocket(TestSocket.stream, like: loopback)
    let thrown = #expect(throws: TestSocket.Failed.self) { try refused.connect(IPEndpoint(loopback, 9)) }
    #expect(thrown?.code == ECONNREFUSED)
  }
}
