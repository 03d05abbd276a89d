import EventLoop
import Inet
import LinuxSystem
import Policy
import Relaying

// Theory of operation.
//
//   PID 1's SIGUSR2 ▶ the host is told that nobody listens; forwards close; connections to the outside are refused
//   ▶ open connections end, or are reset when their time is over ▶ a second byte on the readiness pipe ▶ PID 1 stops the program
//
// The servers of volumes are reached all the same, because what the program has written must still get there; their connections
// are not waited for, since they end when a volume is unmounted. Datagrams are not waited for either: nobody knows their end.

/// The proxy's part of an end in order.
final class ProxyDrain {
  /// Streams of clients whom the host has accepted before it heard of the end.
  private static let lateTime: UInt64 = 1_000_000_000

  /// Connections that are waited for.
  let open = OpenRelays()
  private let kept: Destinations?
  /// Those that were reached: a name's addresses are forgotten sooner than a volume is.
  private var reached: Set<IPEndpoint> = []
  private static let reachedLimit = 256
  private var pipe: FileReference?
  private var began: UInt64?
  private var draining: Draining?

  init(_ settings: ProxySettings) {
    kept = settings.kept.isEmpty ? nil : Destinations(EgressRules(isOpen: false, allow: settings.kept, deny: []))
  }

  /// What says that nothing is open any more.
  func tell(on pipe: FileReference) { self.pipe = pipe }

  func start(_ limit: Duration, loop: EventLoop, _ log: @escaping (String) -> Void) {
    guard began == nil else { return }
    began = monotonicNanoseconds()
    draining = Draining(
      loop: loop, limit: limit, count: { [open] in open.count }, abort: { [open] in open.abort() },
      finished: { [unowned self] in
        if $0 > 0 { log("connections that were still open, and are reset: \($0)") }
        if let pipe { try? writeAll(pipe.rawValue, [2], "readiness pipe") }
        pipe = nil
      })
  }

  /// Whether a connection to the outside is refused.
  func refuses(_ destination: IPEndpoint, _ names: [DomainName]) -> Bool { began != nil && !isKept(destination, names) }

  var refusesClients: Bool { began.map { monotonicNanoseconds() &- $0 > Self.lateTime } ?? false }

  func isKept(_ destination: IPEndpoint, _ names: [DomainName]) -> Bool {
    guard let kept else { return false }
    if reached.contains(destination) { return true }
    guard kept.denial(of: destination.address, port: destination.port, .tcp, names: names) == nil else { return false }
    if reached.count < Self.reachedLimit { reached.insert(destination) }
    return true
  }
}
