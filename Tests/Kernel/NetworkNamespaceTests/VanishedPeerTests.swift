import CLinux
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Testing
import Wire

/// A peer that vanishes after it has ended: nothing is read from it any more, and only the keep-alive questions find it out.
@Suite(.serialized) struct VanishedPeerTests {
  @Test(arguments: [false, true]) func keepAliveEndsAConnectionWhosePeerHasEnded(hasEnded: Bool) throws {
    try inNetworkNamespace {
      try shell("ip link set lo up")
      let listener = try listenStream(.ip(IPEndpoint(.v4(.loopback), 0)))
      let peer = FileReference(try makeSocket(AF_INET, .stream))
      _ = try connectStream(peer.rawValue, .ip(try #require(localEndpoint(listener.rawValue))))
      let plain = try #require(try acceptStream(listener.rawValue)).descriptor
      setKeepAlive(plain.rawValue)
      // The same questions, in seconds that a test has.
      for (name, value) in [(TCP_KEEPIDLE, Int32(1)), (TCP_KEEPINTVL, 1), (TCP_KEEPCNT, 1)] {
        _ = clinux_set_option(plain.rawValue, Int32(IPPROTO_TCP), name, value)
      }
      let (framed, other) = try makeSocketPair()
      for socket in [framed, other] { try socket.descriptor.setNonblocking() }
      let loop = try EventLoop()
      var end: Relay.End?
      _ = try Relay(loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed) {
        end = $1
        loop.stop()
      }
      if hasEnded { shutdownSending(peer.rawValue) }
      let vanish = TimerSource { _ = try? shell("ip link set lo down") }
      loop.schedule(after: .milliseconds(300), vanish)
      let limit = TimerSource { loop.stop() }
      loop.schedule(after: .seconds(30), limit)
      try withExtendedLifetime((peer, other, vanish)) { try loop.run() }
      #expect(end == .reset(.timedOut))
      var bytes = [UInt8](repeating: 0, count: 100)
      let expected = (hasEnded ? Frame.end : []) + Frame.reset(.timedOut)
      #expect(bytes.withUnsafeMutableBytes { readBytes(other.rawValue, $0) } == .bytes(expected.count))
      #expect(Array(bytes[..<expected.count]) == expected)
    }
  }
}
