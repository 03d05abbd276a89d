import CLinux
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Testing
import Wire

/// Two relays back to back, as in an enclave and its host, over real sockets:
///
///     near ═ plain [relay] framed ═ framed [relay] plain ═ far
final class RelayPair {
  let loop: EventLoop
  let buffer = RelayBuffer()
  let near: FileReference
  let far: FileReference
  var ends: [Relay.End] = []

  init() throws {
    loop = try EventLoop()
    let (near, a) = try makeSocketPair()
    let (b, c) = try makeSocketPair()
    let (d, far) = try makeSocketPair()
    self.near = near
    self.far = far
    for socket in [near, a, b, c, d, far] { try socket.descriptor.setNonblocking() }
    let ended: (Relay, Relay.End) -> Void = { [unowned self] in
      ends.append($1)
      if ends.count == 2 { loop.stop() }
    }
    _ = try Relay(loop: loop, buffer: buffer, plain: a, framed: b, onEnd: ended)
    _ = try Relay(loop: loop, buffer: buffer, plain: d, framed: c, onEnd: ended)
  }
}

/// Sends a pattern on one socket and checks it on another, at its own pace.
final class Pump: EventSource {
  let socket: FileReference
  let length: Int
  let loop: EventLoop
  var sent = 0
  var received = 0
  var expected: Int
  var corrupt = false
  var sawEnd = false
  var done: () -> Void = {}

  init(_ loop: EventLoop, _ socket: FileReference, send length: Int, expect expected: Int) throws {
    self.loop = loop
    self.socket = socket
    self.length = length
    self.expected = expected
    super.init()
    _ = try loop.add(socket.rawValue, [.readable, .writable, .edgeTriggered], self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    while sent < length {
      let chunk = (0..<min(100_003, length - sent)).map { UInt8(truncatingIfNeeded: (sent + $0) &* 31) }
      guard case .bytes(let count) = chunk.withUnsafeBytes({ sendBytes(socket.rawValue, $0) }) else { break }
      sent += count
      if sent == length { shutdownSending(socket.rawValue) }
    }
    if length == 0, sent == 0 {
      sent = -1
      shutdownSending(socket.rawValue)
    }
    var chunk = [UInt8](repeating: 0, count: 77_777)
    while true {
      switch chunk.withUnsafeMutableBytes({ readBytes(socket.rawValue, $0) }) {
      case .bytes(0):
        sawEnd = true
        return
      case .bytes(let count):
        for index in 0..<count where chunk[index] != UInt8(truncatingIfNeeded: (received + index) &* 31) {
          corrupt = true
        }
        received += count
      default: return
      }
    }
  }
}

@Suite(.serialized) struct RelayTests {
  @Test(arguments: [(0, 0), (1, 0), (0, 1), (5_000_000, 3_000_001), (300_000, 0)])
  func bytesArriveUnchangedAndEndsAreCarried(_ out: Int, _ back: Int) throws {
    let pair = try RelayPair()
    let near = try Pump(pair.loop, pair.near, send: out, expect: back)
    let far = try Pump(pair.loop, pair.far, send: back, expect: out)
    let limit = TimerSource { pair.loop.stop() }
    pair.loop.schedule(after: .seconds(20), limit)
    try pair.loop.run()
    // The loop ends with the relays: what they delivered last is still in the sockets.
    near.ready([.readable], tag: 0)
    far.ready([.readable], tag: 0)
    #expect(pair.ends == [.completed, .completed])
    #expect(far.received == out && near.received == back)
    #expect(!near.corrupt && !far.corrupt)
    #expect(near.sawEnd && far.sawEnd)
  }

  /// One framed socket whose other end the test plays.
  func oneRelay(_ body: (EventLoop, FileReference, FileReference) throws -> Void) throws -> (Relay.End?, FileReference)
  {
    let loop = try EventLoop()
    let (near, plain) = try makeSocketPair()
    let (framed, peer) = try makeSocketPair()
    for socket in [near, plain, framed, peer] { try socket.descriptor.setNonblocking() }
    var result: Relay.End?
    _ = try Relay(loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed) {
      result = $1
      loop.stop()
    }
    try body(loop, near, peer)
    let limit = TimerSource { loop.stop() }
    loop.schedule(after: .seconds(5), limit)
    try withExtendedLifetime(peer) { try loop.run() }
    return (result, near)
  }

  func send(_ socket: FileReference, _ bytes: [UInt8]) { _ = bytes.withUnsafeBytes { sendBytes(socket.rawValue, $0) } }

  /// A host that is killed, or lies about the end, must not look like the end of the data.
  @Test func aLostTransportIsNotAnEnd() throws {
    let (end, _) = try oneRelay { _, _, peer in
      send(peer, [0, 0, 0, 2, 1, 2])
      shutdownBoth(peer.rawValue)
    }
    #expect(end == .transportLost)
  }

  @Test func aResetIsCarried() throws {
    let (end, _) = try oneRelay { _, _, peer in send(peer, Frame.reset(.timedOut)) }
    #expect(end == .reset(.timedOut))
  }

  /// What a telnet client sends to interrupt, at its place, also behind more than the sockets take at once.
  @Test(arguments: [0, 3, 300_000, 20_000_000])
  func anUrgentByteKeepsItsPlace(_ before: Int) throws {
    let loop = try EventLoop()
    func connection() throws -> (FileReference, FileReference) {
      let listener = FileReference(try listenStream(.ip(IPEndpoint(.v4(.loopback), 0))))
      let client = FileReference(try makeSocket(AF_INET, .stream))
      _ = try connectStream(client.rawValue, .ip(try #require(localEndpoint(listener.rawValue))))
      let server = try #require(try acceptStream(listener.rawValue)).descriptor
      for socket in [client, server] { try socket.descriptor.setNonblocking() }
      return (client, server)
    }
    let (near, a) = try connection()
    let (b, c) = try makeSocketPair()
    for socket in [b, c] { try socket.descriptor.setNonblocking() }
    let (d, far) = try connection()
    let buffer = RelayBuffer()
    let relays = [
      try Relay(loop: loop, buffer: buffer, plain: a, framed: b) { _, _ in loop.stop() },
      try Relay(loop: loop, buffer: buffer, plain: d, framed: c) { _, _ in },
    ]
    var sent = 0
    var got = 0
    var place: Int?
    var ticks = 0
    var room = [UInt8](repeating: 0, count: 1 << 16)
    let timer = Ticking(loop) {
      while sent < before {
        let count = min(room.count, before - sent)
        guard case .bytes(let some) = room.withUnsafeBytes({ sendBytes(near.rawValue, .init(rebasing: $0[..<count])) })
        else { break }
        sent += some
      }
      if sent == before {
        guard case .bytes = sendUrgent(near.rawValue, 0x21) else { return }
        self.send(near, [1, 2, 3])
        sent += 1
      }
      // Nobody reads at first, so that the sockets on the way fill.
      ticks += 1
      if sent < before, ticks < 50 { return }
      for _ in 0..<64 {
        if receiveUrgent(far.rawValue) == 0x21 { place = got }
        guard case .bytes(let count) = room.withUnsafeMutableBytes({ readBytes(far.rawValue, $0) }) else { break }
        got += count
      }
      if got == before + 3 { loop.stop() }
    }
    try withExtendedLifetime((relays, timer)) { try loop.run() }
    #expect(place == before)
    #expect(relays[0].totals.toTransport == UInt64(before + 4))
  }

  /// An early answer, and the reset behind it, that come at once: a client that is about to write goes on to read.
  @Test func aResetIsNotAtTheHeelsOfData() throws {
    let loop = try EventLoop()
    let listener = FileReference(try listenStream(.ip(IPEndpoint(.v4(.loopback), 0))))
    let client = FileReference(try makeSocket(AF_INET, .stream))
    _ = try connectStream(client.rawValue, .ip(try #require(localEndpoint(listener.rawValue))))
    let plain = try #require(try acceptStream(listener.rawValue)).descriptor
    let (framed, peer) = try makeSocketPair()
    for socket in [plain, framed, peer] { try socket.descriptor.setNonblocking() }
    var ends: [Relay.End] = []
    let relay = try Relay(loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed) {
      ends.append($1)
      loop.stop()
    }
    let start = monotonicNanoseconds()
    send(peer, [0, 0, 0, 3] + [1, 2, 3] + Frame.reset(.reset))
    try withExtendedLifetime(relay) { try loop.run() }
    #expect(monotonicNanoseconds() &- start > 3_000_000)
    #expect(ends == [.reset(.reset)] && relay.totals.fromTransport == 3)
  }

  /// A reset waits for what was sent before it, but not for a reader who never reads.
  @Test func aResetDoesNotWaitForEver() throws {
    let loop = try EventLoop()
    let (near, plain) = try makeSocketPair()
    let (framed, peer) = try makeSocketPair()
    for socket in [near, plain, framed, peer] { try socket.descriptor.setNonblocking() }
    var result: Relay.End?
    _ = try Relay(loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed, patience: .milliseconds(200)) {
      result = $1
      loop.stop()
    }
    let frames = Array(repeatElement([0, 0, 0x40, 0] + [UInt8](repeating: 1, count: 0x4000), count: 256).joined())
    var sent = 0
    let fill = TimerSource {
      while sent < frames.count,
        case .bytes(let count) = frames[sent...].withUnsafeBytes({ sendBytes(peer.rawValue, $0) })
      {
        sent += count
      }
    }
    for delay in 0..<20 { loop.schedule(after: .milliseconds(delay), fill) }
    // The other side gives up, in the middle of a frame or not.
    let close = TimerSource { shutdownBoth(peer.rawValue) }
    loop.schedule(after: .milliseconds(100), close)
    let limit = TimerSource { loop.stop() }
    loop.schedule(after: .seconds(20), limit)
    try withExtendedLifetime((near, peer, fill, close)) { try loop.run() }
    #expect(sent > 0 && sent < frames.count)
    #expect(result == .transportLost)
  }

  /// An end in order does wait, however long the reader takes, also when the other side has closed long ago.
  @Test func anEndInOrderWaitsForItsReader() throws {
    let loop = try EventLoop()
    let (near, plain) = try makeSocketPair()
    let (framed, peer) = try makeSocketPair()
    for socket in [near, plain, framed, peer] { try socket.descriptor.setNonblocking() }
    var result: Relay.End?
    _ = try Relay(loop: loop, buffer: RelayBuffer(), plain: plain, framed: framed, patience: .milliseconds(50)) {
      result = $1
      loop.stop()
    }
    shutdownSending(near.rawValue)
    let frame = [0, 0, 0x40, 0] + [UInt8](repeating: 1, count: 0x4000)
    var sent = 0
    // More than the plain socket takes, and less than it and the stream do.
    let fill = TimerSource {
      guard sent >= 0 else { return }
      if sent < 18, case .bytes(frame.count) = frame.withUnsafeBytes({ sendBytes(peer.rawValue, $0) }) { sent += 1 }
      guard sent == 18 else { return }
      self.send(peer, Frame.end)
      shutdownBoth(peer.rawValue)
      sent = -1
    }
    for delay in 0..<60 { loop.schedule(after: .milliseconds(delay * 2), fill) }
    var received = 0
    let read = TimerSource {
      #expect(result == nil)
      var bytes = [UInt8](repeating: 0, count: 1 << 20)
      for _ in 0..<1000 {
        if case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(near.rawValue, $0) }) { received += count }
      }
      loop.schedule(after: .milliseconds(1), TimerSource { loop.stop() })
    }
    loop.schedule(after: .milliseconds(600), read)
    try withExtendedLifetime((near, peer, fill, read)) { try loop.run() }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    while case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(near.rawValue, $0) }), count > 0 {
      received += count
    }
    #expect(sent == -1 && received == 18 * 0x4000 && result == .completed)
  }

  /// Where the transport's stream has no more room than the system gives it, the two halves of a download wait for each other at
  /// every turn. More of it is the kernel's memory, which those who only stall, or are many, shall not get.
  @Test func whatCarriesMuchGetsRoomAndNobodyElse() throws {
    let loop = try EventLoop()
    let buffer = RelayBuffer()
    var relays: [Relay] = []
    func room(of stream: FileReference) -> Int32 {
      var value: Int32 = 0
      var length = socklen_t(MemoryLayout<Int32>.size)
      getsockopt(stream.rawValue, SOL_SOCKET, SO_SNDBUF, &value, &length)
      return value
    }
    /// Sends as much through a relay as comes through, to a reader who takes `taken` bytes and then none.
    func stream(reading taken: Int) throws -> FileReference {
      let (near, plain) = try makeSocketPair()
      let (framed, peer) = try makeSocketPair()
      for socket in [near, plain, framed, peer] { try socket.descriptor.setNonblocking() }
      relays.append(try Relay(loop: loop, buffer: buffer, plain: plain, framed: framed) { _, _ in })
      var bytes = [UInt8](repeating: 0, count: 1 << 18)
      var read = 0
      var idle = 0
      var again: TimerSource?
      let step = TimerSource {
        var moved = false
        while case .bytes(let count) = bytes.withUnsafeBytes({ sendBytes(near.rawValue, $0) }), count > 0 {
          moved = true
        }
        while read < taken,
          case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(peer.rawValue, $0) }), count > 0
        {
          (read, moved) = (read + count, true)
        }
        idle = moved ? 0 : idle + 1
        if idle < 5, let again { loop.schedule(after: .zero, again) } else { loop.stop() }
      }
      again = step
      loop.schedule(after: .zero, step)
      try withExtendedLifetime((near, peer)) { try loop.run() }
      kept += [near, peer]
      return framed
    }
    var kept: [FileReference] = []
    let stalled = try stream(reading: 0)
    let system = room(of: stalled)
    let busy = try (0..<65).map { _ in try stream(reading: 4 << 20) }
    #expect(system == room(of: kept[0]))
    #expect(busy.prefix(64).allSatisfy { room(of: $0) > system })
    #expect(room(of: busy[64]) == system)
    // What one gives back, another gets.
    relays[1].abort()
    #expect(room(of: try stream(reading: 4 << 20)) > system)
  }

  /// A server that refuses an upload says why and closes: the client must see the answer, and then the reset.
  @Test func anAnswerBeforeAResetArrives() throws {
    var far: FileReference?
    var timers: [TimerSource] = []
    let (end, _) = try oneRelay { loop, near, peer in
      far = peer
      // More than the server's socket takes, so that the relay waits to write when it closes.
      var upload = Array(repeatElement([0, 0, 0x40, 0] + [UInt8](repeating: 1, count: 0x4000), count: 256).joined())
      func fill() {
        while case .bytes(let count) = upload.withUnsafeBytes({ sendBytes(peer.rawValue, $0) }), count > 0 {
          upload.removeFirst(count)
        }
      }
      timers = [
        TimerSource { fill() }, TimerSource { fill() },
        TimerSource {
          send(near, Array("413".utf8))
          shutdownBoth(near.rawValue)
        },
      ]
      for (index, timer) in timers.enumerated() { loop.schedule(after: .milliseconds(30 * index), timer) }
    }
    #expect(timers.count == 3)
    guard case .reset? = end else {
      Issue.record("\(String(describing: end))")
      return
    }
    var bytes = [UInt8](repeating: 0, count: 100)
    guard let far, case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(far.rawValue, $0) }) else {
      Issue.record("the other side got nothing")
      return
    }
    #expect(Array(bytes[..<7]) == [0, 0, 0, 3] + Array("413".utf8))
    #expect(count == 12 && bytes[7] == Frame.reset(.timedOut)[0])
  }

  /// A stream that says reset and closes while data is on its way to it was not lost.
  @Test func aResetIsCarriedAgainstTheStream() throws {
    let (end, _) = try oneRelay { _, near, peer in
      send(near, [UInt8](repeating: 1, count: 100_000))
      send(peer, Frame.reset(.timedOut))
      shutdownBoth(peer.rawValue)
    }
    #expect(end == .reset(.timedOut))
  }

  @Test func garbageEndsTheRelayAlone() throws {
    let (end, _) = try oneRelay { _, _, peer in send(peer, Array("HTTP/1.1 200 OK".utf8)) }
    #expect(end == .protocolError(.unknownFrame(0x48)))
  }

  /// Everything that came before the end is delivered, then the end.
  @Test func dataBeforeTheEndArrives() throws {
    let (end, near) = try oneRelay { _, near, peer in
      send(peer, [0, 0, 0, 3, 7, 8, 9] + Frame.end)
      shutdownSending(near.rawValue)
    }
    #expect(end == .completed)
    var bytes = [UInt8](repeating: 0, count: 10)
    #expect(bytes.withUnsafeMutableBytes { readBytes(near.rawValue, $0) } == .bytes(3))
    #expect(bytes[..<3] == [7, 8, 9])
  }
}

/// Does the same every millisecond.
private final class Ticking: EventSource {
  private let loop: EventLoop
  private let work: () -> Void

  init(_ loop: EventLoop, _ work: @escaping () -> Void) {
    self.loop = loop
    self.work = work
    super.init()
    loop.schedule(after: .milliseconds(1), self)
  }

  override func timerFired(_ key: Int) {
    work()
    loop.schedule(after: .milliseconds(1), self)
  }
}
