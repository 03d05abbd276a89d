import CLinux
import EventLoop
import HeldConnections
import Inet
import LinuxSystem
import PacketRelaying
import Packets
import Policy
import Relaying
import Wire

// Theory of operation.
//
// With network.connect = "true" connections leave through the interface of TCP mode. `HeldConnections` (pure) holds the
// SYN and says whom to ask; here the host is asked, and what it made waits for the connection that comes of it:
//
//   device ▶ SYN ▶ held ▶ `EnclaveProxy` judges ▶ stream to the host ▶ its answer ▶ SYN to our listener, or RST, or ICMP
//   listener ▶ accept ▶ which entry, by the virtual address ▶ the stream that waits ▶ relay
//
// Where the name in a ClientHello decides, the SYN goes to our listener at once, because no client says that name
// before it is connected, and nothing may leave before the name is allowed: such a port is as with "early".

/// Connections whose results are the host's.
final class HeldEgress: EventSource, PacketEngine {
  /// What the proxy makes of a SYN.
  enum Judgement {
    case denied
    /// The enclave ends.
    case refused
    /// The same, and nobody could be there.
    case nowhere
    /// Accept first, then look at what comes.
    case accept
    case ask(Hello)
  }

  /// An accepted connection's place in the table; it ends with the last reference.
  final class Lease {
    private weak var owner: HeldEgress?
    private let id: HeldConnections.ID
    private let budget: ConnectionBudget.Lease?

    fileprivate init(_ owner: HeldEgress, _ id: HeldConnections.ID, _ budget: ConnectionBudget.Lease?) {
      self.owner = owner
      self.id = id
      self.budget = budget
    }

    deinit { owner?.table.closed(id) }
  }

  struct Accepted {
    var connection: FileReference
    var source: IPEndpoint
    var destination: IPEndpoint
    /// nil where the host has not been asked yet.
    var stream: (file: FileReference, early: [UInt8])?
    var lease: Lease
  }

  private struct Pending {
    enum State {
      /// The host need not be asked first.
      case accepting
      case asking(StreamOpening)
      case made(FileReference, early: [UInt8])
    }
    var lease: ConnectionBudget.Lease
    var state: State
  }

  private let loop: EventLoop
  private let link: PacketLink
  private let target: StreamTarget
  private let budget: ConnectionBudget
  private let timeout: Duration
  private let judge: (_ source: IPEndpoint, _ destination: IPEndpoint) -> Judgement
  private let failed: (_ destination: IPEndpoint, _ sentence: String, _ isWorthy: Bool) -> Void
  private var table: HeldConnections
  private var pending: [HeldConnections.ID: Pending] = [:]
  private var hasTimer = false
  private let answer: UnsafeMutableRawBufferPointer

  /// - Parameters:
  ///   - port: of the listeners.
  ///   - timeout: for the host's answer.
  ///   - failed: a connection was not made; worthy of the log where that is not the far end's doing.
  init(
    loop: EventLoop, link: PacketLink, port: UInt16, hasIPv6: Bool, target: StreamTarget, budget: ConnectionBudget,
    timeout: Duration, judge: @escaping (_ source: IPEndpoint, _ destination: IPEndpoint) -> Judgement,
    failed: @escaping (_ destination: IPEndpoint, _ sentence: String, _ isWorthy: Bool) -> Void
  ) {
    self.loop = loop
    self.link = link
    self.target = target
    self.budget = budget
    self.timeout = timeout
    self.judge = judge
    self.failed = failed
    var settings = HeldConnections.Settings(
      listener4: nil, listener6: nil, listenerPort: port, virtual4: AgreedAddresses.virtual4,
      virtual6: AgreedAddresses.virtual6(of: link.prefix6))
    if case .v4(let four) = AgreedAddresses.packets4.address { settings.listener4 = four }
    if case .v6(let six) = link.prefix6.address, hasIPv6 { settings.listener6 = six }
    settings.virtualCount = AgreedAddresses.virtualCount
    table = HeldConnections(settings)
    answer = .allocate(byteCount: Refusal.frameLimit, alignment: 16)
    super.init()
    resetOrphans(port)
  }

  deinit { answer.deallocate() }

  private static func seconds() -> UInt32 { UInt32(truncatingIfNeeded: monotonicNanoseconds() / 1_000_000_000) }

  // MARK: packets

  func take(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket) {
    // The link's own buffer, which it does not look at again.
    switch table.take(UnsafeMutableRawBufferPointer(mutating: frame), now: Self.seconds()) {
    case .pass: link.write(frame)
    case .passAndCancel(let id):
      link.write(frame)
      cancel(id)
    case .reset: reset(frame)
    case .drop: break
    case .ask(let id, let source, let destination): ask(id, source, destination)
    }
  }

  func settle() {}

  private func reset(_ frame: UnsafeRawBufferPointer) {
    guard let base = answer.baseAddress else { return }
    let length = Refusal.answer(to: frame, copied: frame.count, isOfFlow: true, base)
    link.write(UnsafeRawBufferPointer(rebasing: answer.prefix(length)))
  }

  // MARK: the host

  private func ask(_ id: HeldConnections.ID, _ source: IPEndpoint, _ destination: IPEndpoint) {
    startTimer()
    let judgement = judge(source, destination)
    switch judgement {
    case .denied: return reply(id, .unreachable(.prohibited))
    case .nowhere: return reply(id, .unreachable(.network))
    case .refused: return reply(id, .refused)
    case .accept, .ask: break
    }
    guard let lease = budget.lease(.outgoing) else { return reply(id, .refused) }
    switch judgement {
    case .denied, .nowhere, .refused: break
    case .accept:
      pending[id] = Pending(lease: lease, state: .accepting)
      reply(id, .connected)
    case .ask(let hello):
      let opening = StreamOpening(loop: loop, target: target, hello: hello, timeout: timeout) {
        [unowned self] outcome in
        pending[id] = nil
        switch outcome {
        case .opened(let stream, _, let early):
          pending[id] = Pending(lease: lease, state: .made(stream, early: early))
          reply(id, .connected)
        case .refused(let status):
          reply(id, Self.answer(for: status))
          failed(destination, "\(status)", false)
        case .failed(let sentence):
          reply(id, .unreachable(.network))
          failed(destination, sentence, true)
        }
      }
      pending[id] = Pending(lease: lease, state: .asking(opening))
      opening.start()
    }
  }

  /// What the far end, or the network before it, would have sent.
  private static func answer(for status: Status) -> HeldConnections.Answer {
    switch status {
    case .ok: .connected
    case .hostUnreachable: .unreachable(.host)
    case .networkUnreachable: .unreachable(.network)
    case .denied: .unreachable(.prohibited)
    case .timedOut: .silence
    case .refused, .reset, .nameNotFound, .noResources, .badRequest, .unsupported, .failed: .refused
    }
  }

  private func reply(_ id: HeldConnections.ID, _ answer: HeldConnections.Answer) {
    switch table.answer(id, answer, now: Self.seconds()) {
    case .frame(let frame): frame.withUnsafeBytes { link.write($0) }
    case .reset(let syn): syn.withUnsafeBytes { reset($0) }
    // The program has given up meanwhile.
    case .nothing: cancel(id)
    }
  }

  private func cancel(_ id: HeldConnections.ID) {
    if case .asking(let opening) = pending.removeValue(forKey: id)?.state { opening.cancel() }
  }

  // MARK: accepted

  /// What a connection that our listener has accepted stands for; nil where it is none of these.
  func accepted(_ connection: FileReference, from peer: IPEndpoint?) -> Accepted? {
    guard let peer, let found = table.accepted(from: peer) else { return nil }
    let waiting = pending.removeValue(forKey: found.id)
    var accepted = Accepted(
      connection: connection, source: found.source, destination: found.destination,
      lease: Lease(self, found.id, waiting?.lease))
    if case .made(let stream, let early) = waiting?.state { accepted.stream = (stream, early) }
    return accepted
  }

  // MARK: time

  private func startTimer() {
    guard !hasTimer else { return }
    hasTimer = true
    loop.schedule(after: .seconds(1), self)
  }

  override func timerFired(_ key: Int) {
    hasTimer = false
    for id in table.tick(now: Self.seconds()) { cancel(id) }
    if table.isWaiting { startTimer() }
  }

  // MARK: an earlier proxy's connections

  /// Some 150 bytes for each socket.
  private static let tableLimit = 128 << 20

  /// The programs' ends of them wait for ever otherwise.
  private func resetOrphans(_ port: UInt16) {
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
      guard let text = try? readFile(path, limit: Self.tableLimit) else { continue }
      var connections = ConnectionTable()
      connections.add(text)
      for (local, remote) in connections.connections
      where local.address == link.address(like: local.address) && local.port != port && !isOwn(remote) {
        for sequence in OrphanProbe.sequences {
          OrphanProbe.frame(from: remote, to: local, sequence: sequence).withUnsafeBytes { link.write($0) }
        }
      }
    }
  }

  private func isOwn(_ end: IPEndpoint) -> Bool {
    AgreedAddresses.packets4.contains(end.address) || link.prefix6.contains(end.address)
  }
}
