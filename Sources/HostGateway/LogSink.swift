import CLinux
import EventLoop
import LinuxSystem
import Wire

/// How the host shows what the enclave logs.
public enum LogFormat: String, CaseIterable, Sendable {
  /// The program's own bytes to stdout and stderr, as they are.
  case raw
  /// One line each, with time and source.
  case text
  /// One JSON object per line.
  case json
}

/// Bytes on their way to a descriptor that must not be made non-blocking, because others share it (a terminal, a
/// pipe to `less`). A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking (pipe(7)).
final class OutputQueue: EventSource {
  private static let pipeChunk = 4096
  /// More than this waiting, and the log stream is not read any further.
  static let highWater = 256 * 1024
  private static let retry: Duration = .seconds(1)

  private let loop: EventLoop
  private let fd: Int32
  private var bytes: [UInt8] = []
  private var start = 0
  private var registration: Registration?
  private let isFile: Bool
  private(set) var failed = false
  /// There was no room on the disk; it is tried again by a timer.
  private var isStalled = false
  private let stalled: ((Int32) -> Void)?
  private let drained: () -> Void
  private let lost: () -> Void

  /// - Parameter stalled: called when a disk begins to take no more; nil to take that for the stream's loss.
  init(
    loop: EventLoop, fd: Int32, stalled: ((Int32) -> Void)?, drained: @escaping () -> Void, lost: @escaping () -> Void
  ) {
    self.loop = loop
    self.fd = fd
    self.stalled = stalled
    self.drained = drained
    self.lost = lost
    // Regular files cannot be polled and never block for long.
    isFile = fileKind("/proc/self/fd/\(fd)") == .file
    super.init()
  }

  var waiting: Int { bytes.count - start }

  func append(_ new: some Collection<UInt8>) {
    guard !failed else { return }
    bytes += new
    write()
  }

  override func ready(_ events: EventSet, tag: Int) {
    writeChunk()
    write()
    if waiting < Self.highWater / 2 { drained() }
  }

  override func timerFired(_ key: Int) {
    writeChunk()
    if waiting > 0, isStalled {
      loop.schedule(after: Self.retry, self)
      return
    }
    isStalled = false
    write()
    if waiting < Self.highWater / 2 { drained() }
  }

  private func write() {
    guard !isStalled else { return }
    if isFile {
      while waiting > 0, !failed, !isStalled { writeChunk() }
      return
    }
    while waiting > 0, !failed, clinux_poll_writable(fd) > 0 { writeChunk() }
    setWaiting(waiting > 0 && !failed)
  }

  private func writeChunk() {
    guard waiting > 0 else { return }
    let end = isFile ? bytes.count : min(bytes.count, start + Self.pipeChunk)
    let result = bytes.withUnsafeBytes { writeBytes(fd, UnsafeRawBufferPointer(rebasing: $0[start..<end])) }
    switch result {
    case .bytes(let count):
      start += count
      isStalled = false
    case .wouldBlock: break
    case .failed(let code) where stalled != nil && (code == ENOSPC || code == EDQUOT):
      // What waits here is kept, and behind it the enclave's log waits.
      guard !isStalled else { return }
      isStalled = true
      loop.schedule(after: Self.retry, self)
      stalled?(code)
      return
    case .failed:
      // Whoever read this is gone, as in `tombolo run … | head -1`.
      failed = true
      start = bytes.count
      lost()
    }
    if start == bytes.count {
      bytes.removeAll(keepingCapacity: true)
      start = 0
    } else if start > 1 << 20 {
      bytes.removeFirst(start)
      start = 0
    }
  }

  private func setWaiting(_ on: Bool) {
    if on, registration == nil {
      registration = try? loop.add(fd, [.writable], self)
      // Something that epoll does not take (EPERM): written as it comes.
      if registration == nil { while waiting > 0, !failed { writeChunk() } }
    } else if !on, let current = registration {
      loop.remove(current)
      registration = nil
    }
  }
}

/// Writes log records to the two standard streams in the chosen format.
public final class LogSink {
  private let format: LogFormat
  private var lines: [Origin: LineAssembler] = [:]

  /// A source of one enclave; the label tells enclaves apart, empty where there is one.
  private struct Origin: Hashable {
    var label: String
    var source: LogSource
  }
  private var output: OutputQueue!
  private var errors: OutputQueue!

  /// - Parameters:
  ///   - stalled: called with the errno when a disk begins to take no more; the log waits until it does. nil to take that
  ///     for a loss.
  ///   - resume: called when a sink that was full has room again.
  ///   - lost: called when nobody reads one of the streams any more.
  public init(
    loop: EventLoop, format: LogFormat, stalled: ((Int32) -> Void)? = nil, resume: @escaping () -> Void,
    lost: @escaping () -> Void
  ) {
    self.format = format
    output = OutputQueue(loop: loop, fd: 1, stalled: stalled, drained: resume, lost: lost)
    errors = OutputQueue(loop: loop, fd: 2, stalled: stalled, drained: resume, lost: lost)
  }

  /// The streams are slower than the enclave: read no further until `resume`.
  public var isFull: Bool { output.waiting > OutputQueue.highWater || errors.waiting > OutputQueue.highWater }
  public var isEmpty: Bool { output.waiting == 0 && errors.waiting == 0 }

  /// - Parameter label: put before the source, such as "16/"; empty where there is one enclave.
  public func write(_ record: LogRecord, label: String = "") {
    let origin = Origin(label: label, source: record.source)
    switch record.body {
    case .output(let bytes):
      if format == .raw { raw(record, origin, bytes) } else { assemble(record, origin, bytes) }
    case .gap(let records, let dropped):
      note(record, origin, "\(records) log records (\(dropped) bytes) were dropped: the host was away or too slow")
    case .exit(let status):
      flushLines(record.time, label)
      if format != .raw { note(record, origin, "the program ended with status \(status)") }
    case .started:
      break
    }
  }

  private func raw(_ record: LogRecord, _ origin: Origin, _ bytes: [UInt8]) {
    switch record.source {
    case .programOutput: output.append(bytes)
    case .programError: errors.append(bytes)
    default: assemble(record, origin, bytes)
    }
  }

  private func assemble(_ record: LogRecord, _ origin: Origin, _ bytes: [UInt8]) {
    for line in lines[origin, default: LineAssembler()].add(bytes, time: record.time) {
      emit(line.time, origin, line.text)
    }
  }

  /// Ends what has no newline yet.
  private func flushLines(_ time: UInt64, _ label: String) {
    for source in LogSource.allCases {
      let origin = Origin(label: label, source: source)
      if let line = lines[origin]?.flush() { emit(line.time, origin, line.text) }
      lines[origin] = nil
    }
  }

  private func note(_ record: LogRecord, _ origin: Origin, _ sentence: String) {
    emit(record.time, origin, Array(sentence.utf8))
  }

  private func emit(_ time: UInt64, _ origin: Origin, _ text: [UInt8]) {
    let source = "\(origin.label)\(origin.source)"
    switch format {
    case .raw:
      errors.append(Array("tombolo \(source): ".utf8) + text + [0x0a])
    case .text:
      let line = Array("\(timestamp(time)) \(source) | ".utf8) + text + [0x0a]
      output.append(line)
    case .json:
      let line = "{\"time\":\"\(timestamp(time))\",\"source\":\"\(source)\",\"line\":\(jsonString(text))}\n"
      output.append(Array(line.utf8))
    }
  }
}

/// Puts chunks together to lines.
package struct LineAssembler {
  /// A longer line is cut, in bytes.
  package static let limit = 64 * 1024
  private var partial: [UInt8] = []
  private var since: UInt64 = 0

  package init() {}

  package mutating func add(_ bytes: [UInt8], time: UInt64) -> [(time: UInt64, text: [UInt8])] {
    var result: [(time: UInt64, text: [UInt8])] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      if partial.isEmpty { since = time }
      let room = rest.prefix(Self.limit - partial.count)
      if let newline = room.firstIndex(of: 0x0a) {
        result.append((since, partial + rest[..<newline]))
        rest = rest[(newline + 1)...]
        partial = []
      } else {
        partial += room
        rest = rest.dropFirst(room.count)
        if partial.count == Self.limit {
          result.append((since, partial))
          partial = []
        }
      }
    }
    return result
  }

  package mutating func flush() -> (time: UInt64, text: [UInt8])? {
    guard !partial.isEmpty else { return nil }
    defer { partial = [] }
    return (since, partial)
  }
}

/// RFC 3339 in UTC with milliseconds. The days are counted as in the civil calendar's 400-year cycle.
package func timestamp(_ nanoseconds: UInt64) -> String {
  let seconds = nanoseconds / 1_000_000_000
  let milliseconds = nanoseconds / 1_000_000 % 1000
  let time = seconds % 86400
  // Days since 0000-03-01, so that the leap day is the last of its year.
  let days = seconds / 86400 + 719_468
  let era = days / 146_097
  let dayOfEra = days % 146_097
  let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let shifted = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * shifted + 2) / 5 + 1
  let month = shifted < 10 ? shifted + 3 : shifted - 9
  let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
  func pad(_ number: UInt64, _ width: Int) -> String {
    let text = String(number)
    return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
  }
  return "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))T\(pad(time / 3600, 2)):\(pad(time / 60 % 60, 2))"
    + ":\(pad(time % 60, 2)).\(pad(milliseconds, 3))Z"
}

/// RFC 8259 section 7; bytes that are not UTF-8 become U+FFFD.
package func jsonString(_ bytes: [UInt8]) -> String {
  var text = "\""
  for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
    switch scalar {
    case "\"": text += "\\\""
    case "\\": text += "\\\\"
    case "\n": text += "\\n"
    case "\r": text += "\\r"
    case "\t": text += "\\t"
    case _ where scalar.value < 0x20 || scalar.value == 0x7f:
      let hex = String(scalar.value, radix: 16)
      text += "\\u" + String(repeating: "0", count: 4 - hex.utf8.count) + hex
    default: text.unicodeScalars.append(scalar)
    }
  }
  return text + "\""
}
