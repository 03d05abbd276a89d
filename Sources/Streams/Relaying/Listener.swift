import CLinux
import EventLoop
import Inet
import LinuxSystem

/// Accepts connections on a listening socket. Out of descriptors it pauses instead of spinning or dying. It can stop
/// listening, and start again.
public final class Listener: EventSource {
  private let loop: EventLoop
  private let socket: FileReference
  private let accepted: (FileReference, IPEndpoint?) -> Void
  private let report: (String) -> Void
  private var registration: Registration?
  public private(set) var isListening: Bool
  /// The last failure has been reported, and nothing was accepted since.
  private var isFailing = false
  /// Connections taken per turn before others have theirs.
  private static let turnLimit = 64
  private static let pause: Duration = .milliseconds(100)

  /// - Parameter listening: whether the socket does; one that does not was made by `reserveListener`.
  public init(
    loop: EventLoop, socket: FileReference, listening: Bool = true, report: @escaping (String) -> Void,
    accepted: @escaping (FileReference, IPEndpoint?) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.report = report
    self.accepted = accepted
    isListening = listening
    super.init()
    guard listening else { return }
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  /// Listens, or refuses all clients; what does not work now is tried again until it does.
  public func setListening(_ on: Bool) {
    guard on != isListening else { return }
    isListening = on
    close()
    on ? start() : stop()
  }

  private func start() {
    do throws(SystemError) {
      try startListening(socket.rawValue)
      registration = try loop.add(socket.rawValue, [.readable], self)
      isFailing = false
    } catch {
      fail(error)
    }
  }

  private func stop() {
    do throws(SystemError) { try stopListening(socket.rawValue) } catch { report("\(error)") }
  }

  private func fail(_ error: SystemError) {
    if !isFailing { report("\(error); accepting again as soon as it works") }
    isFailing = true
    close()
    loop.schedule(after: Self.pause, self)
  }

  override public func ready(_ events: EventSet, tag: Int) {
    for _ in 0..<Self.turnLimit {
      do throws(SystemError) {
        guard let connection = try acceptStream(socket.rawValue) else { return }
        isFailing = false
        accepted(connection.descriptor, connection.peer)
      } catch {
        return fail(error)
      }
    }
  }

  override public func timerFired(_ key: Int) {
    // Listening twice is no error (listen(2) only sets the backlog then).
    if registration == nil, isListening { start() }
  }

  public func close() {
    if let registration { loop.remove(registration) }
    registration = nil
  }
}
