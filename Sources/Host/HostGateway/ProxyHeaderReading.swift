import CLinux
import EventLoop
import Inet
import LinuxSystem
import Wire

/// Reads the PROXY header at a connection's beginning, and not one byte behind it.
final class ProxyHeaderReading: EventSource {
  enum Outcome {
    /// nil: the sender names no client.
    case source(IPEndpoint?)
    /// Closed before a byte: somebody looked whether we are there.
    case probed
    /// Completes "client …: ".
    case failed(String)
  }

  private static let timeout: Duration = .seconds(10)

  private let loop: EventLoop
  private let socket: FileReference
  private let completion: (Outcome) -> Void
  private var registration: Registration?
  private var deadline: TimerToken?

  init(
    loop: EventLoop, socket: FileReference, completion: @escaping (Outcome) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.completion = completion
    super.init()
    // Each arrival is an edge; what was looked at stays readable and must not wake us again.
    registration = try loop.add(socket.rawValue, [.readable, .readHangup, .edgeTriggered], self)
    deadline = loop.schedule(after: Self.timeout, self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard registration != nil else { return }
    let isOver = !events.isDisjoint(with: [.readHangup, .hangup, .error])
    var buffer = [UInt8](repeating: 0, count: ProxyHeader.limit)
    switch buffer.withUnsafeMutableBytes({ peekBytes(socket.rawValue, $0) }) {
    case .bytes(let count):
      switch ProxyHeader.read(Array(buffer[..<count])) {
      case .header(let source, let length):
        // It is all there: the peek has shown it.
        guard
          case .bytes(length) = buffer.withUnsafeMutableBytes({
            readBytes(socket.rawValue, UnsafeMutableRawBufferPointer(rebasing: $0[..<length]))
          })
        else { return finish(.failed("its PROXY header could not be read")) }
        finish(.source(source))
      case .incomplete:
        if count == 0 { return finish(.probed) }
        if isOver { finish(.failed("it ended within its PROXY header")) }
      case .malformed(let reason): finish(.failed("a PROXY header that \(reason)"))
      }
    case .wouldBlock: if isOver { finish(.probed) }
    case .failed: finish(.probed)
    }
  }

  override func timerFired(_ key: Int) { finish(.failed("no PROXY header within \(Self.timeout)")) }

  private func finish(_ outcome: Outcome) {
    guard let registration else { return }
    loop.remove(registration)
    self.registration = nil
    if let deadline { loop.cancel(deadline) }
    completion(outcome)
  }
}
