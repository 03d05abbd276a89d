import CLinux
import DNS
import EventLoop
import HostNetwork
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Wire

// Theory of operation.
//
// The other half of the enclave's proxy and the home of its log. One loop:
//
//   stream from the enclave ▶ hello ▶ session: a boot admitted, reports and orders
//                                   ▶ token of the boot, or refused
//                                   ▶ connect: policy, connect(2), answer, relay
//                                   ▶ resolve: queries to the host's resolvers
//                                   ▶ logs:    records to the sink, acknowledgements back
//                                   ▶ control: addresses, in raw mode
//                                   ▶ listening: which published ports are listened on
//   client of a published port ▶ stream to the enclave, connect hello ▶ answer ▶ relay, or reset
//
// A published port's socket is bound from the start, so that nobody else takes it. It listens only while the enclave says
// that a program does on the enclave's port, so clients are refused as they would be without an enclave.

/// A port of the host that leads to a port of the program.
public struct PublishedPort: Equatable, Sendable, CustomStringConvertible {
  public var listen: IPEndpoint
  public var enclavePort: UInt16
  public var transport: PortTransport

  public init(listen: IPEndpoint, enclavePort: UInt16, transport: PortTransport = .tcp) {
    self.listen = listen
    self.enclavePort = enclavePort
    self.transport = transport
  }

  /// Reads `[ADDR:]HOSTPORT:ENCLAVEPORT[/tcp|/udp]`; without an address every IPv4 address of the host listens.
  public init?(_ whole: String) {
    let parts = whole.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let text = parts.first, let transport = parts.count == 1 ? .tcp : PortTransport(rawValue: String(parts[1]))
    else { return nil }
    guard let colon = text.lastIndex(of: ":"), let enclave = decimalPort(text[text.index(after: colon)...]),
      enclave != 0
    else { return nil }
    let left = text[..<colon]
    guard let listen = left.contains(":") ? IPEndpoint(left) : decimalPort(left).map({ IPEndpoint(.v4(.any), $0) })
    else { return nil }
    self.init(listen: listen, enclavePort: enclave, transport: transport)
  }

  public var description: String { "\(listen) → \(enclavePort)" + (transport == .udp ? "/udp" : "") }

  /// The port's socket: one that listens as soon as the program does; in raw mode, where the kernel passes clients on, one that only keeps the port from
  /// others.
  public func open(raw: Bool) throws(SystemError) -> FileHandle {
    let address = SocketAddress.ip(listen)
    switch (raw, transport) {
    case (false, _): return FileHandle(try reserveListener(address))
    case (true, .tcp): return FileHandle(try reserveStream(address))
    case (true, .udp): return FileHandle(try reserveDatagram(address))
    }
  }
}

/// Which vsock peers a gateway serves.
public enum PeerRule: Equatable, Sendable {
  /// The transport has one enclave at its other end.
  case only
  /// Connections of other machines are refused.
  case cid(UInt32)
  /// Every enclave of this host; the log tells them apart.
  case any
}

/// The host's side of one enclave, or of all of them.
public final class Gateway {
  /// tcp(7): with tcp_syn_retries at its default the kernel gives up after about 127 s.
  private static let connectTimeout: Duration = .seconds(130)
  private static let enclaveTimeout: Duration = .seconds(15)

  private let loop: EventLoop
  private let buffer = RelayBuffer()
  private let enclave: StreamTarget
  private let log: (String) -> Void
  private let complaints: ComplaintLog
  private let verbose: Bool
  private let peers: PeerRule
  private let resolver: Resolver
  private var sink: LogSink!
  private var listeners: [Listener] = []
  private var publishedListeners: [(listener: Listener, port: PublishedPort)] = []
  /// Where the enclave says which ports are listened on.
  private var listeningStream: MessageStream?
  /// How long what it said last holds when it has gone: the proxy inside starts again in that time.
  private static let listeningGrace: Duration = .seconds(1)
  private var receivers: [LogReceiver] = []
  private var positions: [BootID: LogPosition] = [:]
  private let sessions: SessionServer
  private let peerUsers: Set<UInt32>?
  private var resolveStreams: [ObjectIdentifier: MessageStream] = [:]

  /// The program's exit status, when the enclave has reported one.
  public private(set) var exitStatus: UInt8?
  public var onExit: ((UInt8) -> Void)?
  /// Standard output or standard error takes no more; with EPIPE its reader has gone.
  public var onOutputLost: ((SystemError) -> Void)?
  public var onLogStreamClosed: (() -> Void)?
  /// Raw mode's way into the network.
  public var tunnel: (any RawGateway)? { didSet { tunnel?.change(policy.destinations) } }
  /// What the enclave may reach; this machine's own addresses are kept in it by ourselves.
  public var policy = Policy() { didSet { tunnel?.change(policy.destinations) } }
  private let machine: MachineAddresses
  private var tunnelResolver: TunnelResolver?
  private var foreigners = Strangers(what: "a stream of somebody else than the enclave")
  public private(set) var hasSeenLogStream = false
  private var traffic = HostStatus.Traffic()
  /// Those under way, for the bytes that they have carried.
  private var relays: [ObjectIdentifier: Relay] = [:]

  /// Takes over sockets opened before, so that a port already taken is found before anything is started.
  /// - Parameters:
  ///   - published: sockets of `reserveListener`.
  ///   - peerUsers: who may be at the other end of a Unix socket; nil where its directory says that already.
  ///   - boots: where the boots of enclaves that outlive this process are kept.
  ///   - waitsForRoom: keeps the log while the disk it goes to is full, instead of calling that the loss of its reader.
  ///   - destinations: what the enclave may reach; this machine's own addresses are found out here.
  ///   - log: takes sentences for the operator.
  public init(
    loop: EventLoop, transport: FileHandle, enclave: StreamTarget, published: [(FileHandle, PublishedPort)],
    peers: PeerRule = .only, peerUsers: Set<UInt32>? = nil, boots: BootStore? = nil, logFormat: LogFormat,
    waitsForRoom: Bool = false, verbose: Bool, destinations: Destinations = Destinations(),
    resolverConfiguration: @escaping () -> ResolverConfiguration, log: @escaping (String) -> Void
  ) throws {
    machine = try MachineAddresses(loop: loop, log: log)
    policy = Policy(destinations: destinations)
    policy.destinations.own = machine.current
    self.peers = peers
    self.peerUsers = peerUsers
    sessions = SessionServer(loop: loop, store: boots, log: log)
    self.loop = loop
    self.enclave = enclave
    self.log = log
    complaints = ComplaintLog(loop: loop, log: log)
    self.verbose = verbose
    resolver = Resolver(loop: loop, configuration: resolverConfiguration)
    let stalled: ((Int32) -> Void)? =
      waitsForRoom ? { log("the log waits: \(SystemError("write", "standard output", errno: $0))") } : nil
    sink = LogSink(loop: loop, format: logFormat, stalled: stalled) { [unowned self] in
      for receiver in receivers { loop.enqueue(receiver) }
    } lost: { [unowned self] in
      onOutputLost?($0)
    }
    listeners.append(
      try Listener(loop: loop, socket: transport, report: log) { [unowned self] stream, _ in fromEnclave(stream) })
    machine.onChange = { [unowned self] in policy.destinations.own = machine.current }
    for (socket, port) in published {
      setResetOnClose(socket.rawValue, true)
      let listener = try Listener(loop: loop, socket: socket, listening: false, report: { log("-p \(port): \($0)") }) {
        [unowned self] in ingress($0, $1, port)
      }
      publishedListeners.append((listener, port))
    }
  }

  deinit { complaints.finish() }

  public var isLogDelivered: Bool { sink.isEmpty && receivers.isEmpty }

  /// Asks the enclave to stop its program.
  /// - Returns: false where there is no session to ask on.
  public func requestStop() -> Bool { sessions.order(.stop) }

  /// The program's status as the session has it: also where the log's last record never came.
  public var reportedExit: UInt8? { sessions.exit }

  /// Published ports lead to one enclave (`PeerRule.any` has none).
  private var enclaveKey: PeerKey { if case .cid(let cid) = peers { cid } else { 0 } }

  private func debug(_ sentence: @autoclosure () -> String) {
    if verbose { log(sentence()) }
  }

  // MARK: from the enclave

  private func fromEnclave(_ stream: FileHandle) {
    guard let peer = peer(of: stream) else { return }
    do throws(SystemError) {
      _ = try StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
        switch outcome {
        case .hello(let stream, let hello, let early): serve(stream, hello, early, peer)
        case .failed(let sentence): complaints.say(.brokenHellos, "a stream from the enclave: \(sentence)")
        case .probed: break
        }
      }
    } catch {
      complaints.say(.failedConnections, "a stream from the enclave: \(error)")
    }
  }

  /// nil, and a sentence, for somebody whom this host side does not serve.
  private func peer(of stream: FileHandle) -> PeerKey? {
    switch peers {
    case .only:
      guard let peerUsers else { return 0 }
      if let user = peerUserID(stream.rawValue), peerUsers.contains(user) { return 0 }
      foreigners.refused(log)
      return nil
    case .cid(let expected):
      if let found = peerCID(stream.rawValue), found == expected { return found }
    case .any:
      if let found = peerCID(stream.rawValue) { return found }
    }
    foreigners.refused(log)
    return nil
  }

  private func serve(_ stream: FileHandle, _ hello: Hello, _ early: [UInt8], _ peer: PeerKey) {
    do {
      if hello.channel == .session { return try sessions.serve(stream, hello, early, from: peer) }
      guard let boot = sessions.check(stream, hello, from: peer) else { return }
      switch hello.channel {
      case .session: break
      case .connect: egress(stream, try ConnectRequest(parameters: hello.parameters), early)
      case .resolve: try resolve(stream, early)
      case .logs: try logs(stream, boot, early)
      case .packets: try packets(stream, try PacketsRequest(parameters: hello.parameters), early)
      case .control: try control(stream, hello.parameters)
      case .listening: try listening(stream, early)
      }
    } catch {
      complaints.say(.refusedRequests, "a \(hello.channel) stream from the enclave: \(error)")
      answer(stream, Answer(error is WireError ? .badRequest : error is HostTunnelError ? .denied : .noResources))
    }
  }

  private func egress(_ stream: FileHandle, _ request: ConnectRequest, _ early: [UInt8]) {
    traffic.outgoing.total &+= 1
    guard case .endpoint(let destination) = request.destination else {
      traffic.outgoing.failed &+= 1
      answer(stream, Answer(.badRequest))
      return
    }
    machine.refresh()
    if case .deny(let reason) = policy.egress(to: destination) {
      traffic.outgoing.denied &+= 1
      complaints.say(.deniedConnections, "connection to \(destination) denied: \(reason)")
      answer(stream, Answer(.denied))
      return
    }
    PlainConnecting(
      loop: loop, address: .ip(destination), timeout: Self.connectTimeout
    ) { [unowned self] _, result in
      switch result {
      case .success(let endpoint):
        answer(stream, Answer(.ok))
        relay(plain: endpoint, framed: stream, early: early, \.outgoing.open, "connection to \(destination)")
      case .failure(let error):
        traffic.outgoing.failed &+= 1
        debug("connection to \(destination): \(error)")
        answer(stream, Answer(Status(errno: error.errno)))
      }
    }.start()
  }

  private func relay(
    plain: FileHandle, framed: FileHandle, early: [UInt8], _ open: WritableKeyPath<HostStatus.Traffic, Int>,
    _ what: @autoclosure @escaping () -> String
  ) {
    traffic[keyPath: open] += 1
    // The program's own probes end at the proxy inside; without these nobody would notice a peer that has vanished.
    setKeepAlive(plain.rawValue)
    do throws(SystemError) {
      let made = try Relay(loop: loop, buffer: buffer, plain: plain, framed: framed, early: early) {
        [unowned self] relay, end in
        traffic[keyPath: open] -= 1
        traffic.add(relay.totals)
        relays[ObjectIdentifier(relay)] = nil
        switch end {
        case .completed, .reset, .transportLost:
          debug("\(what()): \(end), \(relay.totals.fromTransport) bytes out, \(relay.totals.toTransport) in")
        case .protocolError(let error):
          complaints.say(.brokenStreams, "\(what()): the enclave broke the protocol: \(error)")
        }
      }
      if !made.ended { relays[ObjectIdentifier(made)] = made }
    } catch {
      traffic[keyPath: open] -= 1
      complaints.say(.failedConnections, "\(what()): \(error)")
    }
  }

  /// An enclave that was not asked to be in raw mode has no way into the host's network.
  private func packets(_ stream: FileHandle, _ request: PacketsRequest, _ early: [UInt8]) throws {
    guard let tunnel else {
      complaints.say(
        .refusedRequests, "the enclave is in raw mode, and its host side was not started so (--raw; --mode raw of run)")
      answer(stream, Answer(.unsupported))
      return
    }
    guard early.isEmpty else { throw WireError.trailingBytes(early.count) }
    try tunnel.configure(request)
    if tunnelResolver == nil, let sockets = tunnel.nameServerSockets {
      tunnelResolver = try TunnelResolver(loop: loop, resolver: resolver, sockets.datagram, sockets.stream, report: log)
    }
    try tunnel.serve(stream, request) { answer(stream, Answer(.ok, parameters: $0.parameters)) }
  }

  /// An enclave asks for its addresses before it opens anything else.
  private func control(_ stream: FileHandle, _ parameters: [UInt8]) throws {
    guard let request = try AddressRequest(parameters: parameters) else {
      answer(stream, Answer(.unsupported))
      return
    }
    guard let tunnel else {
      complaints.say(
        .refusedRequests,
        "the enclave asks for an address, and its host side was not started for raw mode (--raw; --mode raw of run)")
      answer(stream, Answer(.unsupported))
      return
    }
    let given = try tunnel.assign(request)
    log(
      "the enclave is given \([given.address4, given.address6].compactMap { $0?.description }.joined(separator: ", "))")
    answer(stream, Answer(.ok, parameters: given.parameters))
  }

  private func resolve(_ stream: FileHandle, _ early: [UInt8]) throws(SystemError) {
    answer(stream, Answer(.ok))
    let messages = try MessageStream(loop: loop, socket: stream, early: early) { [unowned self] stream, bytes in
      guard let query = DNSMessage(bytes), !query.isResponse else { return stream.close() }
      resolver.resolve(query) { [weak stream] response in stream?.send(response.bytes) }
    } closed: { [unowned self] in
      resolveStreams[ObjectIdentifier($0)] = nil
    }
    resolveStreams[ObjectIdentifier(messages)] = messages
  }

  private func logs(_ stream: FileHandle, _ boot: BootID, _ early: [UInt8]) throws(SystemError) {
    let position = positions[boot] ?? LogPosition()
    // Few runs at a time: an enclave that invents run after run must not fill the host's memory.
    if positions.count > 64 { positions = [:] }
    positions[boot] = position
    var known: [UInt8] = []
    known.append(integer: position.last)
    answer(stream, Answer(.ok, parameters: known))
    hasSeenLogStream = true
    let label = peers == .any ? peerCID(stream.rawValue).map { "\($0)/" } ?? "" : ""
    receivers.append(
      try LogReceiver(
        loop: loop, stream: stream, early: early, position: position, sink: sink, label: label
      ) { [unowned self] in
        exitStatus = $0
        onExit?($0)
      } closed: { [unowned self] receiver, problem in
        if let problem { complaints.say(.brokenStreams, problem) }
        receivers.removeAll { $0 === receiver }
        onLogStreamClosed?()
      })
  }

  /// One stream at a time: a proxy that was started again has a new one.
  private func listening(_ stream: FileHandle, _ early: [UInt8]) throws(SystemError) {
    answer(stream, Answer(.ok))
    let old = listeningStream
    listeningStream = try MessageStream(loop: loop, socket: stream, early: early) { [unowned self] stream, bytes in
      do throws(WireError) {
        let ports = try ListeningPorts.decode(bytes)
        if stream === listeningStream { listen(on: ports) }
      } catch {
        log("a listening stream from the enclave: \(error)")
        stream.close()
      }
    } closed: { [unowned self] in
      guard $0 === listeningStream else { return }
      listeningStream = nil
      loop.schedule(
        after: Self.listeningGrace,
        TimerSource { [weak self] in if let self, listeningStream == nil { listen(on: []) } })
    }
    old?.close()
  }

  private func listen(on ports: Set<UInt16>) {
    for (listener, port) in publishedListeners { listener.setListening(ports.contains(port.enclavePort)) }
  }

  // MARK: to the enclave

  private func ingress(_ client: FileHandle, _ peer: IPEndpoint?, _ port: PublishedPort) {
    traffic.incoming.total &+= 1
    let request = ConnectRequest(.port(port.enclavePort), source: peer)
    guard let token = sessions.hostToken(enclaveKey) else {
      // Clients that wait for the enclave try again and again.
      traffic.incoming.failed &+= 1
      debug("client \(peer?.description ?? "?") of \(port): the enclave has not come yet")
      return
    }
    StreamOpening(
      loop: loop, target: enclave, hello: request.hello.proven(by: token), timeout: Self.enclaveTimeout
    ) { [unowned self] outcome in
      switch outcome {
      case .opened(let stream, _, let early):
        relay(
          plain: client, framed: stream, early: early, \.incoming.open, "client \(peer?.description ?? "?") of \(port)")
      case .refused(let status):
        traffic.incoming.failed &+= 1
        debug("client \(peer?.description ?? "?") of \(port): \(status)")
      case .failed(let sentence):
        traffic.incoming.failed &+= 1
        // Before the enclave is up its socket is not there, and clients that wait for it try again and again.
        if hasSeenLogStream || verbose {
          complaints.say(.lostClients, "client \(peer?.description ?? "?") of \(port): \(sentence)")
        }
      }
    }.start()
  }

  // MARK: status

  /// Completes what a host side says of itself.
  /// - Parameter completion: called in the loop, at once in TCP mode.
  func status(_ base: HostStatus, _ completion: @escaping (HostStatus) -> Void) {
    var status = base
    status.logConnected = !receivers.isEmpty
    status.sessions = sessions.status
    status.refused = sessions.refused &+ foreigners.count
    status.traffic = traffic
    for (index, published) in publishedListeners.enumerated() where status.published.indices.contains(index) {
      status.published[index].listening = published.listener.isListening
    }
    for relay in relays.values { status.traffic.add(relay.totals) }
    status.names.queries = resolver.asked
    status.names.failed = resolver.failed
    status.names.underway = resolver.running
    guard let tunnel else { return completion(status) }
    tunnel.count(in: loop) { counts in
      status.raw = .init(tunnel, counts)
      completion(status)
    }
  }
}

extension HostStatus.Traffic {
  fileprivate mutating func add(_ totals: Relay.Totals) {
    bytesFromEnclave &+= totals.fromTransport
    bytesToEnclave &+= totals.toTransport
  }
}
