import CLinux
import EventLoop
import LinuxSystem

/// The thread of one queue: a loop of its own that shares nothing with the others. Orders reach it through a pipe.
public final class PacketWorker: Sendable {
  private enum Order {
    static let report: Int32 = -1
    static let stop: Int32 = -2
    static let count: Int32 = -3
    static let change: Int32 = -4
    /// With a stream's descriptor: memory will come. Descriptors are far from it (fs.nr_open).
    static let awaitingMemory: Int32 = 1 << 30
  }

  private let orders: FileReference

  /// What runs in the thread.
  public struct Body {
    /// A stream for the queue, with the handshake behind it; and whether memory will come with its first byte.
    public var stream: (FileReference, _ awaitingMemory: Bool) -> Void
    public var report: () -> Void
    /// Asked by `PacketWorker.count`; passes the counters on by means of its own.
    public var count: () -> Void
    /// Told by `PacketWorker.change` that there is something new, which it gets by means of its own.
    public var change: () -> Void
    public init(
      stream: @escaping (FileReference, Bool) -> Void, report: @escaping () -> Void, count: @escaping () -> Void = {},
      change: @escaping () -> Void = {}
    ) {
      self.stream = stream
      self.report = report
      self.count = count
      self.change = change
    }
  }

  /// The loop sleeps at once when it has nothing to do: several of these and both ends of a connection share the processors,
  /// and looking for events instead takes these from who has some (docs/architecture.md).
  /// - Parameters:
  ///   - start: called in the new thread to set the queue up in its loop.
  ///   - failed: called in that thread with the reason where it cannot go on.
  public init(
    start: @escaping @Sendable (EventLoop) throws(SystemError) -> Body,
    failed: @escaping @Sendable (SystemError) -> Void
  ) throws(SystemError) {
    let (reading, writing) = try makePipe()
    try reading.descriptor.setNonblocking()
    // Who gives orders must not wait on a thread that is slow to take them.
    try writing.descriptor.setNonblocking()
    orders = writing
    try startThread {
      do throws(SystemError) {
        let loop = try EventLoop()
        let body = try start(loop)
        let source = OrderSource(reading, loop, body)
        _ = try loop.add(reading.rawValue, [.readable], source)
        defer { loop.clear() }
        try loop.run()
      } catch {
        failed(error)
      }
    }
  }

  /// Gives the queue a stream, whose only owner it becomes.
  /// - Parameter awaitingMemory: the other side was told that it may pass memory.
  /// - Throws: EMFILE; EAGAIN where the thread has thousands of orders that it has not taken; EPIPE where it has ended.
  public func give(_ stream: FileReference, awaitingMemory: Bool = false) throws(SystemError) {
    let given = try stream.descriptor.duplicate()
    let result = order(given.rawValue | (awaitingMemory ? Order.awaitingMemory : 0))
    guard result >= 0 else {
      throw SystemError("write", "a queue's orders", errno: Int32(truncatingIfNeeded: 0 &- result))
    }
    _ = given.release()
  }

  /// Has the queue's counters written to the log.
  public func report() { order(Order.report) }

  /// Has the body's `count` called in the thread.
  public func count() { order(Order.count) }

  /// Has the body's `change` called in the thread.
  public func change() { order(Order.change) }

  /// Ends the thread; its descriptors close.
  public func stop() { order(Order.stop) }

  /// A pipe takes four bytes whole (pipe(7), PIPE_BUF).
  /// - Returns: a negative errno where it could not be given.
  @discardableResult private func order(_ number: Int32) -> Int {
    withUnsafeBytes(of: number) { clinux_write(orders.rawValue, $0.baseAddress, $0.count) }
  }

  private final class OrderSource: EventSource {
    private let pipe: FileReference
    private let loop: EventLoop
    private let body: Body

    init(_ pipe: FileReference, _ loop: EventLoop, _ body: Body) {
      self.pipe = pipe
      self.loop = loop
      self.body = body
    }

    override func ready(_ events: EventSet, tag: Int) {
      var number: Int32 = 0
      let result = withUnsafeMutableBytes(of: &number) { readBytes(pipe.rawValue, $0) }
      switch result {
      case .bytes(MemoryLayout<Int32>.size): break
      case .wouldBlock: return
      // Nobody is left to give orders.
      default: return loop.stop()
      }
      switch number {
      case Order.report: body.report()
      case Order.count: body.count()
      case Order.change: body.change()
      case Order.stop: loop.stop()
      default:
        body.stream(
          FileReference(OwnedFileDescriptor(number & ~Order.awaitingMemory)), number & Order.awaitingMemory != 0)
      }
    }
  }
}
