import Inet
import LinuxSystem
import Policy
import Proxying
import Relaying
import Roles
import Testing
import Wire

/// What PID 1 hands to its own processes: a proxy that understood something else would listen at the wrong place, or not.
struct RolesTests {
  private static let secret = Token(repeatElement(7, count: Token.length)) ?? .none

  private static func handOver(_ target: StreamTarget) throws -> ProxyHandOver {
    var settings = ProxySettings(hostTarget: target, proxyToken: secret, hostToken: Token(0..<32) ?? .none)
    settings.tunnelAddresses = [IPPrefix("10.118.0.2/30"), IPPrefix("fd74:6f6d:626f::2/64")].compactMap { $0 }
    settings.tunnelMTU = 9000
    settings.ingressPorts = [1, 443, 65535]
    settings.egress = EgressRules(
      isOpen: false,
      allow: try ["169.254.169.254:80", "[fd00:ec2::]/32:1-9", "*.example.com:443"].map { try DestinationRule($0) },
      deny: try ["private", "udp://evil.test"].map { try DestinationRule($0) })
    settings.names.upstreams = try [
      UpstreamServer("1.1.1.1"), UpstreamServer("https://[2606:4700::1111]:8443/dns-query#a.test"),
    ]
    settings.proxyProtocols = [443: .v2, 65535: .v1]
    settings.forwards = [
      StaticForward(
        .out(listen: IPEndpoint(.v4(IPv4Address(127, 0, 0, 2)), 443)), vsockPort: 8000, header: [1, 2, 3, 4, 5, 6]),
      StaticForward(.incoming(connect: IPEndpoint(.v6(.loopback), 5432)), vsockPort: 4_294_967_294),
    ]
    settings.drain = .milliseconds(1500)
    settings.kept = [try DestinationRule("nfs.example:2049"), try DestinationRule("[2001:db8::1]:2049")]
    settings.connections.outgoing = 100_000
    settings.connections.idle = .seconds(1 << 23)
    settings.connections.hello = .milliseconds(1500)
    settings.verbose = true
    settings.reportsUse = true
    var made = ProxyHandOver(settings)
    func file() throws -> FileReference { try makePipe().reading }
    made.descriptors.egressListeners = [try file(), try file()]
    made.descriptors.dnsSockets = [try file()]
    made.descriptors.transportListener = try file()
    made.descriptors.tunnelQueues = [try file(), try file(), try file()]
    made.descriptors.readiness = try file()
    made.descriptors.upstreamLink = try file()
    made.descriptors.forwardListeners = [try file(), try file()]
    return made
  }

  @Test func theProxyReadsWhatInitWrites() throws {
    for target in [StreamTarget(.unix("/run/tombolo/host/host_7766")), StreamTarget(.vsock(cid: 3, port: 7766))] {
      let made = try Self.handOver(target)
      let (document, files) = made.encoded()
      let plan = try ProxyPlan(document: document)
      #expect(plan.settings == made.settings)
      // Numbers behind the document's own, each file once.
      #expect(plan.descriptors.egressListeners == [4, 5] && plan.descriptors.dnsSockets == [6])
      #expect(plan.descriptors.transportListener == 7 && plan.descriptors.readiness == 8)
      #expect(plan.descriptors.tunnelQueues == [9, 10, 11] && plan.descriptors.verdictPipe == nil)
      #expect(plan.descriptors.upstreamLink == 12)
      #expect(plan.descriptors.forwardListeners == [13, 14])
      #expect(files.count == 11 && files[3] === made.descriptors.transportListener)
      #expect(files[4] === made.descriptors.readiness)
    }
  }

  /// Nothing has a default: what is missing, twice there, unknown or out of range is a sentence that names it.
  @Test func everyFieldIsNeeded() throws {
    let (document, _) = try Self.handOver(StreamTarget(.unix("/host"))).encoded()
    var fields: [(name: String, bytes: ArraySlice<UInt8>)] = []
    var rest = document[5...]
    while let count = rest.first {
      let start = rest.startIndex
      let length = document[(start + 1 + Int(count))..<(start + 5 + Int(count))].reduce(0) { $0 << 8 | Int($1) }
      let end = start + 5 + Int(count) + length
      fields.append(
        (String(decoding: document[(start + 1)..<(start + 1 + Int(count))], as: UTF8.self), document[start..<end]))
      rest = document[end...]
    }
    #expect(fields.count == 41)
    for (index, field) in fields.enumerated() {
      var less = fields
      less.remove(at: index)
      let cut = Array(document[..<5]) + less.flatMap { $0.bytes }
      #expect(throws: RoleError("proxy", "the field \"\(field.name)\" is missing")) { try ProxyPlan(document: cut) }
      #expect(throws: RoleError("proxy", "the field \"\(field.name)\" is there twice")) {
        try ProxyPlan(document: document + Array(field.bytes))
      }
    }
    var writer = RoleWriter()
    writer.put("surprise", flag: true)
    let more = document + writer.bytes[5...]
    #expect(throws: RoleError("proxy", "the field \"surprise\" is not known")) { try ProxyPlan(document: more) }
    #expect(throws: RoleError("proxy", "what came is no role's document")) { try ProxyPlan(document: []) }
    for count in 6..<document.count {
      #expect(throws: RoleError.self) { try ProxyPlan(document: Array(document.prefix(count))) }
    }
  }

  @Test func valuesOutOfRange() throws {
    for (name, value) in [
      ("mtu", [0, 0, 4, 0]), ("mtu", [0, 1, 0, 0]), ("ingress-ports", [0, 0, 0, 0]), ("ingress-ports", [0, 1, 0, 0]),
      ("proxy-protocols", [0, 0, 80, 1]), ("proxy-protocols", [0, 1, 187, 3]), ("forwards", []), ("forwards", [0]),
      ("forward-listeners", []), ("verbose", [2]), ("egress", [0, 0, 0, 3]),
      ("egress", [255, 255, 255, 255]), ("egress", [1]),
      ("addresses", [4, 33, 1, 2, 3, 4]), ("addresses", [5, 1, 1, 2, 3, 4, 5]), ("addresses", [4]),
      ("proxy-token", [1]), ("host-unix", [0xff]), ("max-outgoing", [0, 0, 0, 0]), ("max-incoming", [0, 15, 66, 65]),
      ("idle-timeout", [0, 0, 0, 1]), ("hello-timeout", [0, 0, 0, 0, 0, 0, 3, 231]), ("connect-timeout", []),
    ] as [(String, [UInt8])] {
      let (document, _) = try Self.handOver(StreamTarget(.unix("/host"))).encoded()
      let key = [UInt8(name.utf8.count)] + Array(name.utf8)
      let place = try #require((5..<document.count - key.count).first { Array(document[$0..<$0 + key.count]) == key })
      let start = place + key.count
      let length = document[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
      let changed =
        Array(document[..<start]) + [0, 0, 0, UInt8(value.count)] + value + Array(document[(start + 4 + length)...])
      #expect(throws: RoleError.self, "\(name) \(value)") { try ProxyPlan(document: changed) }
    }
  }

  @Test func anyBytesGiveAPlanOrAnError() throws {
    let (document, _) = try Self.handOver(StreamTarget(.vsock(cid: 3, port: 1))).encoded()
    for _ in 0..<100_000 {
      var bytes = document
      for _ in 0..<Int.random(in: 1...6) { bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...255) }
      _ = try? ProxyPlan(document: Bool.random() ? bytes : Array(bytes.prefix(Int.random(in: 0...bytes.count))))
    }
  }
}
