import EventLoop
import LinuxSystem
import Relaying

/// Answers the heartbeat of AWS's boot contract where no nitro-cli does: each byte that comes is sent back.
public final class HeartbeatResponder {
  public static let port: UInt32 = 9000
  private var listener: Listener?

  public init(loop: EventLoop, socket: FileReference, report: @escaping (String) -> Void) throws(SystemError) {
    listener = try Listener(loop: loop, socket: socket, report: report) { stream, _ in
      _ = try? HeartbeatEcho(loop, stream)
    }
  }
}

/// One enclave's heartbeat; bounded in time, kept by the loop.
private final class HeartbeatEcho: EventSource {
  private let loop: EventLoop
  private let stream: FileReference
  private var registration: Registration?
  private var deadline: TimerToken?

  init(_ loop: EventLoop, _ stream: FileReference) throws(SystemError) {
    self.loop = loop
    self.stream = stream
    super.init()
    registration = try loop.add(stream.rawValue, [.readable], self)
    deadline = loop.schedule(after: .seconds(10), self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    var byte: [UInt8] = [0]
    switch byte.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
    case .bytes(1): _ = byte.withUnsafeBytes { sendBytes(stream.rawValue, $0) }
    case .wouldBlock: break
    default: end()
    }
  }

  override func timerFired(_ key: Int) { end() }

  private func end() {
    if let registration { loop.remove(registration) }
    if let deadline { loop.cancel(deadline) }
    registration = nil
  }
}
