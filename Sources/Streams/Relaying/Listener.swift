import CLinux
import EventLoop
import Inet
import LinuxSystem

/// Accepts connections on a listening socket. Out of descriptors it refuses clients, out of memory it pauses, instead of
/// spinning or dying. It can stop listening, and start again.
public final class Listener: EventSource {
  private let loop: EventLoop
  private let socket: FileReference
  private let accepted: (FileReference, IPEndpoint?) -> Void
  private let report: (String) -> Void
  private var registration: Registration?
  public private(set) var isListening: Bool
  /// Others hold the socket too, and serve it when we do not.
  private let isShared: Bool
  /// Clients wait in the kernel's queue: it is not known yet whether they are to be refused.
  private var waits = false
  /// When a failure was last reported, and how many there were since.
  private var reported: UInt64?
  private var unreported = 0
  /// Connections taken per turn before others have theirs.
  private static let turnLimit = 64
  private static let pause: Duration = .milliseconds(100)
  /// Nanoseconds between two reports.
  private static let silence: UInt64 = 10_000_000_000

  /// - Parameters:
  ///   - listening: whether it accepts from the start; a socket that does not listen was made by `reserveListener`.
  ///   - isShared: the socket goes on listening without us.
  public init(
    loop: EventLoop, socket: FileReference, listening: Bool = true, isShared: Bool = false,
    report: @escaping (String) -> Void,
    accepted: @escaping (FileReference, IPEndpoint?) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.socket = socket
    self.report = report
    self.accepted = accepted
    isListening = listening
    self.isShared = isShared
    super.init()
    guard listening else {
      waits = isShared && LinuxSystem.isListening(socket.rawValue)
      return
    }
    registration = try loop.add(socket.rawValue, [.readable], self)
  }

  /// Accepts what has come, and refuses all clients from now on; those of a shared socket wait for who serves it next.
  public func end() {
    if isShared {
      close()
      (waits, isListening) = (isListening, false)
      return
    }
    if registration != nil { ready(.readable, tag: 0) }
    setListening(false)
  }

  /// Listens, or refuses all clients; what does not work now is tried again until it does.
  public func setListening(_ on: Bool) {
    guard on != isListening || waits else { return }
    waits = false
    isListening = on
    close()
    on ? start() : stop()
  }

  private func start() {
    do throws(SystemError) {
      try startListening(socket.rawValue)
      registration = try loop.add(socket.rawValue, [.readable], self)
    } catch {
      fail(error)
    }
  }

  private func stop() {
    do throws(SystemError) { try stopListening(socket.rawValue) } catch { report("\(error)") }
  }

  private func fail(_ error: SystemError) {
    complain(error, "accepting again as soon as it works")
    close()
    loop.schedule(after: Self.pause, self)
  }

  private func complain(_ error: SystemError, _ consequence: String) {
    let now = monotonicNanoseconds()
    if let reported, now &- reported < Self.silence { return unreported += 1 }
    report("\(error); \(consequence)" + (unreported == 0 ? "" : " (and \(unreported) more since the last such line)"))
    reported = now
    unreported = 0
  }

  /// Takes the client that waits, and lets it go at once: it is refused, and does not wait for a place that may never come.
  /// - Returns: whether there was one.
  private func refuseOne() -> Bool {
    var refused = false
    let had = loop.withSpareDescriptor {
      if let taken = try? acceptStream(socket.rawValue) {
        refused = true
        withExtendedLifetime(taken) {}
      }
    }
    return had && refused
  }

  override public func ready(_ events: EventSet, tag: Int) {
    for _ in 0..<Self.turnLimit {
      do throws(SystemError) {
        guard let connection = try acceptStream(socket.rawValue) else { return }
        accepted(connection.descriptor, connection.peer)
      } catch {
        guard error.errno == EMFILE || error.errno == ENFILE, refuseOne() else { return fail(error) }
        complain(error, "clients are refused until there are fewer connections")
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
