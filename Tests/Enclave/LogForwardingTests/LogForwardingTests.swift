import EventLoop
import LinuxSystem
import LogForwarding
import Relaying
import Synchronization
import Testing
import Wire

import class Foundation.Thread

func decode(_ buffer: inout LogBuffer) -> [LogRecord] {
  var decoder = LogRecordDecoder()
  while let bytes = buffer.next() { decoder.append(bytes) }
  var records: [LogRecord] = []
  while let record = try? decoder.next() { records.append(record) }
  return records
}

struct LogBufferTests {
  func fill(_ buffer: inout LogBuffer, _ lines: Range<Int>, size: Int = 100) {
    for line in lines {
      let text = Array("\(line)".utf8)
      buffer.append(
        time: 0, source: .programOutput,
        body: .output(text + [UInt8](repeating: 0x2e, count: size - text.count)))
    }
  }

  func line(_ record: LogRecord) -> Int? {
    guard case .output(let bytes) = record.body else { return nil }
    return Int(String(decoding: bytes.prefix { $0 != 0x2e }, as: UTF8.self))
  }

  @Test func whatIsNotAcknowledgedIsSentAgain() {
    var buffer = LogBuffer(capacity: 65536)
    fill(&buffer, 0..<10)
    #expect(decode(&buffer).count == 10)
    buffer.acknowledge(4)
    buffer.rewind(after: 4)
    #expect(decode(&buffer).compactMap(line) == Array(4..<10))
    buffer.acknowledge(10)
    #expect(buffer.isEmpty && buffer.size == 0)
  }

  /// Lines that were dropped are counted: kept plus counted is everything, and the newest are kept.
  @Test func theOldestGoAndAreCounted() throws {
    var buffer = LogBuffer(capacity: 65536)
    fill(&buffer, 0..<5000)
    #expect(buffer.size <= 65536)
    let records = decode(&buffer)
    let kept = records.compactMap(line)
    guard case .gap(let count, let bytes)? = records.first?.body else {
      Issue.record("no gap record")
      return
    }
    #expect(records.dropFirst().allSatisfy { if case .gap = $0.body { false } else { true } })
    #expect(Int(count) + kept.count == 5000)
    #expect(bytes == count * 100)
    #expect(kept == Array(Int(count)..<5000))
    #expect(records.map(\.sequence) == records.map(\.sequence).sorted())
    #expect(buffer.droppedRecords == count)
  }

  @Test func theExitStatusIsKept() {
    var buffer = LogBuffer(capacity: 65536)
    fill(&buffer, 0..<3, size: 65000)
    buffer.append(time: 0, source: .initProcess, body: .exit(7))
    #expect(decode(&buffer).last?.body == .exit(7))
  }

  /// Any order of writing, sending, acknowledging and reconnecting: nothing twice in one stream, nothing uncounted.
  @Test func anyOrder() {
    for _ in 0..<300 {
      var buffer = LogBuffer(capacity: 65536)
      var written = 0
      var host: UInt64 = 0
      var accounted = 0
      func receive(_ bytes: [UInt8]) {
        var decoder = LogRecordDecoder()
        decoder.append(bytes)
        guard let record = try? decoder.next(), record.sequence > host else { return }
        switch record.body {
        // A gap can stand for records that the host has seen: its sequence tells how far it reaches.
        case .gap: accounted += Int(record.sequence - host)
        default: accounted += 1
        }
        host = record.sequence
      }
      for _ in 0..<200 {
        switch Int.random(in: 0...4) {
        case 0, 1:
          let count = Int.random(in: 1...100)
          fill(&buffer, written..<(written + count))
          written += count
        case 2: for _ in 0..<Int.random(in: 0...50) { if let bytes = buffer.next() { receive(bytes) } }
        case 3: buffer.acknowledge(host)
        default: buffer.rewind(after: host)
        }
      }
      while let bytes = buffer.next() { receive(bytes) }
      #expect(accounted == written && host == UInt64(written))
    }
  }
}

/// The host's end, played by the test over a real socket.
final class FakeHost: EventSource {
  let loop: EventLoop
  var listener: Listener?
  var stream: FileReference?
  var serving: StreamServing?
  var decoder = LogRecordDecoder()
  var registration: Registration?
  var last: UInt64 = 0
  var text: [UInt8] = []
  var gaps: UInt64 = 0
  var acknowledges = true
  /// How long a log stream waits for its answer.
  var answersAfter: Duration?
  var onRecord: () -> Void = {}

  init(_ loop: EventLoop, _ path: String) throws {
    self.loop = loop
    super.init()
    listener = try Listener(loop: loop, socket: FileReference(try listenStream(.unix(path)))) {
      Issue.record("\($0)")
    } accepted: { [unowned self] stream, _ in
      serving = try? StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
        guard case .hello(let stream, let hello, let early) = outcome, hello.channel == .logs else { return }
        self.stream = stream
        decoder = LogRecordDecoder()
        decoder.append(early)
        let accept = TimerSource { [unowned self] in
          var known: [UInt8] = []
          known.append(integer: last)
          answer(stream, Answer(.ok, parameters: known))
          registration = try? loop.add(stream.rawValue, [.readable], self)
        }
        if let answersAfter { loop.schedule(after: answersAfter, accept) } else { accept.timerFired(0) }
      }
    }
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard let stream else { return }
    var chunk = [UInt8](repeating: 0, count: 8192)
    guard case .bytes(let count) = chunk.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }), count > 0 else {
      return
    }
    decoder.append(chunk[..<count])
    while let record = try? decoder.next() {
      guard record.sequence > last else { continue }
      last = record.sequence
      if case .output(let bytes) = record.body { text += bytes }
      if case .gap(let records, _) = record.body { gaps += records }
      onRecord()
    }
    guard acknowledges, let stream = self.stream else { return }
    var ack: [UInt8] = []
    ack.append(integer: last)
    _ = ack.withUnsafeBytes { sendBytes(stream.rawValue, $0) }
  }

  /// As a host that is killed: what it has read and not processed is gone.
  func drop() {
    if let registration { loop.remove(registration) }
    registration = nil
    stream = nil
  }
}

@Suite(.serialized) struct LogForwarderTests {
  func withForwarder(
    capacity: Int = 65536, patience: Duration? = .seconds(1),
    _ body: (EventLoop, LogForwarder, String) throws -> Void
  ) throws {
    let directory = try makeTemporaryDirectory("/tmp/tombolo-test-")
    defer { removeTree(directory) }
    let loop = try EventLoop()
    let path = directory + "/host"
    let forwarder = LogForwarder(
      loop: loop, target: StreamTarget(.unix(path)), token: .none,
      settings: .init(capacity: capacity, patience: patience, drain: .seconds(5)))
    try body(loop, forwarder, path)
  }

  /// A hostile host keeps PID 1 busy with acknowledgements, which it would read for ever before it looked at a signal.
  @Test func acknowledgementsWithoutEndLetOthersHaveTheirTurn() throws {
    let isDone = Atomic<Bool>(false)
    let flooding = Atomic<Bool>(false)
    try withForwarder { loop, forwarder, path in
      let host = try FakeHost(loop, path)
      host.acknowledges = false
      host.onRecord = {
        guard !flooding.load(ordering: .relaxed), let stream = host.stream else { return }
        flooding.store(true, ordering: .relaxed)
        Thread.detachNewThread {
          // Ends by itself where nobody gets to end it.
          let end = monotonicNanoseconds() &+ 5_000_000_000
          let zeros = [UInt8](repeating: 0, count: 65536)
          while !isDone.load(ordering: .relaxed), monotonicNanoseconds() < end {
            _ = zeros.withUnsafeBytes { sendBytes(stream.rawValue, $0) }
          }
          flooding.store(false, ordering: .relaxed)
        }
      }
      forwarder.start()
      forwarder.append(.programOutput, Array("a line\n".utf8))
      var turns = 0
      func next() {
        let timer = TimerSource {
          if flooding.load(ordering: .relaxed) { turns += 1 }
          if turns < 5 { next() } else { loop.stop() }
        }
        loop.schedule(after: .milliseconds(10), timer)
      }
      next()
      loop.schedule(after: .seconds(20), TimerSource { loop.stop() })
      try loop.run()
      #expect(turns == 5)
      isDone.store(true, ordering: .relaxed)
      while flooding.load(ordering: .relaxed) { sleepMilliseconds(1) }
    }
  }

  /// Host dies and comes back again and again in the middle of the log: every line arrives, once and in order.
  @Test func noLineIsLostOrDoubledWhenTheHostRestarts() throws {
    try withForwarder(capacity: 1 << 20) { loop, forwarder, path in
      let host = try FakeHost(loop, path)
      var expected: [UInt8] = []
      var records = 0
      host.onRecord = {
        records += 1
        if records % 50 == 0 { host.drop() }
      }
      forwarder.start()
      var line = 0
      func write() {
        for _ in 0..<20 {
          let text = Array("line \(line)\n".utf8)
          expected += text
          forwarder.append(.programOutput, text)
          line += 1
        }
        if line < 600 {
          loop.schedule(after: .milliseconds(2), TimerSource { write() })
        } else {
          forwarder.drain { loop.stop() }
        }
      }
      write()
      try loop.run()
      #expect(host.text == expected)
      #expect(host.gaps == 0)
      #expect(records > 500)
    }
  }

  /// A host that is away for longer than the buffer lasts: the program went on, and the gap says what is missing.
  @Test func anAbsentHostCostsAGapAndNoTime() throws {
    try withForwarder { loop, forwarder, path in
      forwarder.start()
      for _ in 0..<3000 { forwarder.append(.programOutput, [UInt8](repeating: 0x61, count: 99) + [0x0a]) }
      let host = try FakeHost(loop, path)
      loop.schedule(after: .milliseconds(300), TimerSource { forwarder.drain { loop.stop() } })
      try loop.run()
      #expect(host.gaps > 0)
      #expect(Int(host.gaps) + host.text.count / 100 == 3000)
    }
  }

  /// A program that writes megabytes before the host has answered, as on a busy machine, loses none of them.
  @Test func aHostThatIsBeingAskedHoldsTheProgramUp() throws {
    try withForwarder(patience: nil) { loop, forwarder, path in
      let host = try FakeHost(loop, path)
      host.answersAfter = .milliseconds(300)
      let (reading, writing) = try makePipe()
      try writing.descriptor.setNonblocking()
      try forwarder.attach(reading, .programOutput)
      forwarder.start()
      let chunk = [UInt8](repeating: 0x62, count: 4096)
      var written = 0
      func write() {
        while written < 1 << 20, case .bytes(let count) = chunk.withUnsafeBytes({ writeBytes(writing.rawValue, $0) }) {
          written += count
        }
        if written < 1 << 20 {
          loop.schedule(after: .milliseconds(1), TimerSource { write() })
        } else {
          forwarder.drain { loop.stop() }
        }
      }
      write()
      loop.schedule(after: .seconds(20), TimerSource { loop.stop() })
      try loop.run()
      #expect(host.gaps == 0 && host.text.count == written)
    }
  }

  /// A pipe whose writer is faster than the host: held up for as long as the host goes on, then let go.
  @Test func aStalledHostHoldsTheProgramUpOnlyForItsPatience() throws {
    try withForwarder(patience: .milliseconds(200)) { loop, forwarder, path in
      let host = try FakeHost(loop, path)
      let (reading, writing) = try makePipe()
      try writing.descriptor.setNonblocking()
      try forwarder.attach(reading, .programOutput)
      forwarder.start()
      host.acknowledges = false
      let chunk = [UInt8](repeating: 0x62, count: 4096)
      var written = 0
      var longestWait: UInt64 = 0
      var lastProgress = monotonicNanoseconds()
      func write() {
        while case .bytes(let count) = chunk.withUnsafeBytes({ writeBytes(writing.rawValue, $0) }) {
          written += count
          longestWait = max(longestWait, monotonicNanoseconds() - lastProgress)
          lastProgress = monotonicNanoseconds()
          if written > 2 << 20 { return loop.stop() }
        }
        loop.schedule(after: .milliseconds(5), TimerSource { write() })
      }
      loop.schedule(after: .milliseconds(100), TimerSource { write() })
      loop.schedule(after: .seconds(10), TimerSource { loop.stop() })
      try loop.run()
      #expect(written > 2 << 20, "the program was blocked by a host that acknowledges nothing")
      #expect(longestWait > 100_000_000, "no patience at all: \(longestWait)")
    }
  }
}
