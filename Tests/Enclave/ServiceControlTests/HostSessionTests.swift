import CLinux
import EventLoop
import LinuxSystem
import Relaying
import ServiceControl
import Testing
import Wire

/// A host that sends PID 1 whatever it likes over a real socket: a session of its own ends, and nothing else happens.
@Suite(.serialized) struct HostSessionTests {
  /// The host's end: takes sessions, sends each `hostile` bytes, counts what comes.
  private final class HostileHost: EventSource {
    let loop: EventLoop
    var listener: Listener?
    var held: [FileReference] = []
    var sessions = 0
    var send: () -> [UInt8]
    let limit: Int
    /// Reads nothing of what it is answered.
    init(_ loop: EventLoop, _ path: String, limit: Int, send: @escaping () -> [UInt8]) throws {
      self.loop = loop
      self.limit = limit
      self.send = send
      super.init()
      listener = try Listener(loop: loop, socket: FileReference(try listenStream(.unix(path)))) {
        Issue.record("\($0)")
      } accepted: { [unowned self] stream, _ in
        _ = try? StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
          guard case .hello(let stream, let hello, _) = outcome, hello.channel == .session else { return }
          answer(stream, Answer(.ok))
          begin(stream)
        }
      }
    }

    func begin(_ stream: FileReference) {
      sessions += 1
      held.append(stream)
      if held.count > 4 { held.removeFirst() }
      let bytes = send()
      _ = bytes.withUnsafeBytes { sendBytes(stream.rawValue, $0) }
      if sessions >= limit { loop.stop() }
    }
  }

  private func resident() -> Int {
    let text = (try? readText("/proc/self/statm")) ?? ""
    return (Int(text.split(separator: " ").dropFirst().first ?? "") ?? 0) * 4096
  }

  private func world(
    limit: Int, send: @escaping () -> [UInt8], _ body: (EventLoop, HostSession, HostileHost) throws -> Void
  ) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-session-")
    defer { removeTree(directory) }
    let loop = try EventLoop()
    let path = directory + "/host"
    let host = try HostileHost(loop, path, limit: limit, send: send)
    let (ours, theirs) = try makeSocketPair()
    for socket in [ours, theirs] { try socket.descriptor.setNonblocking() }
    let session = try HostSession(
      loop: loop, target: StreamTarget(.unix(path)), hello: Hello(.session), stream: ours, early: []
    ) { _ in }
    session.counters = {
      EnclaveCounters(
        id: $0, logBytesWaiting: 0, logRecordsDropped: 0, logBytesDropped: 0, proxyRestarts: 0, uptime: 0)
    }
    host.begin(theirs)
    let overdue = TimerSource { loop.stop() }
    loop.schedule(after: .seconds(60), overdue)
    try body(loop, session, host)
  }

  /// Each kind of bad message ends its session; PID 1 opens the next one, and says again how everything stands.
  @Test func badMessagesEndTheirSessionOnly() throws {
    let bad: [[UInt8]] = [
      [0x10, 1, 0, 0], [0x10, 0, 0, 1, 0], [0x11, 0, 0, 1, 0], [0x11, 0, 0, 1, 65], [0x12, 0, 0, 3, 0, 0, 0],
      [0x01, 0, 0, 1, 0], [0xff, 0xff, 0xff, 0xff], Array("GET / HTTP/1.1\r\n\r\n".utf8),
    ]
    var next = 0
    var orders: [HostOrder] = []
    try world(limit: bad.count + 1) {
      defer { next += 1 }
      return (next < bad.count ? [0x11, 0, 0, 1, UInt8(next + 1)] + bad[next] : HostOrder.stop.encoded())
    } _: { loop, session, host in
      session.ordered = { orders.append($0) }
      session.report("proxy", .ready)
      try loop.run()
      let settle = TimerSource { loop.stop() }
      loop.schedule(after: .milliseconds(50), settle)
      try loop.run()
      #expect(host.sessions == bad.count + 1)
      // What came before the fault was carried out, in order.
      #expect(orders == (1...bad.count).map { .signal(UInt8($0)) } + [.stop])
      let last = try #require(host.held.last)
      var bytes = [UInt8](repeating: 0, count: 100)
      let count = bytes.withUnsafeMutableBytes { readBytes(last.rawValue, $0) }
      #expect(
        count == .bytes(10) && Array(bytes[..<10]) == EnclaveReport.service(name: "proxy", state: .ready).encoded())
    }
  }

  /// A host that asks without end and reads no answer gets no memory of PID 1.
  @Test func questionsWithoutAReader() throws {
    try world(limit: 2) {
      []
    } _: { loop, session, host in
      let stream = try #require(host.held.first)
      let questions = (0..<UInt32(1000)).flatMap { HostOrder.count($0).encoded() }
      var sent = 0
      let before = resident()
      let flood = TimerSource {}
      var again: TimerSource?
      again = TimerSource {
        while case .bytes(let count) = questions.withUnsafeBytes({ sendBytes(stream.rawValue, $0) }), count > 0 {
          sent += count
          if sent > 64 << 20 { break }
        }
        if let again { loop.schedule(after: .milliseconds(1), again) }
      }
      if let again { loop.schedule(after: .zero, again) }
      let stop = TimerSource { loop.stop() }
      loop.schedule(after: .seconds(2), stop)
      try withExtendedLifetime((flood, session)) { try loop.run() }
      again = nil
      // The socket's buffers are full, and nothing is read any more.
      #expect(sent > 1000 && sent < 32 << 20, "\(sent) bytes")
      #expect(resident() - before < 8 << 20, "\(resident() - before) bytes more")
    }
  }
}
