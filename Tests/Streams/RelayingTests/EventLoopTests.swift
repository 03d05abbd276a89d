import CLinux
import LinuxSystem
import Testing

@testable import EventLoop

/// Writes a byte into its own pipe as often as asked, each time when the one before has been read.
private final class Echo: EventSource {
  let reading: FileReference
  let writing: FileReference
  private let loop: EventLoop
  private(set) var rest: Int

  init(_ loop: EventLoop, times: Int) throws {
    (reading, writing) = try makePipe()
    self.loop = loop
    rest = times
    super.init()
    _ = try loop.add(reading.rawValue, [.readable], self)
    send()
  }

  private func send() { _ = try? writeAll(writing.rawValue, [1]) }

  override func ready(_ events: EventSet, tag: Int) {
    var byte: [UInt8] = [0]
    _ = byte.withUnsafeMutableBytes { readBytes(reading.rawValue, $0) }
    rest -= 1
    if rest > 0 { send() } else { loop.stop() }
  }
}

/// Reads bytes until a 2.
private final class Reader: EventSource {
  private let pipe: FileReference
  private let ended: () -> Void

  init(_ pipe: FileReference, _ ended: @escaping () -> Void) {
    self.pipe = pipe
    self.ended = ended
  }

  override func ready(_ events: EventSet, tag: Int) {
    var bytes = [UInt8](repeating: 0, count: 64)
    guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(pipe.rawValue, $0) }) else { return }
    if bytes[..<count].contains(2) { ended() }
  }
}

@Suite(.serialized) struct EventLoopTests {
  private func processorNanoseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return UInt64(now.tv_sec) * 1_000_000_000 + UInt64(now.tv_nsec)
  }

  /// A loop that looks for events before it sleeps must sleep all the same: an enclave whose program waits would use up a
  /// processor otherwise, however busy it was a moment ago.
  @Test func sleepsAfterBusyTimes() throws {
    let loop = try EventLoop(spin: EventLoop.dataSpin)
    let echo = try Echo(loop, times: 1000)
    try loop.run()
    #expect(echo.rest == 0)
    let before = processorNanoseconds()
    let stop = TimerSource { loop.stop() }
    loop.schedule(after: .milliseconds(500), stop)
    try loop.run()
    #expect(processorNanoseconds() - before < 50_000_000)
  }

  /// Events that come a little too late for every look must not keep a processor busy.
  @Test func aLookInVainIsNotRepeated() throws {
    let loop = try EventLoop(spin: EventLoop.dataSpin)
    let echo = try Echo(loop, times: 2000)
    try loop.run()
    let (reading, writing) = try makePipe()
    // With a timer's slack of 50 us, an event every 110 to 200 us.
    try startThread {
      for _ in 0..<3000 {
        usleep(65)
        _ = try? writeAll(writing.rawValue, [1])
      }
      _ = try? writeAll(writing.rawValue, [2])
    }
    let end = Reader(reading) { loop.stop() }
    _ = try loop.add(reading.rawValue, [.readable], end)
    let (start, used) = (monotonicNanoseconds(), processorNanoseconds())
    try withExtendedLifetime(echo) { try loop.run() }
    let (time, own) = (monotonicNanoseconds() - start, processorNanoseconds() - used)
    #expect(Double(own) / Double(time) < 0.45, "\(own / 1_000_000) ms of \(time / 1_000_000)")
  }

  /// Timers come in time where nothing else happens, and where something happens all the time.
  @Test(arguments: [0, EventLoop.dataSpin], [false, true]) func timersComeInTime(spin: UInt64, busy: Bool) throws {
    let loop = try EventLoop(spin: spin)
    let echo = busy ? try Echo(loop, times: .max) : nil
    var fired = 0
    let timer = TimerSource { fired += 1 }
    let stop = TimerSource { loop.stop() }
    for milliseconds in [1, 5, 20] { loop.schedule(after: .milliseconds(milliseconds), timer) }
    loop.schedule(after: .milliseconds(50), stop)
    try loop.run()
    #expect(fired == 3)
    if let echo { #expect(echo.rest < .max) }
  }
}
