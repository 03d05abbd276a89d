import CLinux
import EventLoop
import LinuxSystem
import Relaying
import Wire

// Theory of operation.
//
//   pipes of the program and the proxy ─▶ LogPipe ─▶ LogBuffer ─▶ one stream to the host ─▶ acknowledgements ─▶ freed
//
// A record stays in the buffer until the host has said that it has it, so that a host that dies in between gets it
// again. The program never waits for a host that is away; while one is connected, or has not answered yet, a full buffer
// holds the program up for at most `patience`, because losing lines to a host that is only a little slow would be worse.
// Then the oldest go, with a record that counts them.

/// The enclave's end of the log channel.
public final class LogForwarder: EventSource {
  public struct Settings: Sendable {
    public var capacity: Int
    /// nil: as long as the host is connected.
    public var patience: Duration?
    public var drain: Duration?

    public init(capacity: Int, patience: Duration?, drain: Duration?) {
      self.capacity = capacity
      self.patience = patience
      self.drain = drain
    }
  }

  private enum Key { static let reconnect = 0, patience = 1, drain = 2 }
  /// Reads of acknowledgements before others have their turn.
  private static let turnLimit = 16
  private static let firstDelay: Duration = .milliseconds(20)
  private static let longestDelay: Duration = .seconds(2)
  /// How long the end waits for a host that is not there at all.
  private static let absentDrain: Duration = .seconds(2)

  private let loop: EventLoop
  private let target: StreamTarget
  private let settings: Settings
  private let token: Token
  private var buffer: LogBuffer
  private var stream: FileReference?
  private var registration: Registration?
  private var opening: StreamOpening?
  private var begun = false
  private var partial: [UInt8] = []
  private var partialStart = 0
  private var acks: [UInt8] = []
  private var writable = true
  private var delay = LogForwarder.firstDelay
  private var pipes: [LogPipe] = []
  private let scratch = LogPipe.Scratch()
  private var patienceTimer: TimerToken?
  private var outOfPatience = false
  private var drained: (() -> Void)?
  private var drainTimer: TimerToken?
  private var drainStart: UInt64?

  /// - Parameter token: opens the log's streams (`BootSecrets.session`).
  public init(loop: EventLoop, target: StreamTarget, token: Token, settings: Settings) {
    self.loop = loop
    self.target = target
    self.token = token
    self.settings = settings
    buffer = LogBuffer(capacity: settings.capacity)
    super.init()
  }

  /// The first attempt to reach the host.
  public var onBegin: (() -> Void)?

  /// Connects to the host after `delay`, or at once where `connect` or `drain` comes before. Records wait in the buffer.
  public func start(after delay: Duration = .zero) {
    if delay == .zero { connect() } else { loop.schedule(after: delay, self, key: Key.reconnect) }
  }

  /// Does nothing where that has begun.
  public func connect() {
    if stream == nil, opening == nil, !begun { open() }
  }

  /// Bytes that wait for the host; records that had to go, and their payload.
  public var counters: (waiting: UInt64, droppedRecords: UInt64, droppedBytes: UInt64) {
    (UInt64(buffer.size), buffer.droppedRecords, buffer.droppedBytes)
  }

  // MARK: records

  public func append(_ source: LogSource, _ bytes: [UInt8]) { append(source, .output(bytes)) }

  public func append(_ source: LogSource, _ body: LogRecord.Body) {
    buffer.append(time: realtimeNanoseconds(), source: source, body: body)
    holdUpIfFull()
    flush()
  }

  /// Reads `descriptor` to its end, each chunk a record.
  public func attach(_ descriptor: FileReference, _ source: LogSource) throws(SystemError) {
    pipes.removeAll { $0.ended }
    pipes.append(
      try LogPipe(loop: loop, descriptor: descriptor, scratch: scratch) { [unowned self] in append(source, $0) })
  }

  /// Takes what the pipes still hold, so that it stands before what is appended next.
  public func collect() { for pipe in pipes { pipe.readRest() } }

  /// Takes what the pipes still hold, sends everything, and calls `completion` when the host has it all or the time
  /// for it is over.
  public func drain(completion: @escaping () -> Void) {
    connect()
    collect()
    drained = completion
    limitDrain()
    checkDrained()
  }

  /// The end waits as configured for a host that is there, and briefly for one that is not; chosen again when that
  /// changes. What has been waited already counts, so that a host that comes and goes cannot put the end off.
  private func limitDrain() {
    guard drained != nil else { return }
    if let drainTimer { loop.cancel(drainTimer) }
    let now = monotonicNanoseconds()
    let start = drainStart ?? now
    drainStart = start
    guard let limit = stream == nil ? Self.absentDrain : settings.drain else {
      drainTimer = nil
      return
    }
    let waited = Duration.nanoseconds(Int64(clamping: now &- start))
    drainTimer = loop.schedule(after: stream == nil ? limit : max(.zero, limit - waited), self, key: Key.drain)
  }

  private func checkDrained() {
    guard let completion = drained, buffer.isEmpty, partialStart == partial.count else { return }
    drained = nil
    completion()
  }

  private func holdUpIfFull() {
    // A host that is being asked counts as there: the program starts before it has answered, and can be fast.
    guard buffer.isNearlyFull, stream != nil || opening != nil, !outOfPatience, settings.patience != .zero else {
      return
    }
    for pipe in pipes { pipe.pause() }
    guard let patience = settings.patience, patienceTimer == nil else { return }
    patienceTimer = loop.schedule(after: patience, self, key: Key.patience)
  }

  private func letGo() {
    for pipe in pipes { pipe.unpause() }
    if let patienceTimer { loop.cancel(patienceTimer) }
    patienceTimer = nil
  }

  // MARK: the stream

  private func open() {
    if !begun { onBegin?() }
    begun = true
    let attempt = StreamOpening(
      loop: loop, target: target, hello: Hello(.logs, token: token), timeout: .seconds(5)
    ) { [unowned self] outcome in
      opening = nil
      switch outcome {
      case .opened(let socket, let parameters, _):
        adopt(socket, parameters)
      case .refused, .failed:
        openLater()
      }
    }
    opening = attempt
    attempt.start()
  }

  private func openLater() {
    // Nobody is there: the program does not wait.
    letGo()
    loop.schedule(after: delay, self, key: Key.reconnect)
    delay = min(Self.longestDelay, delay * 2)
  }

  private func adopt(_ socket: FileReference, _ parameters: [UInt8]) {
    var reader = ByteReader(parameters)
    // The host's answer says what it already has of this run of the enclave; anything else counts as nothing.
    let known = (try? reader.integer(UInt64.self)) ?? 0
    do throws(SystemError) {
      registration = try loop.add(socket.rawValue, [.readable, .writable, .readHangup, .edgeTriggered], self)
    } catch {
      openLater()
      return
    }
    stream = socket
    delay = Self.firstDelay
    writable = true
    acks = []
    partial = []
    partialStart = 0
    buffer.rewind(after: known)
    limitDrain()
    flush()
  }

  private func lost() {
    if let registration { loop.remove(registration) }
    registration = nil
    stream = nil
    partial = []
    partialStart = 0
    outOfPatience = false
    limitDrain()
    openLater()
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if events.contains(.writable) { writable = true }
    if !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error]) { readAcknowledgements() }
    flush()
  }

  /// There were more acknowledgements than one turn may take.
  override public func resume() {
    readAcknowledgements()
    flush()
  }

  /// A host that acknowledges without end must not keep PID 1 from its other work.
  private func readAcknowledgements() {
    var chunk = [UInt8](repeating: 0, count: 4096)
    var turns = Self.turnLimit
    while let stream {
      guard turns > 0 else { return loop.enqueue(self) }
      turns -= 1
      switch chunk.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
      case .bytes(0), .failed:
        lost()
        return
      case .wouldBlock: return
      case .bytes(let count):
        acks += chunk[..<count]
        let whole = acks.count / LogAcknowledgement.length * LogAcknowledgement.length
        guard whole > 0 else { continue }
        for start in stride(from: 0, to: whole, by: LogAcknowledgement.length) {
          buffer.acknowledge(acks[start..<start + LogAcknowledgement.length].reduce(UInt64(0)) { $0 << 8 | UInt64($1) })
        }
        acks.removeFirst(whole)
        if !buffer.isNearlyFull {
          outOfPatience = false
          letGo()
        }
        checkDrained()
      }
    }
  }

  private func flush() {
    guard let stream, writable else { return }
    while true {
      if partialStart == partial.count {
        partial.removeAll(keepingCapacity: true)
        partialStart = 0
        while partial.count < 65536, let bytes = buffer.next() { partial += bytes }
        if partial.isEmpty { return }
      }
      let result = partial.withUnsafeBytes {
        sendBytes(stream.rawValue, UnsafeRawBufferPointer(rebasing: $0[partialStart...]))
      }
      switch result {
      case .bytes(let count): partialStart += count
      case .wouldBlock:
        writable = false
        return
      case .failed:
        lost()
        return
      }
    }
  }

  override public func timerFired(_ key: Int) {
    switch key {
    case Key.reconnect:
      if stream == nil, opening == nil { open() }
    case Key.patience:
      patienceTimer = nil
      outOfPatience = true
      letGo()
    default:
      drained?()
      drained = nil
    }
  }
}

/// The reading end of a pipe that a process writes its output to.
final class LogPipe: EventSource {
  private let loop: EventLoop
  private let descriptor: FileReference
  private let received: ([UInt8]) -> Void
  private var registration: Registration?
  private(set) var ended = false
  private let scratch: Scratch

  /// Where all pipes of a loop read to, one after the other.
  final class Scratch {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: LogRecord.payloadLimit, alignment: 1)
    deinit { bytes.deallocate() }
  }

  init(
    loop: EventLoop, descriptor: FileReference, scratch: Scratch, received: @escaping ([UInt8]) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.scratch = scratch
    self.descriptor = descriptor
    self.received = received
    super.init()
    try descriptor.descriptor.setNonblocking()
    registration = try loop.add(descriptor.rawValue, [.readable], self)
  }

  override func ready(_ events: EventSet, tag: Int) { readOnce() }

  /// True where there may be more.
  @discardableResult
  private func readOnce() -> Bool {
    guard !ended else { return false }
    switch readBytes(descriptor.rawValue, scratch.bytes) {
    case .bytes(0), .failed:
      ended = true
      pause()
      return false
    case .bytes(let count):
      received(Array(scratch.bytes[..<count]))
      return true
    case .wouldBlock:
      return false
    }
  }

  /// What is in the pipe at the end; bounded, because a process that left the enclave's control could go on writing.
  func readRest() {
    for _ in 0..<64 where !readOnce() { return }
  }

  func pause() {
    if let registration { loop.remove(registration) }
    registration = nil
  }

  func unpause() {
    guard registration == nil, !ended else { return }
    registration = try? loop.add(descriptor.rawValue, [.readable], self)
  }
}
