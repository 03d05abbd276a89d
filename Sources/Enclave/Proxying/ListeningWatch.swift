import EventLoop
import Inet
import LinuxSystem
import Relaying
import Wire

// Theory of operation.
//
// The host must refuse clients of a published port while no program listens on it. Only the enclave can know, so the proxy
// looks again and again, and tells the host on a stream of its own: first what is so now, then each change.
//
// How often: the longer nothing has changed, the more rarely. A program that has taken t to come up is noticed within t/50,
// at least 10 ms and at most 100 ms; and looking never takes more than a hundredth of one processor's time. While no host
// is there nobody looks. Sockets of datagrams are looked at in the same way, where the host publishes UDP ports; what there is
// goes over the stream of datagrams (`ArrivalRelay`).

/// Tells the host which of the published ports are listened on.
final class ListeningWatch: EventSource {
  private static let shortest: UInt64 = 10_000_000
  private static let longest: UInt64 = 100_000_000
  private static let firstRetry: Duration = .milliseconds(20)
  private static let lastRetry: Duration = .seconds(2)
  private static let lookKey = 0
  private static let openKey = 1

  private let loop: EventLoop
  private let target: StreamTarget
  private let token: Token
  private let ports: [UInt16]
  private let query: ListenerQuery
  /// Is told at which ports programs take datagrams.
  private let datagrams: ArrivalRelay
  private let report: (String) -> Void
  private var stream: MessageStream?
  private var told: Set<UInt16> = []
  private var changed: UInt64 = 0
  private var next: TimerToken?
  private var retry = firstRetry
  private var hasFailed = false
  private var isDraining = false

  /// - Parameters:
  ///   - known: a port of 127.0.0.1 on which this process itself listens.
  ///   - report: takes sentences for the operator.
  init(
    loop: EventLoop, target: StreamTarget, token: Token, ports: [UInt16], known: UInt16,
    datagrams: ArrivalRelay, report: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.target = target
    self.token = token
    self.ports = ports
    self.report = report
    self.datagrams = datagrams
    query = ListenerQuery(known: known)
    super.init()
    datagrams.look = { [unowned self] in lookAtDatagrams() }
    open()
  }

  /// The host refuses clients from now on.
  func drain() {
    isDraining = true
    tell([])
    lookAtDatagrams()
  }

  private func open() {
    StreamOpening(
      loop: loop, target: target, hello: ListeningPorts.hello.proven(by: token), timeout: .seconds(10)
    ) { [weak self] outcome in
      guard let self else { return }
      guard case .opened(let socket, _, let early) = outcome else { return openLater() }
      do throws(SystemError) {
        stream = try MessageStream(loop: loop, socket: socket, early: early) { stream, _ in
          // The host has nothing to say here.
          stream.close()
        } closed: { [weak self] _ in
          self?.stream = nil
          self?.openLater()
        }
      } catch {
        return openLater()
      }
      retry = Self.firstRetry
      tell(look())
      lookLater(0)
    }.start()
  }

  private func openLater() {
    loop.schedule(after: retry, self, key: Self.openKey)
    retry = min(retry * 2, Self.lastRetry)
  }

  override func timerFired(_ key: Int) {
    if key == Self.openKey { return open() }
    guard stream != nil else { return }
    let start = monotonicNanoseconds()
    let found = look()
    lookAtDatagrams()
    let took = monotonicNanoseconds() &- start
    if found != told { tell(found) }
    if stream != nil { lookLater(took) }
  }

  /// - Parameter took: nanoseconds of the last look.
  private func lookLater(_ took: UInt64) {
    let age = monotonicNanoseconds() &- changed
    let delay = max(min(max(age / 50, Self.shortest), Self.longest), took &* 100)
    if let next { loop.cancel(next) }
    next = loop.schedule(after: .nanoseconds(Int64(clamping: delay)), self, key: Self.lookKey)
  }

  private func tell(_ found: Set<UInt16>) {
    told = found
    changed = monotonicNanoseconds()
    stream?.send(ListeningPorts.encode(found))
  }

  private func lookAtDatagrams() {
    guard datagrams.isPublishing else { return }
    var found: [UInt16: DatagramReach] = [:]
    do throws(SystemError) {
      if isDraining { return _ = datagrams.found([:]) }
      found = try query.datagrams(among: ports, own: datagrams.addresses)
    } catch {
      if !hasFailed { report("published UDP ports are open without a look at who takes datagrams: \(error)") }
      hasFailed = true
      for port in ports { found[port] = [] }
    }
    if datagrams.found(found) { changed = monotonicNanoseconds() }
  }

  /// Where the kernel does not tell, clients are let in, and reset where nothing listens.
  private func look() -> Set<UInt16> {
    guard !isDraining else { return [] }
    do throws(SystemError) {
      return try query.listening(among: ports)
    } catch {
      if !hasFailed { report("published ports are open without a look at who listens: \(error)") }
      hasFailed = true
      return Set(ports)
    }
  }
}
