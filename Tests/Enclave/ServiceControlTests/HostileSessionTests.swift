import CLinux
import EventLoop
import Foundation
import LinuxSystem
import Relaying
import ServiceControl
import Synchronization
import Testing
import Wire

/// One session as the hostile host holds it. Whatever it writes, it also reads: else PID 1 would stop reading, which
/// `HostSessionTests.questionsWithoutAReader` is about.
private struct HostEnd {
  let socket: FileReference
  private var input = [UInt8](repeating: 0, count: 1 << 16)
  /// Bytes that PID 1 has sent.
  private(set) var heard = 0
  /// PID 1 has ended the session.
  private(set) var hasEnded = false

  init(_ socket: FileReference) throws {
    self.socket = socket
    try socket.descriptor.setNonblocking()
  }

  /// - Returns: false where the session has ended before all was written.
  @discardableResult mutating func write(_ bytes: [UInt8]) -> Bool {
    var offset = 0
    while offset < bytes.count, !hasEnded {
      waitFor(POLLIN | POLLOUT)
      if case .bytes(let count) = bytes[offset...].withUnsafeBytes({ sendBytes(socket.rawValue, $0) }) {
        offset += count
      }
      listen()
    }
    return offset == bytes.count
  }

  /// - Returns: whether PID 1 has ended the session.
  mutating func waitForEnd() -> Bool {
    let limit = monotonicNanoseconds() + 20_000_000_000
    while !hasEnded, monotonicNanoseconds() < limit {
      waitFor(POLLIN)
      listen()
    }
    return hasEnded
  }

  private func waitFor(_ events: Int32) {
    var entry = pollfd(fd: socket.rawValue, events: Int16(events), revents: 0)
    _ = poll(&entry, 1, 1000)
  }

  private mutating func listen() {
    while true {
      switch input.withUnsafeMutableBytes({ readBytes(socket.rawValue, $0) }) {
      case .bytes(let count) where count > 0: heard += count
      case .wouldBlock: return
      default:
        hasEnded = true
        return
      }
    }
  }
}

/// A host in a thread of its own that gives each session of PID 1's what the test wants.
private final class HostileHost: Sendable {
  private let listener: FileReference
  private let problems = Mutex<[String]>([])
  private let played = Atomic(0)
  private let isDone = Atomic(false)
  var sessions: Int { played.load(ordering: .acquiring) }
  var complaints: [String] { problems.withLock { $0 } }
  var hasEnded: Bool { isDone.load(ordering: .acquiring) }

  /// - Parameter play: gets the session's number; false ends the host with that session.
  init(_ path: String, play: @escaping @Sendable (Int, inout HostEnd) throws -> Bool) throws {
    listener = FileReference(try listenStream(.unix(path)))
    try listener.descriptor.setNonblocking(false)
    try startThread { [self] in
      do {
        while try one(play) {}
      } catch {
        problems.withLock { $0.append("\(error)") }
      }
      isDone.store(true, ordering: .releasing)
    }
  }

  private func one(_ play: (Int, inout HostEnd) throws -> Bool) throws -> Bool {
    var entry = pollfd(fd: listener.rawValue, events: Int16(POLLIN), revents: 0)
    guard poll(&entry, 1, 20_000) == 1, let stream = try acceptStream(listener.rawValue)?.descriptor else {
      problems.withLock { $0.append("PID 1 opened no session behind the \(sessions)th") }
      return false
    }
    try stream.descriptor.setNonblocking(false)
    var bytes = [UInt8](repeating: 0, count: 1024)
    guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }),
      let (hello, length) = try Hello.decode(Array(bytes[..<count])), length == count, hello.channel == .session
    else {
      problems.withLock { $0.append("no session's hello") }
      return false
    }
    answer(stream, Answer(.ok))
    var end = try HostEnd(stream)
    let goesOn = try play(sessions, &end)
    if !end.waitForEnd() {
      problems.withLock { $0.append("session \(sessions) was not ended") }
      return false
    }
    played.add(1, ordering: .releasing)
    return goesOn
  }
}

/// A host that means harm, against all of PID 1's session over real sockets: each of its sessions may end, and nothing else.
@Suite(.serialized) struct HostileSessionTests {
  private func resident() -> Int {
    let text = (try? readText("/proc/self/statm")) ?? ""
    return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * 4096
  }

  /// - Parameter ordered: what PID 1 would carry out.
  /// - Returns: how much memory the process had more at the most, in bytes, once the first session stood.
  private func run(
    _ play: @escaping @Sendable (Int, inout HostEnd) throws -> Bool, ordered: @escaping (HostOrder) -> Void
  ) throws -> (sessions: Int, growth: Int) {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-hostile-")
    defer { removeTree(directory) }
    let loop = try EventLoop()
    let host = try HostileHost(directory + "/host", play: play)
    // The first one is lost at once: every other one is opened by the product itself.
    let (ours, theirs) = try makeSocketPair()
    for socket in [ours, theirs] { try socket.descriptor.setNonblocking() }
    shutdownBoth(theirs.rawValue)
    let session = try HostSession(
      loop: loop, target: StreamTarget(.unix(directory + "/host")), hello: Hello(.session), stream: ours, early: []
    ) { _ in }
    session.ordered = ordered
    session.counters = {
      EnclaveCounters(
        id: $0, logBytesWaiting: 0, logRecordsDropped: 0, logBytesDropped: 0, proxyRestarts: 0, uptime: 0)
    }
    session.report("proxy", .ready)
    var before: Int?
    var most = 0
    var look: TimerSource?
    look = TimerSource {
      if host.hasEnded { return loop.stop() }
      if before == nil, host.sessions > 0 { before = resident() }
      if let before { most = max(most, resident() - before) }
      if let look { loop.schedule(after: .milliseconds(5), look) }
    }
    if let look { loop.schedule(after: .zero, look) }
    try withExtendedLifetime((session, theirs)) { try loop.run() }
    look = nil
    loop.clear()
    #expect(host.complaints == [], "\(host.complaints)")
    return (host.sessions, most)
  }

  /// Every order that there is, cut at every byte, with every length but its own, with its bytes in another order, longer than
  /// any message may be, behind other messages and in pieces: the session ends, what was in order before it was carried out,
  /// and PID 1 comes back.
  @Test func everyMessageThatIsWrong() throws {
    let orders: [HostOrder] = [.stop, .signal(15), .count(7)]
    var wrong: [(bytes: [UInt8], isCut: Bool)] = []
    for message in orders.map({ $0.encoded() }) {
      // Cut: the stream ends inside.
      for length in 1..<message.count { wrong.append((Array(message[..<length]), true)) }
      // A length that is not its own, the payload as long as it says; oversized from 257 on.
      for length in [0, 1, 2, 3, 4, 5, 255, 256, 257, 4096, 65535] where length != message.count - 4 {
        let payload = Array((message[4...] + Array(repeating: 0, count: length)).prefix(length))
        wrong.append((message[..<2] + [UInt8(length >> 8), UInt8(length & 0xff)] + payload, false))
      }
      // Reordered, and nothing that would be a message again.
      for turn in 1..<message.count where message[turn] != message[0] {
        wrong.append((message[turn...] + message[..<turn] + Array(repeating: 0xff, count: 300), false))
      }
      wrong.append((message.reversed() + Array(repeating: 0xff, count: 300), false))
      // The reserved byte.
      for bit in 0..<8 { wrong.append((message[..<1] + [UInt8(1 << bit)] + message[2...], false)) }
    }
    // Types that are no orders, among them all reports of PID 1's own.
    for type in [0, 1, 2, 3, 4, 15, 19, 32, 127, 128, 255] as [UInt8] { wrong.append(([type, 0, 0, 0], false)) }
    for number in [0, 65, 128, 255] as [UInt8] { wrong.append(([17, 0, 0, 1, number], false)) }
    wrong.append((Answer(.ok).encoded(), false))
    wrong.append((Hello(.session).encoded(), false))
    let cases = wrong.map { $0 }

    nonisolated(unsafe) var carriedOut: [HostOrder] = []
    // A session of its own for each: the first fault of a session would hide the others.
    let (sessions, growth) = try run { number, end in
      let (bytes, isCut) = cases[number]
      let good = HostOrder.signal(UInt8(1 + number % 64)).encoded()
      if number % 2 == 0 {
        end.write(good + bytes)
      } else {
        for byte in good + bytes where end.write([byte]) == false { break }
      }
      if isCut { shutdownSending(end.socket.rawValue) }
      return number + 1 < cases.count
    } ordered: {
      carriedOut.append($0)
    }
    #expect(sessions == cases.count)
    #expect(carriedOut == (0..<cases.count).map { .signal(UInt8(1 + $0 % 64)) })
    #expect(growth < 8 << 20, "\(growth) bytes more")
  }

  /// Ten million random messages, many of them in each session and a wrong one at its end: what was in order is carried out,
  /// all of it and in that order, and PID 1 has no more memory at the end than at the beginning.
  @Test func tenMillionRandomMessages() throws {
    let perSession = 200_000
    let count = 50
    let host = Tally()
    nonisolated(unsafe) var carriedOut: UInt64 = 0
    nonisolated(unsafe) var questions = 0
    var orders = 0
    let (sessions, growth) = try run { number, end in
      var random = SystemRandomNumberGenerator()
      var digest = host.digest.load(ordering: .relaxed)
      var left = perSession
      var block: [UInt8] = []
      while left > 0 {
        block.removeAll(keepingCapacity: true)
        for _ in 0..<min(left, 5000) {
          let word = random.next()
          switch word & 31 {
          case 0: block += HostOrder.count(UInt32(truncatingIfNeeded: word >> 32)).encoded()
          case 1:
            block += [16, 0, 0, 0]
            digest = mix(digest, 100)
          default:
            let signal = UInt8(1 + word >> 40 & 63)
            block += [17, 0, 0, 1, signal]
            digest = mix(digest, UInt64(signal))
          }
        }
        left -= min(left, 5000)
        guard end.write(block) else { return false }
      }
      host.digest.store(digest, ordering: .relaxed)
      // And then anything: at the latest a byte that no message has where it stands.
      end.write((0..<Int.random(in: 0..<40)).flatMap { _ in [0xff, UInt8.random(in: 1...255)] } + [0, 1, 0, 0])
      _ = end.waitForEnd()
      host.heard.add(end.heard, ordering: .relaxed)
      return number + 1 < count
    } ordered: {
      orders += 1
      switch $0 {
      case .stop: carriedOut = mix(carriedOut, 100)
      case .signal(let number): carriedOut = mix(carriedOut, UInt64(number))
      case .count: questions += 1
      }
    }
    #expect(sessions == count)
    #expect(carriedOut == host.digest.load(ordering: .relaxed), "not the orders that were sent, or not in that order")
    #expect(orders > 9_600_000 && orders < 9_800_000 && questions == 0, "\(orders) orders, \(questions) questions")
    // The answers to some 300,000 questions, of 48 bytes each.
    #expect(host.heard.load(ordering: .relaxed) > 10_000_000)
    #expect(growth < 8 << 20, "\(growth) bytes more")
  }
}

/// What the host has sent, in order, and how many bytes it has been told.
private final class Tally: Sendable {
  let digest = Atomic<UInt64>(0)
  let heard = Atomic(0)
}

/// FNV-1a over words: what depends on each of them and on their order.
private func mix(_ digest: UInt64, _ word: UInt64) -> UInt64 { (digest ^ word) &* 0x100_0000_01b3 &+ 1 }
