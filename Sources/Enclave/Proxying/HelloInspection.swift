import CLinux
import EventLoop
import LinuxSystem
import TLS

/// Looks at the first bytes of a connection until it knows what they are. They stay in the socket: its next reader gets
/// every one of them (MSG_PEEK, recv(2)).
final class HelloInspection: EventSource {
  /// A client that says nothing for so long cannot be judged.
  private static let timeout: Duration = .seconds(10)

  private let loop: EventLoop
  private let socket: FileReference
  private let completion: (HelloInspection, ClientHello.Reading) -> Void
  private var registration: Registration?
  private var deadline: TimerToken?

  /// - Parameter completion: called once, from the loop; with `incomplete` where nothing more will come, or came in time.
  init(
    loop: EventLoop, socket: FileReference, completion: @escaping (HelloInspection, ClientHello.Reading) -> Void
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
    let reading = withUnsafeTemporaryAllocation(byteCount: ClientHello.limit * 2, alignment: 1) {
      buffer -> ClientHello.Reading? in
      switch peekBytes(socket.rawValue, buffer) {
      case .bytes(let count):
        let found = ClientHello.read(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
        if found != .incomplete { return found }
        if count == buffer.count { return .malformed("is in too many records") }
        return isOver || count == 0 ? .incomplete : nil
      case .wouldBlock: return isOver ? .incomplete : nil
      case .failed: return .incomplete
      }
    }
    if let reading { finish(reading) }
  }

  override func timerFired(_ key: Int) { finish(.incomplete) }

  private func finish(_ reading: ClientHello.Reading) {
    guard let registration else { return }
    loop.remove(registration)
    self.registration = nil
    if let deadline { loop.cancel(deadline) }
    completion(self, reading)
  }
}
