import Flows
import Packets
import Testing

/// Datagrams to port 443, as the judge takes them.
@Suite struct QUICFlowTests {
  private static func world() throws -> Judging {
    var some = try Judging(allow: ["udp://ok.test:443", "udp://also.test:443", "udp://10.7.0.0/16:443"], quic: true)
    some.names = ["10.9.0.2": ["ok.test"], "fd09::2": ["ok.test"], "10.7.0.1": []]
    return some
  }

  private static func initial(_ name: String?, _ identifier: UInt8 = 1, padding: Int = 0) -> [UInt8] {
    var client = InitialClient(Array(repeating: identifier, count: 8))
    return client.packet(InitialClient.crypto(Frames.hello(name, padding: padding).dropFirst(5)))
  }

  private static let later: [UInt8] = [0x40] + Array(repeating: 3, count: 30)
  private static let stranger = "it belongs to no QUIC connection that began with a name (egress.quic)"

  @Test func theNameMustBeAllowedAndTheAddressItsAnswer() throws {
    for remote in ["10.9.0.2", "fd09::2"] {
      var some = try Self.world()
      let place = remote.contains(":") ? "[\(remote)]:443" : "\(remote):443"
      #expect(
        some.leaving(Frames.udp(remote, 443, Self.later)) == "refused: \(place) (UDP, ok.test) denied: \(Self.stranger)"
      )
      #expect(
        some.leaving(Frames.udp(remote, 443, Self.initial("no.test")))
          == "refused: \(place) (UDP, no.test) denied: the client asks for no.test: no rule of egress.allow names it (egress.quic)"
      )
      #expect(
        some.leaving(Frames.udp(remote, 443, Self.initial("also.test", 2)))
          == "refused: \(place) (UDP, also.test) denied: the client asks for also.test, for which this address was not the answer (egress.quic)"
      )
      #expect(some.leaving(Frames.udp(remote, 443, Self.initial("ok.test", 3))) == "passes")
      #expect(some.leaving(Frames.udp(remote, 443, Self.later)) == "passes")
      // In the same flow a connection with another name begins.
      #expect(some.leaving(Frames.udp(remote, 443, Self.initial("no.test", 4))).hasPrefix("refused"))
    }
    var some = try Self.world()
    #expect(
      some.leaving(Frames.udp("10.9.0.9", 443, Self.initial("ok.test")))
        == "refused: 10.9.0.9:443 (UDP) denied: no rule of egress.allow names it")
    // An address that a rule has, for a name that a rule has.
    #expect(some.leaving(Frames.udp("10.7.0.1", 443, Self.initial("also.test", 5))) == "passes")
    // Without a name, where the address may be reached.
    #expect(some.leaving(Frames.udp("10.9.0.2", 443, Self.initial(nil, 6))) == "passes")
  }

  /// A queue that knows the flow to be open asks about what may begin a connection all the same.
  @Test func whatMayBeginAConnection() throws {
    let watch = try Self.world().judge.watch
    let off = try Judging().judge.watch
    for (frame, expected) in [
      (Frames.udp("10.9.0.2", 443, Self.initial("ok.test")), true), (Frames.udp("10.9.0.2", 443, Self.later), false),
      (Frames.udp("10.9.0.2", 444, Self.initial("ok.test")), false),
      (Frames.udp("10.9.0.2", 443, Self.later, fragment: 0x2000), true),
      (Frames.tcp("10.9.0.2", Frames.ack, [0xc0]), false),
    ] {
      frame.withUnsafeBytes { bytes in
        guard let packet = FlowPacket(bytes, isLeaving: true) else {
          Issue.record("no packet")
          return
        }
        #expect(watch.mayBegin(packet, bytes) == expected)
        #expect(!off.mayBegin(packet, bytes))
      }
    }
  }

  @Test func aHelloInTwoDatagrams() throws {
    var some = try Self.world()
    var client = InitialClient([1, 2, 3, 4, 5, 6, 7, 8])
    let hello = Array(Frames.hello("ok.test", padding: 1900).dropFirst(5))
    #expect(
      some.leaving(Frames.udp("10.9.0.2", 443, client.packet(InitialClient.crypto(hello[1100...], at: 1100)))) == "lost"
    )
    #expect(
      some.leaving(Frames.udp("10.9.0.2", 443, client.packet(InitialClient.crypto(hello[..<1100]))))
        == "passes behind 1")
  }

  /// What is put together elsewhere cannot be looked at here.
  @Test func datagramsInPieces() throws {
    var some = try Self.world()
    let whole = Self.initial("ok.test")
    let reason = "refused: 10.9.0.2:443 (UDP, ok.test) denied: a datagram in pieces (egress.quic)"
    #expect(some.leaving(Frames.udp("10.9.0.2", 443, whole, fragment: 0x2000)) == reason)
    var short = Frames.udp("10.9.0.2", 443, whole)
    short[PacketGuard.offloadHeaderLength + 25] &-= 1
    #expect(some.leaving(short) == reason)
    #expect(some.leaving(Frames.udp("10.9.0.2", 443, whole)) == "passes")
    // Several datagrams in one frame: each is looked at.
    var client = InitialClient([7, 7, 7, 7])
    let first = client.packet(InitialClient.crypto(Frames.hello("ok.test").dropFirst(5)))
    var other = InitialClient([8, 8, 8, 8])
    let second = other.packet(InitialClient.crypto(Frames.hello("no.test").dropFirst(5)))
    var frame = Frames.udp("10.9.0.2", 443, first + second)
    frame[1] = 5
    frame[4] = UInt8(first.count & 0xff)
    frame[5] = UInt8(first.count >> 8)
    #expect(some.leaving(frame).contains("a datagram for two QUIC connections"))
  }
}
