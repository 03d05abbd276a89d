import EventLoop
import LinuxSystem
import Relaying
import Testing
import Wire

/// Connections on which nothing happens.
@Suite(.serialized) struct RelayTimeoutTests {
  /// A relay with timeouts, whose other ends the test has.
  private final class World {
    let loop: EventLoop
    let near: FileReference
    let peer: FileReference
    var end: Relay.End?

    init(idle: Duration?, halfClosed: Duration?) throws {
      loop = try EventLoop()
      let (near, plain) = try makeSocketPair()
      let (framed, peer) = try makeSocketPair()
      for socket in [near, plain, framed, peer] { try socket.descriptor.setNonblocking() }
      (self.near, self.peer) = (near, peer)
      _ = try Relay(
        loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed,
        timeouts: RelayTimeouts(idle: idle, halfClosed: halfClosed)
      ) { [unowned self] in
        end = $1
        loop.stop()
      }
    }

    deinit { loop.clear() }

    /// - Returns: whether the relay has ended within that time.
    func wait(_ milliseconds: Int) throws -> Bool {
      loop.schedule(after: .milliseconds(milliseconds), TimerSource { [loop] in loop.stop() })
      if end == nil { try loop.run() }
      return end != nil
    }

    func say(_ text: String) { _ = Array(text.utf8).withUnsafeBytes { sendBytes(near.rawValue, $0) } }

    func read() -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: 4096)
      guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(peer.rawValue, $0) }) else { return [] }
      return Array(bytes[..<count])
    }
  }

  /// Both ends are told: the plain one by a reset, the other by a frame that says why.
  @Test func anIdleConnectionIsReset() throws {
    let world = try World(idle: .milliseconds(100), halfClosed: nil)
    #expect(try world.wait(10_000))
    #expect(world.end == .reset(.timedOut) && world.read() == Frame.reset(.timedOut))
  }

  /// A byte now and then is a connection in use.
  @Test func bytesKeepAConnection() throws {
    let world = try World(idle: .milliseconds(1500), halfClosed: nil)
    for _ in 0..<12 {
      world.say("x")
      #expect(try !world.wait(200))
      #expect(!world.read().isEmpty)
    }
    #expect(try world.wait(20_000))
  }

  /// A time for half-closed connections is nobody else's.
  @Test func onlyAHalfClosedConnectionIsReset() throws {
    let world = try World(idle: nil, halfClosed: .milliseconds(100))
    #expect(try !world.wait(500))
    shutdownSending(world.near.rawValue)
    #expect(try world.wait(10_000))
    #expect(world.end == .reset(.timedOut) && world.read() == Frame.end + Frame.reset(.timedOut))
  }

  @Test func withoutTimeoutsThereAreNone() throws {
    #expect(RelayTimeouts(idle: nil, halfClosed: nil) == nil)
    let world = try World(idle: nil, halfClosed: nil)
    shutdownSending(world.near.rawValue)
    #expect(try !world.wait(300))
  }
}
