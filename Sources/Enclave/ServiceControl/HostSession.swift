import CLinux
import EventLoop
import LinuxSystem
import Relaying
import Wire

// Theory of operation.
//
// One stream between PID 1 and the host, opened before any service starts, so that nobody else in the enclave can be first:
// the host knows a boot by the secrets that its first session brings. What has changed since goes over it, and orders of the
// host come back. When it is lost it is opened again, and begins with the state of everything: nothing is queued for a host
// that is away, so nothing grows.
//
// PID 1 parses what comes: a header of four bytes, a type, at most 256 bytes. Anything that is not one of three orders ends
// the session and nothing else.

/// PID 1's session with the host.
public final class HostSession: EventSource {
  private static let timeout: Duration = .seconds(30)
  private static let firstDelay: Duration = .milliseconds(20)
  /// Short, because the host waits for us after its own restart, and lets nobody else in meanwhile.
  private static let longestDelay: Duration = .milliseconds(250)

  private let loop: EventLoop
  private let target: StreamTarget
  private let hello: Hello
  private let log: (String) -> Void
  private var stream: SessionStream?
  private var opening: StreamOpening?
  private var delay = HostSession.firstDelay
  /// The last state of each service, in the order of their first.
  private var services: [(name: String, state: ServiceReport)] = []
  private var exit: UInt8?

  /// Carries out an order that is not a question.
  public var ordered: ((HostOrder) -> Void)?
  /// Answers `HostOrder.count`.
  public var counters: ((UInt32) -> EnclaveCounters)?

  /// - Parameters:
  ///   - hello: the start report with the session's token, the same for every stream of this boot.
  ///   - stream: the first one, open already, and bytes that came behind its answer.
  public init(
    loop: EventLoop, target: StreamTarget, hello: Hello, stream: FileReference, early: [UInt8],
    log: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.target = target
    self.hello = hello
    self.log = log
    super.init()
    try adopt(stream, early)
  }

  /// A service has changed.
  /// - Parameter name: as `EnclaveReport.service` takes it.
  public func report(_ name: String, _ state: ServiceReport) {
    if let index = services.firstIndex(where: { $0.name == name }) {
      guard services[index].state != state else { return }
      services[index].state = state
    } else {
      services.append((name, state))
    }
    stream?.send(EnclaveReport.service(name: name, state: state).encoded())
  }

  /// The program has ended, and with it the enclave.
  public func report(exit status: UInt8) {
    exit = status
    stream?.send(EnclaveReport.exit(status).encoded())
  }

  private func adopt(_ socket: FileReference, _ early: [UInt8]) throws(SystemError) {
    let made = try SessionStream(loop: loop, socket: socket, early: early) {
      [unowned self] type, payload throws(WireError) in
      switch try HostOrder(type: type, payload: payload) {
      case .count(let id): if let counters { stream?.send(EnclaveReport.counters(counters(id)).encoded()) }
      case let order: ordered?(order)
      }
    } closed: { [unowned self] problem in
      stream = nil
      if let problem { log("the session with the host ended: \(problem)") }
      openLater()
    }
    stream = made
    for service in services { made.send(EnclaveReport.service(name: service.name, state: service.state).encoded()) }
    if let exit { made.send(EnclaveReport.exit(exit).encoded()) }
  }

  private func openLater() {
    loop.schedule(after: delay, self)
    delay = min(Self.longestDelay, delay * 2)
  }

  override public func timerFired(_ key: Int) {
    guard stream == nil, opening == nil else { return }
    let attempt = StreamOpening(loop: loop, target: target, hello: hello, timeout: Self.timeout) {
      [unowned self] outcome in
      opening = nil
      guard case .opened(let socket, _, let early) = outcome else { return openLater() }
      do throws(SystemError) {
        try adopt(socket, early)
        delay = Self.firstDelay
      } catch {
        openLater()
      }
    }
    opening = attempt
    attempt.start()
  }
}
