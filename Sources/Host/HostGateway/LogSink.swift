import CLinux
import EventLoop
import LinuxSystem
import LogText
import Wire

/// Bytes on their way to a descriptor that must not be made non-blocking, because others share it (a terminal, a
/// pipe to `less`). A pipe that poll(2) calls writable takes PIPE_BUF bytes without blocking (pipe(7)).
final class OutputQueue: EventSource {
  private static let pipeChunk = 4096
  /// More than this waiting, and the log stream is not read any further.
  static let highWater = 256 * 1024
  private static let retry: Duration = .seconds(1)

  private let loop: EventLoop
  private let fd: Int32
  private var bytes = OutgoingBytes()
  private var registration: Registration?
  private let isFile: Bool
  private(set) var failed = false
  /// There was no room on the disk; it is tried again by a timer.
  private var isStalled = false
  private let stalled: ((Int32) -> Void)?
  private let drained: () -> Void
  private let lost: (Int32) -> Void

  /// - Parameters:
  ///   - stalled: called when a disk begins to take no more; nil to take that for the stream's loss.
  ///   - lost: called with the errno of the write that failed.
  init(
    loop: EventLoop, fd: Int32, stalled: ((Int32) -> Void)?, drained: @escaping () -> Void,
    lost: @escaping (Int32) -> Void
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

  var waiting: Int { bytes.count }

  /// - Parameter fill: appends what is to be written.
  func append(_ fill: (inout OutgoingBytes) -> Void) {
    guard !failed else { return }
    fill(&bytes)
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
    let end = isFile ? bytes.count : min(bytes.count, Self.pipeChunk)
    switch writeBytes(fd, UnsafeRawBufferPointer(rebasing: bytes.bytes[..<end])) {
    case .bytes(let count):
      bytes.remove(count)
      isStalled = false
    case .wouldBlock: break
    case .failed(let code) where stalled != nil && (code == ENOSPC || code == EDQUOT):
      // What waits here is kept, and behind it the enclave's log waits.
      guard !isStalled else { return }
      isStalled = true
      loop.schedule(after: Self.retry, self)
      stalled?(code)
      return
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

/// Writes log records to the two standard streams in the chosen format.
public final class LogSink {
  private var lines: LogLines
  private var output: OutputQueue!
  private var errors: OutputQueue!

  /// - Parameters:
  ///   - stalled: called with the errno when a disk begins to take no more; the log waits until it does. nil to take that
  ///     for a loss.
  ///   - resume: called when a sink that was full has room again.
  ///   - lost: called when one of the streams takes no more, with its name and the reason.
  public init(
    loop: EventLoop, format: LogFormat, stalled: ((Int32) -> Void)? = nil, resume: @escaping () -> Void,
    lost: @escaping (SystemError) -> Void
  ) {
    lines = LogLines(format)
    output = OutputQueue(loop: loop, fd: 1, stalled: stalled, drained: resume) {
      lost(SystemError("standard output", errno: $0))
    }
    errors = OutputQueue(loop: loop, fd: 2, stalled: stalled, drained: resume) {
      lost(SystemError("standard error", errno: $0))
    }
  }

  /// The streams are slower than the enclave: read no further until `resume`.
  public var isFull: Bool { output.waiting > OutputQueue.highWater || errors.waiting > OutputQueue.highWater }
  public var isEmpty: Bool { output.waiting == 0 && errors.waiting == 0 }

  /// - Parameters:
  ///   - label: put before the source, such as "16/"; empty where there is one enclave.
  ///   - received: nanoseconds since 1970 by our clock, when the record arrived.
  public func write(_ record: LogRecord, label: String = "", received: UInt64) {
    let queue: OutputQueue = lines.isForOutput(record) ? output : errors
    queue.append { lines.add(record, label: label, received: received, to: &$0) }
  }
}
