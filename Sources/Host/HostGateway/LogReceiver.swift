import EventLoop
import LinuxSystem
import Relaying
import Wire

/// One log stream from an enclave: records in, acknowledgements out.
final class LogReceiver: EventSource {
  private let loop: EventLoop
  private let stream: FileReference
  let position: LogPosition
  private let sinks: LogSinks
  private let label: String
  private let denials: EnclaveDenials
  private let exited: (UInt8) -> Void
  private let closed: (LogReceiver, String?) -> Void
  private var registration: Registration?
  private var decoder = LogRecordDecoder()
  private var acknowledged: UInt64 = 0
  /// When the last bytes arrived.
  private var received = realtimeNanoseconds()
  private var ended = false

  init(
    loop: EventLoop, stream: FileReference, early: [UInt8], position: LogPosition, sinks: LogSinks,
    label: String, denials: EnclaveDenials, exited: @escaping (UInt8) -> Void,
    closed: @escaping (LogReceiver, String?) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.stream = stream
    self.position = position
    self.sinks = sinks
    self.label = label
    self.denials = denials
    self.exited = exited
    self.closed = closed
    acknowledged = position.acknowledged
    super.init()
    decoder.append(early)
    registration = try loop.add(stream.rawValue, [.readable], self)
    if !early.isEmpty { loop.enqueue(self) }
  }

  /// The sinks have come further, or have room again.
  override func resume() {
    process()
    if !ended, registration == nil, !sinks.isFull { registration = try? loop.add(stream.rawValue, [.readable], self) }
  }

  override func ready(_ events: EventSet, tag: Int) {
    var chunk = [UInt8](repeating: 0, count: 65536)
    switch chunk.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
    case .bytes(0), .failed: close(nil)
    case .bytes(let count):
      received = realtimeNanoseconds()
      decoder.append(chunk[..<count])
      process()
    case .wouldBlock: break
    }
  }

  private func process() {
    guard !ended else { return }
    var exit: UInt8?
    defer { if let exit { exited(exit) } }
    do throws(WireError) {
      while !sinks.isFull, let record = try decoder.next() {
        // Sent again after a lost stream; the sequence tells.
        guard record.sequence > position.received else { continue }
        position.took(record.sequence)
        sinks.write(record, label: label, received: received)
        denials.take(record, label: label)
        if case .exit(let status) = record.body { exit = status }
      }
    } catch {
      sinks.flush()
      close("the enclave's log stream broke the protocol: \(error)")
      return
    }
    sinks.flush()
    acknowledge()
    if sinks.isFull, let current = registration {
      loop.remove(current)
      registration = nil
    }
  }

  private func acknowledge() {
    position.mark(sinks.given)
    position.advance(to: sinks.acknowledged)
    guard position.acknowledged > acknowledged else { return }
    var bytes: [UInt8] = []
    bytes.append(integer: position.acknowledged)
    // Eight bytes fit, or an enclave does not read its acknowledgements and the stream is no use.
    switch bytes.withUnsafeBytes({ sendBytes(stream.rawValue, $0) }) {
    case .bytes(LogAcknowledgement.length): acknowledged = position.acknowledged
    // The enclave has gone; what it sent before is still to be read, and its end comes behind that.
    case .failed: acknowledged = position.acknowledged
    default: close(nil)
    }
  }

  func close(_ problem: String?) {
    guard !ended else { return }
    ended = true
    if let registration { loop.remove(registration) }
    closed(self, problem)
  }
}
