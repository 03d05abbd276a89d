import EventLoop
import HostStatus
import Inet
import LinuxSystem
import Relaying
import Wire

/// Clients of published ports, and the stream on which the enclave says which of these ports are listened on.
///
/// A published port's socket is bound from the start, so that nobody else takes it. It listens only while the enclave says
/// that a program does on the enclave's port, so clients are refused as they would be without an enclave.
final class PublishedPorts: ChannelServer {
  private static let enclaveTimeout: Duration = .seconds(15)
  /// How long what the enclave said last holds when it has gone: the proxy inside starts again in that time.
  private static let grace: Duration = .seconds(1)
  /// How long clients wait who were there before us.
  private static let startGrace: Duration = .seconds(10)

  private let loop: EventLoop
  private let enclave: StreamTarget
  private let peer: PeerKey
  private let sessions: SessionServer
  private let connections: Connections
  private let counters: HostCounters
  private let budget: Budget
  private let complaints: ComplaintLog
  /// Clients come through a load balancer, which says who they are.
  private let acceptsProxyProtocol: Bool
  private let log: (String) -> Void
  private let debug: (String) -> Void
  /// Connects to the enclave for a host side that may not; nil where it does so itself.
  var connect: (() throws(SystemError) -> FileReference)?
  private var listeners: [(listener: Listener, port: PublishedPort, place: Int)] = []
  private var stream: MessageStream?
  private var isDraining = false

  /// - Parameters:
  ///   - enclave: where streams to it are opened, and `peer` whose they are.
  ///   - published: sockets of `PublishedPort.open`, those of TCP; with their places among all that are published.
  init(
    loop: EventLoop, enclave: StreamTarget, peer: PeerKey,
    published: [(socket: FileReference, port: PublishedPort, place: Int)],
    inherited: InheritedSockets, acceptsProxyProtocol: Bool,
    sessions: SessionServer, connections: Connections, counters: HostCounters, budget: Budget, complaints: ComplaintLog,
    log: @escaping (String) -> Void, debug: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.enclave = enclave
    self.peer = peer
    self.acceptsProxyProtocol = acceptsProxyProtocol
    self.sessions = sessions
    self.connections = connections
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.log = log
    self.debug = debug
    for (socket, port, place) in published {
      setResetOnClose(socket.rawValue, true)
      let isShared = inherited.contains(socket)
      // Where it listens a program has listened when our predecessor ended, and its enclave is known.
      let isKnown = isShared && isListening(socket.rawValue) && sessions.hostToken(peer) != nil
      let listener = try Listener(
        loop: loop, socket: socket, listening: isKnown, isShared: isShared, report: { log("-p \(port): \($0)") }
      ) {
        [unowned self] in accepted($0, $1, port)
      }
      listeners.append((listener, port, place))
    }
    loop.schedule(
      after: Self.startGrace, TimerSource { [weak self] in if let self, stream == nil { listen(on: []) } })
  }

  /// One stream at a time: a proxy that was started again has a new one.
  func serve(_ admitted: AdmittedStream) throws {
    admitted.answer(.ok)
    let old = stream
    stream = try MessageStream(loop: loop, socket: admitted.stream, early: admitted.early) {
      [unowned self] from, bytes in
      do throws(WireError) {
        let ports = try ListeningPorts.decode(bytes)
        if from === stream { listen(on: ports) }
      } catch {
        complaints.say(.brokenStreams, "a listening stream from the enclave: \(error)")
        from.close()
      }
    } closed: { [unowned self] in
      guard $0 === stream else { return }
      stream = nil
      loop.schedule(
        after: Self.grace, TimerSource { [weak self] in if let self, stream == nil { listen(on: []) } })
    }
    old?.close()
  }

  /// Refuses clients from now on.
  func drain() {
    isDraining = true
    for (listener, _, _) in listeners { listener.end() }
  }

  private func listen(on ports: Set<UInt16>) {
    guard !isDraining else { return }
    for (listener, port, _) in listeners { listener.setListening(ports.contains(port.enclavePort)) }
  }

  private func accepted(_ client: FileReference, _ from: IPEndpoint?, _ port: PublishedPort) {
    counters.traffic.incoming.total &+= 1
    guard let token = sessions.hostToken(peer) else {
      // Clients that wait for the enclave try again and again.
      counters.traffic.incoming.failed &+= 1
      debug("client \(from?.description ?? "?") of \(port): the enclave has not come yet")
      return
    }
    // Its socket's reset says that there is no room.
    guard let lease = budget.lease(.incoming, for: peer) else {
      counters.traffic.incoming.failed &+= 1
      return budget.refused(.incoming, peer)
    }
    guard acceptsProxyProtocol else { return open(client, from, port, token, lease) }
    do throws(SystemError) {
      _ = try ProxyHeaderReading(loop: loop, socket: client) { [unowned self] outcome in
        switch outcome {
        case .source(let source): return open(client, source ?? from, port, token, lease)
        case .probed: break
        case .failed(let reason):
          complaints.say(.lostClients, "client \(from?.description ?? "?") of \(port): \(reason)")
        }
        counters.traffic.incoming.failed &+= 1
      }
    } catch {
      counters.traffic.incoming.failed &+= 1
      complaints.say(.lostClients, "client \(from?.description ?? "?") of \(port): \(error)")
    }
  }

  private func open(
    _ client: FileReference, _ from: IPEndpoint?, _ port: PublishedPort, _ token: Token, _ lease: Budget.Lease
  ) {
    let request = ConnectRequest(.port(port.enclavePort), source: from)
    StreamOpening(
      loop: loop, target: enclave, hello: request.hello.proven(by: token), timeout: Self.enclaveTimeout,
      connect: connect
    ) { [unowned self] outcome in
      switch outcome {
      case .opened(let stream, _, let early):
        connections.relay(
          plain: client, framed: stream, early: early, lease, of: peer, \.incoming.open,
          "client \(from?.description ?? "?") of \(port)")
      case .refused(let status):
        counters.traffic.incoming.failed &+= 1
        debug("client \(from?.description ?? "?") of \(port): \(status)")
      case .failed(let sentence):
        counters.traffic.incoming.failed &+= 1
        complaints.say(.lostClients, "client \(from?.description ?? "?") of \(port): \(sentence)")
      }
    }.start()
  }

  func write(to status: inout HostStatus) {
    for published in listeners where status.published.indices.contains(published.place) {
      status.published[published.place].listening = published.listener.isListening
    }
  }
}
