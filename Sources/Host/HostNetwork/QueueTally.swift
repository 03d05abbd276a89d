import CLinux
import EventLoop
import LinuxSystem
import PacketRelaying

/// What one queue has said of itself.
public struct QueueCount: Sendable {
  public var queue: UInt32
  /// Whether the enclave's stream stands.
  public var connected: Bool
  public var usesMemory: Bool
  public var counters: PacketCounters
}

/// Brings the counters of the queues' threads into the loop of the host side: each thread writes its own, whole, into one
/// pipe (pipe(7): up to PIPE_BUF bytes stay together), so that no memory is shared.
final class QueueTally: EventSource {
  /// A thread that moves packets answers between two batches.
  private static let patience: Duration = .seconds(1)

  private var loop: EventLoop?
  private let reading: FileReference
  private let writing: FileReference
  private var registration: Registration?
  private var deadline: TimerToken?
  private var waiting: [([QueueCount]) -> Void] = []
  private var counts: [UInt32: QueueCount] = [:]
  private var expected = 0

  init(pipe: (reading: FileReference, writing: FileReference)) throws(SystemError) {
    (reading, writing) = pipe
    super.init()
    try reading.descriptor.setNonblocking()
    try writing.descriptor.setNonblocking()
  }

  /// What a queue's thread calls with its counters.
  var answer: @Sendable (QueueCount) -> Void {
    { [writing] count in
      _ = withUnsafeBytes(of: count) { writeBytes(writing.rawValue, $0) }
    }
  }

  /// Asks the workers, and answers in `loop`, the same one every time; who asks while others are being answered shares their answer.
  /// - Parameter completion: gets the counts of those that answered in time, by queue.
  func ask(_ workers: [PacketWorker], in loop: EventLoop, _ completion: @escaping ([QueueCount]) -> Void) {
    waiting.append(completion)
    guard waiting.count == 1 else { return }
    self.loop = loop
    counts = [:]
    expected = workers.count
    guard !workers.isEmpty, let registration = try? loop.add(reading.rawValue, [.readable], self) else {
      finish()
      return
    }
    self.registration = registration
    deadline = loop.schedule(after: Self.patience, self)
    for worker in workers { worker.count() }
  }

  override func ready(_ events: EventSet, tag: Int) {
    var count = QueueCount(queue: 0, connected: false, usesMemory: false, counters: PacketCounters())
    while case .bytes(MemoryLayout<QueueCount>.size) = withUnsafeMutableBytes(
      of: &count, { readBytes(reading.rawValue, $0) })
    { counts[count.queue] = count }
    if counts.count >= expected { finish() }
  }

  override func timerFired(_ key: Int) { finish() }

  private func finish() {
    if let registration { loop?.remove(registration) }
    if let deadline { loop?.cancel(deadline) }
    registration = nil
    deadline = nil
    let asked = waiting
    waiting = []
    let found = counts.values.sorted { $0.queue < $1.queue }
    for completion in asked { completion(found) }
  }
}
