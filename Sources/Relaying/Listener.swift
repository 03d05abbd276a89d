import CLinux
import EventLoop
import Inet
import LinuxSystem

/// Accepts connections on a listening socket. Out of descriptors it pauses instead of spinning or dying.
public final class Listener: EventSource {
  private let loop: EventLoop
  private let socket: FileHandle
  private let accepted: (FileHandle, IPEndpoint?) -> Void
  private let report: (String) -> Void
  private var registration: Registration?
  /// The last failure has been reported, and nothing was accepted since.
  private var isFailing = false
  /// Connections taken per turn before others have theirs.
  private static let turnLimit = 64
  private static let pause: Duration = .milliseconds(100)

  public init(
    loop: EventLoop, socket: FileHandle, report: @escaping (String) -> Void,
    accepted: @escaping (FileHandle, IPEndpoint?) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.report = report
    self.accepted = accepted
    super.init()
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  override public func ready(_ events: EventSet, tag: Int) {
    for _ in 0..<Self.turnLimit {
      do throws(SystemError) {
        guard let connection = try acceptStream(socket.rawValue) else { return }
        isFailing = false
        accepted(connection.descriptor, connection.peer)
      } catch {
        if !isFailing { report("\(error); accepting again as soon as it works") }
        isFailing = true
        if let registration { loop.remove(registration) }
        registration = nil
        loop.schedule(after: Self.pause, self)
        return
      }
    }
  }

  override public func timerFired(_ key: Int) {
    guard registration == nil else { return }
    do throws(SystemError) {
      registration = try loop.add(socket.rawValue, [.readable], self)
    } catch {
      report("\(error)")
      loop.schedule(after: Self.pause, self)
    }
  }

  public func close() {
    if let registration { loop.remove(registration) }
    registration = nil
  }
}
