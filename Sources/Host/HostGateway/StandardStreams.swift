import CLinux
import EventLoop
import LinuxSystem
import LogText
import Wire

/// Bytes on their way to a descriptor that must not be made non-blocking, because others share it (a terminal, a
/// pipe to `less`). A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking (pipe(7)); a terminal may have
/// room for one byte and blocks for the rest (n_tty_write in drivers/tty/n_tty.c), so it is opened once more, for us alone.
final class OutputQueue: EventSource {
  private static let pipeChunk = 4096
  /// More than this waiting, and the log stream is not read any further.
  static let highWater = 256 * 1024
  /// As much is written at once where it is there: a call for each record takes longer than all the rest of its way.
  private static let together = 32 * 1024
  private static let retry: Duration = .seconds(1)
  /// A terminal with too little room for a character that becomes two is called writable, and takes nothing.
  private static let shortRetry: Duration = .milliseconds(50)

  private let loop: EventLoop
  private let fd: Int32
  private let terminal: FileReference?
  private var bytes = OutgoingBytes()
  private var registration: Registration?
  private let isFile: Bool
  private(set) var failed = false
  /// Bytes appended and bytes written, from the beginning.
  private(set) var appended: UInt64 = 0
  private(set) var written: UInt64 = 0
  /// There was no room on the disk, or too little in the terminal; it is tried again by a timer.
  private var isStalled = false
  private var pause = OutputQueue.retry
  private let stalled: ((Int32) -> Void)?
  private let progressed: () -> Void
  private let lost: (Int32) -> Void

  /// - Parameters:
  ///   - stalled: called when a disk begins to take no more; nil to take that for the stream's loss.
  ///   - progressed: called when some of what waited has been written.
  ///   - lost: called with the errno of the write that failed.
  init(
    loop: EventLoop, fd: Int32, stalled: ((Int32) -> Void)?, progressed: @escaping () -> Void,
    lost: @escaping (Int32) -> Void
  ) {
    self.loop = loop
    terminal =
      isatty(fd) == 1
      ? try? FileReference(openFile("/proc/self/fd/\(fd)", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)) : nil
    self.fd = terminal?.rawValue ?? fd
    self.stalled = stalled
    self.progressed = progressed
    self.lost = lost
    // Regular files cannot be polled and never block for long.
    isFile = fileKind("/proc/self/fd/\(fd)") == .file
    super.init()
  }

  var waiting: Int { bytes.count }

  /// - Parameter fill: appends what is to be written, at the latest with `flush`.
  func append(_ fill: (inout OutgoingBytes) -> Void) {
    guard !failed else { return }
    let before = bytes.count
    fill(&bytes)
    appended &+= UInt64(bytes.count - before)
    if waiting >= Self.together { write() }
  }

  func flush() { write() }

  override func ready(_ events: EventSet, tag: Int) {
    writeChunk()
    write()
    progressed()
  }

  override func timerFired(_ key: Int) {
    writeChunk()
    if waiting > 0, isStalled {
      loop.schedule(after: pause, self)
      return
    }
    isStalled = false
    write()
    progressed()
  }

  private func write() {
    guard !isStalled else { return }
    if isFile {
      while waiting > 0, !failed, !isStalled { writeChunk() }
      return
    }
    while waiting > 0, !failed, !isStalled, clinux_poll_writable(fd) > 0 { writeChunk() }
    setWaiting(waiting > 0 && !failed && !isStalled)
  }

  private func stall(_ pause: Duration) {
    isStalled = true
    self.pause = pause
    loop.schedule(after: pause, self)
  }

  private func writeChunk() {
    guard waiting > 0 else { return }
    let end = isFile ? bytes.count : min(bytes.count, Self.pipeChunk)
    switch writeBytes(fd, UnsafeRawBufferPointer(rebasing: bytes.bytes[..<end])) {
    case .bytes(let count):
      bytes.remove(count)
      written &+= UInt64(count)
      isStalled = false
    case .wouldBlock:
      if !isStalled { stall(Self.shortRetry) }
    case .failed(let code) where stalled != nil && (code == ENOSPC || code == EDQUOT):
      // What waits here is kept, and behind it the enclave's log waits.
      guard !isStalled else { return }
      stall(Self.retry)
      stalled?(code)
    case .failed(let code):
      // Its reader has gone, as in `tombolo run … | head -1` (EPIPE), or what it goes to takes no more.
      failed = true
      bytes.removeAll()
      lost(code)
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

/// The two standard streams, in the chosen format.
///
/// The end of a line that has no newline yet is kept until that comes, and counts as written: a prompt must not hold up what
/// others log behind it.
final class StandardStreams: LogSink {
  /// A position is remembered for so many bytes that wait, and no more often.
  private static let stride: UInt64 = 32 * 1024

  private var lines: LogLines
  private var output: OutputQueue!
  private var errors: OutputQueue!
  private var given: UInt64 = 0
  /// Up to which byte of each stream the records up to `number` go, for what waits; oldest first.
  private var marks: [(number: UInt64, output: UInt64, errors: UInt64)] = []
  private(set) var written: UInt64 = 0
  private(set) var isFull = false
  private let isOutlived: Bool
  var changed: (() -> Void)?
  /// One of the streams takes no more: its name, and the reason.
  var lost: ((SystemError) -> Void)?

  /// - Parameters:
  ///   - stalled: called with the errno when a disk begins to take no more; the log waits until it does. nil to take that
  ///     for a loss.
  ///   - isOutlived: the enclave goes on when this process ends, so that a record is had when it has been written. Otherwise
  ///     it is when it has come: an enclave that ends with us need not wait for a slow reader.
  ///   - descriptors: for output and for errors.
  init(
    loop: EventLoop, format: LogFormat, stalled: ((Int32) -> Void)? = nil, isOutlived: Bool,
    descriptors: (Int32, Int32) = (1, 2)
  ) {
    lines = LogLines(format)
    self.isOutlived = isOutlived
    output = OutputQueue(loop: loop, fd: descriptors.0, stalled: stalled, progressed: { [unowned self] in progress() })
    {
      [unowned self] in lost?(SystemError("standard output", errno: $0))
    }
    errors = OutputQueue(loop: loop, fd: descriptors.1, stalled: stalled, progressed: { [unowned self] in progress() })
    {
      [unowned self] in lost?(SystemError("standard error", errno: $0))
    }
  }

  var hasFailed: Bool { output.failed || errors.failed }
  var isEmpty: Bool { output.waiting == 0 && errors.waiting == 0 }

  func write(_ record: LogRecord, label: String, received: UInt64) {
    let queue: OutputQueue = lines.isForOutput(record) ? output : errors
    queue.append { lines.add(record, label: label, received: received, to: &$0) }
    given &+= 1
    if let last = marks.last, output.appended - last.output + (errors.appended - last.errors) < Self.stride {
      marks.removeLast()
    }
    marks.append((given, output.appended, errors.appended))
    update()
  }

  func flush() {
    output.flush()
    errors.flush()
    update()
  }

  private func progress() {
    let before = (written, isFull, hasFailed)
    update()
    if (written, isFull, hasFailed) != before { changed?() }
  }

  private func update() {
    let done = marks.prefix { $0.output <= output.written && $0.errors <= errors.written }
    if let last = done.last { written = last.number }
    if !isOutlived { written = given }
    marks.removeFirst(done.count)
    let waiting = max(output.waiting, errors.waiting)
    if waiting > OutputQueue.highWater { isFull = true } else if waiting < OutputQueue.highWater / 2 { isFull = false }
  }
}
