import CLinux
import EventLoop
import LinuxSystem
import LogText
import Testing
import Wire

@testable import HostGateway

/// A collector that has a record when it is told to, or breaks.
private final class TwinSink: LogSink {
  var given: [UInt64] = []
  var written: UInt64 = 0 { didSet { changed?() } }
  var isFull = false { didSet { changed?() } }
  var hasFailed = false { didSet { changed?() } }
  var isEmpty: Bool { written == UInt64(given.count) }
  var changed: (() -> Void)?
  /// Has each record at once.
  let isFast: Bool

  init(isFast: Bool = false) { self.isFast = isFast }

  func write(_ record: LogRecord, label: String, received: UInt64) {
    given.append(record.sequence)
    if isFast { written &+= 1 }
  }

  func flush() {}
}

/// Two places for one log: what the enclave is told to forget, both must have.
struct LogSinksTests {
  private func record(_ sequence: UInt64) -> LogRecord {
    LogRecord(sequence: sequence, time: 0, source: .programOutput, body: .output(Array("line\n".utf8)))
  }

  @Test func theSlowestAcknowledges() {
    let (fast, slow) = (TwinSink(isFast: true), TwinSink())
    var changes = 0
    let sinks = LogSinks([fast, slow], keepsUnwritten: true) { changes += 1 }
    for sequence in 1...5 { sinks.write(record(UInt64(sequence)), label: "", received: 0) }
    #expect(fast.given == slow.given && slow.given == [1, 2, 3, 4, 5])
    #expect(sinks.acknowledged == 0 && !sinks.isEmpty)
    slow.written = 3
    #expect(sinks.acknowledged == 3 && !sinks.isFull)
    slow.isFull = true
    #expect(sinks.isFull && changes > 0)
    slow.isFull = false
    slow.written = 5
    #expect(sinks.acknowledged == 5 && sinks.isEmpty)
  }

  /// A collector that is gone must not stop the program; the log that is left goes on.
  @Test func whoHasFailedIsNotWaitedFor() {
    let (failing, slow) = (TwinSink(), TwinSink())
    let sinks = LogSinks([failing, slow], keepsUnwritten: true) {}
    for sequence in 1...4 { sinks.write(record(UInt64(sequence)), label: "", received: 0) }
    failing.written = 1
    failing.isFull = true
    slow.written = 3
    #expect(sinks.acknowledged == 1 && sinks.isFull)
    failing.hasFailed = true
    #expect(sinks.acknowledged == 3 && !sinks.isFull)
    // What none of them has stays with the enclave.
    slow.hasFailed = true
    slow.written = 4
    #expect(sinks.acknowledged == 3)
    // Or goes, where the enclave is only to come to its end.
    let gone = LogSinks([failing], keepsUnwritten: false) {}
    for sequence in 1...4 { gone.write(record(UInt64(sequence)), label: "", received: 0) }
    #expect(gone.acknowledged == 4)
  }

  /// The same over a stream, as an enclave sees it: also over one that was lost in between.
  @Test func anEnclaveIsToldWhenBothHaveItsRecords() throws {
    let loop = try EventLoop()
    let (fast, slow) = (TwinSink(isFast: true), TwinSink())
    let server = LogServer(
      loop: loop, sinks: [fast, slow], keepsUnwritten: true, labels: false,
      counters: HostCounters(), complaints: ComplaintLog(loop: loop) { Issue.record("\($0)") })
    func turn() throws {
      loop.schedule(after: .milliseconds(20), TimerSource { loop.stop() })
      try loop.run()
    }
    func open() throws -> FileReference {
      let (ours, theirs) = try makeSocketPair()
      try ours.descriptor.setNonblocking()
      try theirs.descriptor.setNonblocking()
      try server.serve(
        AdmittedStream(stream: theirs, hello: Hello(.logs), early: [], peer: 0, boot: BootID(high: 1, low: 2)))
      return ours
    }
    func read(_ stream: FileReference) -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: 256)
      guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) else { return [] }
      return Array(bytes[..<count])
    }
    func position(_ bytes: [UInt8]) -> UInt64? { bytes.isEmpty ? nil : UInt64(bytes.last ?? 0) }
    func send(_ stream: FileReference, _ sequences: ClosedRange<UInt64>) {
      for sequence in sequences { _ = record(sequence).encoded().withUnsafeBytes { sendBytes(stream.rawValue, $0) } }
    }

    var stream = try open()
    #expect(position(read(stream)) == 0)
    send(stream, 1...3)
    try turn()
    #expect(fast.written == 3 && position(read(stream)) == nil)
    slow.written = 2
    try turn()
    // Three records came at once, and are acknowledged at once.
    #expect(position(read(stream)) == nil)
    slow.written = 3
    try turn()
    #expect(position(read(stream)) == 3)
    send(stream, 4...4)
    try turn()
    // Lost, opened again, and sent again: once in every sink.
    stream = try open()
    #expect(position(read(stream)) == 3)
    send(stream, 4...5)
    try turn()
    #expect(slow.given == [1, 2, 3, 4, 5] && position(read(stream)) == nil)
    slow.written = 4
    try turn()
    #expect(position(read(stream)) == 4)
    slow.hasFailed = true
    try turn()
    #expect(position(read(stream)) == 5)
    loop.clear()
  }

  /// Nobody reads the daemon's output for a while: what has not been written is not acknowledged.
  @Test func standardOutputHasWhatWasWritten() throws {
    let loop = try EventLoop()
    let (reading, writing) = try makePipe()
    let streams = StandardStreams(
      loop: loop, format: .raw, isOutlived: true, descriptors: (writing.rawValue, writing.rawValue))
    var changes = 0
    streams.changed = { changes += 1 }
    let line = LogRecord(
      sequence: 1, time: 0, source: .programOutput, body: .output([UInt8](repeating: 0x61, count: 60_000)))
    var count: UInt64 = 0
    while !streams.isFull {
      streams.write(line, label: "", received: 0)
      count += 1
    }
    #expect(streams.written <= 1 && count >= 5 && !streams.isEmpty)
    try reading.descriptor.setNonblocking()
    var bytes = [UInt8](repeating: 0, count: 65536)
    var total = 0
    while !streams.isEmpty {
      if case .bytes(let some) = bytes.withUnsafeMutableBytes({ readBytes(reading.rawValue, $0) }) { total += some }
      // No more was called written than has left this process.
      #expect(streams.written * 60_000 <= total + 65_536)
      loop.schedule(after: .milliseconds(1), TimerSource { loop.stop() })
      try loop.run()
    }
    #expect(streams.written == count && !streams.isFull && changes > 0)
    loop.clear()
  }

  /// A terminal that nobody reads (an ssh session whose link hangs) takes some, and holds up nothing else.
  @Test func aTerminalThatStalls() throws {
    let loop = try EventLoop()
    let screen = FileReference(try openFile("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC))
    #expect(unlockpt(screen.rawValue) == 0)
    let name = try #require(ptsname(screen.rawValue).map { String(cString: $0) })
    let terminal = FileReference(try openFile(name, O_RDWR | O_NOCTTY | O_CLOEXEC))
    let streams = StandardStreams(
      loop: loop, format: .raw, isOutlived: true, descriptors: (terminal.rawValue, terminal.rawValue))
    let line = LogRecord(
      sequence: 1, time: 0, source: .programOutput, body: .output(Array("0123456789abcde\n".utf8)))
    for _ in 0..<10_000 { streams.write(line, label: "", received: 0) }
    #expect(!streams.isEmpty)
    try screen.descriptor.setNonblocking()
    var bytes = [UInt8](repeating: 0, count: 65536)
    var total = 0
    while total < 170_000 {
      if case .bytes(let some) = bytes.withUnsafeMutableBytes({ readBytes(screen.rawValue, $0) }) { total += some }
      loop.schedule(after: .milliseconds(1), TimerSource { loop.stop() })
      try loop.run()
    }
    // Every newline has become two characters.
    #expect(total == 170_000 && streams.isEmpty)
    loop.clear()
  }
}
