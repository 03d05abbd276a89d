import CLinux
import EventLoop
import Inet
import LinuxSystem
import Testing
import Wire

@testable import Relaying

extension SplitMix {
  mutating func one(in n: Int) -> Bool { Int.random(in: 0..<n, using: &self) == 0 }
  mutating func size(_ limits: [Int]) -> Int {
    Int.random(in: 1...limits[Int.random(in: 0..<limits.count, using: &self)], using: &self)
  }
}

/// A program at one end of a connection, and what must be true of it.
private final class Party {
  /// Byte n of every stream is byte n % 65536 of this.
  static let pattern = (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: ($0 & 0xffff) &* 2_654_435_761 >> 13) }

  var socket: FileReference?
  var sent = 0
  /// What was not with the other side's kernel when this one reset the connection, and may be lost.
  var unsure = 0
  var received = 0
  var isCorrupt = false
  var hasEnded = false
  /// By closing with a linger of 0, or with unread data.
  var hasReset = false
  var sawEnd = false
  var sawError: Int32 = 0

  init(_ socket: FileReference) { self.socket = socket }

  var isDone: Bool { socket == nil || sawError != 0 }

  func write(_ count: Int) {
    guard let socket, !hasEnded, sawError == 0 else { return }
    let start = sent & 0xffff
    switch Self.pattern.withUnsafeBytes({ sendBytes(socket.rawValue, .init(rebasing: $0[start..<(start + count)])) }) {
    case .bytes(let count): sent += count
    case .wouldBlock: break
    case .failed(let code): sawError = code
    }
  }

  func read(_ count: Int, into buffer: UnsafeMutableRawBufferPointer) {
    guard let socket, !sawEnd else { return }
    switch readBytes(socket.rawValue, UnsafeMutableRawBufferPointer(rebasing: buffer[..<count])) {
    case .bytes(0): sawEnd = true
    case .bytes(let count):
      let start = received & 0xffff
      let same = Self.pattern.withUnsafeBytes {
        memcmp(buffer.baseAddress!, $0.baseAddress! + start, count) == 0
      }
      if !same { isCorrupt = true }
      received += count
    case .wouldBlock: break
    case .failed(let code):
      sawError = code
      sawEnd = true
    }
  }

  func end() {
    guard let socket, !hasEnded, sawError == 0 else { return }
    hasEnded = true
    shutdownSending(socket.rawValue)
  }

  func reset() {
    guard let socket, sawError == 0 else { return }
    hasReset = true
    setResetOnClose(socket.rawValue, true)
    unsure = unacknowledgedBytes(socket.rawValue)
    self.socket = nil
  }
}

/// Two relays between two programs, as in an enclave and its host, over real sockets: TCP for the plain ones.
private final class Schedule: EventSource {
  let loop: EventLoop
  let near: Party
  let far: Party
  var relays: [Relay] = []
  var ends: [Relay.End] = []
  var dice: SplitMix
  var steps: Int
  let start = monotonicNanoseconds()
  let memory: UnsafeMutableRawBufferPointer
  let resets: Bool
  let expectedEnds: Int

  init(
    _ loop: EventLoop, _ buffer: RelayBuffer, _ listener: FileReference, _ memory: UnsafeMutableRawBufferPointer,
    seed: UInt64,
    framed: Bool = true
  ) throws {
    self.loop = loop
    self.memory = memory
    dice = SplitMix(seed: seed)
    steps = dice.size([5, 40])
    resets = !dice.one(in: 4)
    let (a, b) = try Self.connection(listener, &dice)
    let (c, d) = try Self.connection(listener, &dice)
    expectedEnds = framed ? 2 : 1
    near = Party(a)
    far = Party(d)
    super.init()
    let ended: (Relay, Relay.End) -> Void = { [unowned self] in ends.append($1) }
    guard framed else {
      relays = [try Relay(loop: loop, buffer: buffer, plain: b, other: c, patience: .seconds(30), onEnd: ended)]
      return
    }
    let (e, f) = try makeSocketPair()
    for socket in [e, f] {
      try socket.descriptor.setNonblocking()
      if dice.one(in: 2) {
        _ = clinux_set_option(socket.rawValue, SOL_SOCKET, SO_SNDBUF, Int32(dice.size([5000, 50000])))
      }
    }
    for (plain, framed) in [(b, e), (c, f)] {
      relays.append(
        try Relay(loop: loop, buffer: buffer, plain: plain, framed: framed, patience: .seconds(30), onEnd: ended))
    }
  }

  static func connection(_ listener: FileReference, _ dice: inout SplitMix) throws -> (FileReference, FileReference) {
    let client = FileReference(try makeSocket(AF_INET, .stream))
    // Segments that are small beside the buffers: else TCP waits for its timers, and the test with it.
    _ = clinux_set_option(client.rawValue, Int32(IPPROTO_TCP), TCP_MAXSEG, 1000)
    if dice.one(in: 2) { _ = clinux_set_option(client.rawValue, SOL_SOCKET, SO_RCVBUF, 20_000) }
    if dice.one(in: 2) { _ = clinux_set_option(client.rawValue, SOL_SOCKET, SO_SNDBUF, 20_000) }
    _ = try connectStream(client.rawValue, .ip(try #require(localEndpoint(listener.rawValue))))
    let server = try #require(try acceptStream(listener.rawValue)).descriptor
    if dice.one(in: 2) { _ = clinux_set_option(server.rawValue, SOL_SOCKET, SO_SNDBUF, 20_000) }
    return dice.one(in: 2) ? (client, server) : (server, client)
  }

  override func resume() {
    // TCP's own timers are waited for, a hang is not.
    if ends.count == expectedEnds || monotonicNanoseconds() &- start > 20_000_000_000 { return loop.stop() }
    loop.enqueue(self)
    for _ in 0..<Int.random(in: 0...2, using: &dice) { step() }
  }

  func step() {
    let one = dice.one(in: 2) ? near : far
    guard steps > 0 else {
      // To the end: everybody reads what there is, and says that it has no more.
      one.read(memory.count, into: memory)
      one.end()
      return
    }
    steps -= 1
    switch Int.random(in: 0..<100, using: &dice) {
    case ..<40: one.write(dice.size([3, 3000, 90_000, 900_000]))
    case ..<75: one.read(dice.size([3, 3000, memory.count]), into: memory)
    case ..<82: one.end()
    case ..<88: if resets { one.reset() }
    // An edge too many is no news.
    case ..<94:
      for relay in relays where !relay.ended {
        relay.ready([.readable, .writable], tag: Int.random(in: 0...1, using: &dice))
      }
    default: break
    }
  }

  func run() throws {
    loop.enqueue(self)
    try loop.run()
    relays = []
    loop.clear()
    for party in [near, far] {
      for _ in 0..<1000 where !party.sawEnd { party.read(memory.count, into: memory) }
      if let socket = party.socket, party.sawError == 0 { party.sawError = socketError(socket.rawValue) }
    }
  }

  /// What the model says is wrong; empty where all is right.
  var problems: [String] {
    var found: [String] = []
    if ends.count != expectedEnds { found.append("ends \(ends)") }
    let reset = near.hasReset || far.hasReset
    // Where both have ended too there may be nobody left to reset: it was on its way when the last end arrived.
    let late = near.hasEnded && far.hasEnded
    for end in ends {
      switch end {
      case .completed: if reset, !late { found.append("completed in spite of a reset") }
      case .reset: if !reset { found.append("reset without a reason") }
      default: found.append("\(end)")
      }
    }
    for (name, from, to) in [("near to far", near, far), ("far to near", far, near)] {
      if to.isCorrupt { found.append("\(name): other bytes than were sent") }
      if to.received > from.sent { found.append("\(name): \(to.received) of \(from.sent) bytes") }
      guard !to.hasReset else { continue }
      if to.received < from.sent - from.unsure {
        found.append("\(name): \(to.received) bytes of \(from.sent), of which \(from.unsure) unsure")
      }
      if !to.sawEnd { found.append("\(name): no end") }
      if from.hasReset, !late, to.sawError == 0 { found.append("\(name): no reset") }
      if !from.hasReset, to.sawError != 0 { found.append("\(name): errno \(to.sawError) without a reset") }
    }
    return found
  }
}

@Suite(.serialized) struct ScheduleTests {
  /// Whatever happens in whatever order: all that was sent before an end or a reset arrives, and then the end or the reset.
  @Test(arguments: 0..<10) func everythingBeforeAnEndOrAResetArrives(part: Int) throws {
    let loop = try EventLoop()
    let buffer = RelayBuffer()
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 300_000, alignment: 16)
    defer { memory.deallocate() }
    ignoreBrokenPipes()
    let listener = FileReference(try listenStream(.ip(IPEndpoint(.v4(.loopback), 0))))
    for seed in UInt64(part * 1000)..<UInt64(part * 1000 + 1000) {
      let schedule = try Schedule(loop, buffer, listener, memory, seed: seed, framed: seed % 5 != 0)
      try schedule.run()
      let problems = schedule.problems
      #expect(problems.isEmpty, "seed \(seed): \(problems)")
    }
  }
}
