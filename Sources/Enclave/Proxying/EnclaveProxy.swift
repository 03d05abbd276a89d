import CLinux
import DNS
import EventLoop
import Flows
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Policy
import Relaying
import TLS
import Wire

// Theory of operation.
//
// One process, one thread, one loop, no rights. Everything that a right is needed for was opened by PID 1 and handed
// over: it keeps the same sockets, so that a proxy that dies is followed by one that goes on accepting where the old
// one stopped.
//
//   egress:   accept ▶ SO_ORIGINAL_DST ▶ policy ▶ where `sni` says so, the client's first bytes ▶ policy again
//             ▶ stream to the host, connect hello ▶ answer ▶ relay, or reset
//   held:     SYN on the interface ▶ policy ▶ stream to the host, connect hello ▶ answer ▶ accept ▶ relay (`HeldEgress`)
//   ingress:  stream from the host ▶ hello ▶ policy ▶ connect to the program ▶ answer ▶ relay
//   link:     packet of UDP or a ping ▶ policy ▶ message on the datagrams stream (`DatagramRelay`); a client's the other way
//   DNS:      datagram or message ▶ policy ▶ resolve stream, or the DNS client ▶ response
//   upstream: the DNS client's wish ▶ stream to the host, connect hello for a server of dns.upstream ▶ relay ▶ the client
//   forward:  what [[forward]] names ▶ plain stream to or from the host ▶ relay (EnclaveForwards)
//   listening: what the program listens on ▶ listening stream, so that the host refuses clients where nothing does

/// The networking proxy inside the enclave, TCP mode.
public final class EnclaveProxy {
  private static let programTimeout: Duration = .seconds(10)
  /// Streams without a hello; above this the oldest goes.
  private static let helloLimit = 512
  /// Bytes that wait in connections for a slow reader, before less is read at a time.
  private static let connectionBytes = 16 << 20

  private let loop: EventLoop
  private let buffer = RelayBuffer()
  private let pressure = RelayPressure(limit: EnclaveProxy.connectionBytes)
  private let timeouts: RelayTimeouts?
  private let budget: ConnectionBudget
  private let plan: ProxyPlan
  private let policy: Policy
  /// Raw mode's threads ask for names as well.
  private let names: Locked<NameService>
  private let log: (String) -> Void
  private var denials = DenialBudget()
  /// A program, or the kernel's NFS client, that tries again at once while the host is away.
  private var failures = DenialBudget("failed")
  private var losses = DenialBudget("were lost")
  /// nil where the log is not to have them.
  private var uses: FirstUses?
  private var listeners: [Listener] = []
  private var forwarder: DNSForwarder?
  private var packets: EnclavePackets?
  /// TCP mode's interface; nil where the kernel has no TUN device.
  private var link: PacketLink?
  private var halfOpen = HalfOpenStreams()
  /// Which of 127.0.0.1 and those behind it the program is connected to: to one address and port there are not more connections
  /// than there are ports to come from.
  private var loopback: UInt32 = 0
  private static let loopbacks: UInt32 = 64
  private var strangers = Strangers(what: "ingress: a stream that does not prove that it comes from the host")
  private var watch: ListeningWatch?
  private var datagrams: DatagramRelay?
  private var forwards: EnclaveForwards?
  private let ending: ProxyDrain

  /// - Parameter log: takes sentences worth an operator's attention.
  public init(_ plan: ProxyPlan, loop: EventLoop, log: @escaping (String) -> Void) throws(SystemError) {
    self.plan = plan
    self.loop = loop
    self.log = log
    ending = ProxyDrain(plan.settings)
    let limits = plan.settings.connections
    timeouts = RelayTimeouts(idle: limits.idle, halfClosed: limits.halfClosed)
    budget = ConnectionBudget(limits, log: log)
    policy = Policy(
      ingressPorts: Set(plan.settings.ingressPorts),
      destinations: Destinations(plan.settings.egress))
    names = Locked(
      NameService(
        policy.destinations, plan.settings.names,
        removesHiding: plan.settings.sni.check != .off
          || plan.settings.sni.checksQUIC
            && (!plan.descriptors.tunnelQueues.isEmpty || plan.descriptors.packetLink != nil)
      ))
    if plan.settings.reportsUse { uses = FirstUses() }
    for fd in plan.descriptors.egressListeners {
      let socket = FileReference(OwnedFileDescriptor(fd))
      let isV6 = localEndpoint(fd).map { if case .v6 = $0.address { true } else { false } } ?? false
      setResetOnClose(fd, true)
      listeners.append(
        try Listener(loop: loop, socket: socket, report: log) { [unowned self] in egress($0, $1, v6: isV6) })
    }
    if let fd = plan.descriptors.transportListener {
      listeners.append(
        try Listener(loop: loop, socket: FileReference(OwnedFileDescriptor(fd)), report: log) { [unowned self] in
          fromHost($0, $1)
        })
    }
    if !plan.settings.forwards.isEmpty {
      forwards = try EnclaveForwards(
        loop: loop, buffer: buffer, open: ending.open,
        Array(
          zip(plan.settings.forwards, plan.descriptors.forwardListeners.map { FileReference(OwnedFileDescriptor($0)) })),
        host: plan.settings.hostTarget, budget: budget, pressure: pressure, timeouts: timeouts,
        report: { [unowned self] in fail($0) }, debug: { [unowned self] in debug($0) })
    }
    if !plan.descriptors.tunnelQueues.isEmpty { packets = try EnclavePackets(plan, names) }
    link = try plan.descriptors.packetLink.map { fd throws(SystemError) in
      try PacketLink(
        FileReference(OwnedFileDescriptor(fd)), loop: loop,
        acceptsFirst: plan.descriptors.linkListeners.isEmpty || plan.settings.sni.check != .off)
    }
    let channel = DatagramChannel(plan, loop: loop, log: log)
    let arrivals = watchPublished(channel)
    if let link {
      let datagrams = DatagramRelay(plan, names, link, channel, arrivals, log: log)
      if plan.settings.reportsUse { datagrams.onUse = { [unowned self] in usedDatagrams($0, $1, $2) } }
      link.datagrams = datagrams
      self.datagrams = datagrams
      try holdConnections(link)
    }
    if !plan.descriptors.dnsSockets.isEmpty || !plan.descriptors.dnsListeners.isEmpty {
      let upstreams = try plan.descriptors.upstreamLink.map { fd throws(SystemError) in
        try UpstreamLink(
          loop: loop, socket: FileReference(OwnedFileDescriptor(fd)), servers: plan.settings.names.upstreams,
          target: plan.settings.hostTarget, token: plan.settings.proxyToken, buffer: buffer, report: log)
      }
      forwarder = try DNSForwarder(
        loop: loop, target: plan.settings.hostTarget, token: plan.settings.proxyToken,
        names: names,
        datagramSockets: plan.descriptors.dnsSockets.map { FileReference(OwnedFileDescriptor($0)) },
        listeners: plan.descriptors.dnsListeners.map { FileReference(OwnedFileDescriptor($0)) }, upstreams: upstreams,
        report: log)
      if plan.settings.reportsUse {
        forwarder?.onUse = { [unowned self] question in
          use(.query(question.domain)) {
            names.with { $0.grounds(for: question.domain) }.map { "dns: \(question) allowed: \($0)" }
          }
        }
      }
    }
  }

  /// Writes a byte to the pipe when the network can be used: in raw mode when the host has answered, or has taken too
  /// long to.
  public func announceReadiness(on pipe: Int32) throws(SystemError) {
    let pipe = FileReference(OwnedFileDescriptor(pipe))
    if let packets {
      packets.announceReadiness(on: pipe, loop: loop)
    } else {
      try writeAll(pipe.rawValue, [1], "readiness pipe")
      ending.tell(on: pipe)
    }
  }

  /// Takes no more connections, and lets those that are open end.
  public func drain() {
    ending.start(plan.settings.drain, loop: loop, log)
    watch?.drain()
    forwards?.drain()
    datagrams?.isDraining = true
  }

  /// Writes what the queues of raw mode have carried to standard error, which is the log.
  public func report() { packets?.report() }

  private func debug(_ sentence: @autoclosure () -> String) {
    if plan.settings.verbose { log("debug: " + sentence()) }
  }

  /// The host refuses clients of published ports where no program takes them.
  /// - Returns: what takes datagrams of clients; nil where no port may be published, or the kernel does so.
  private func watchPublished(_ channel: DatagramChannel) -> ArrivalRelay? {
    guard plan.descriptors.transportListener != nil, !plan.settings.ingressPorts.isEmpty,
      plan.descriptors.tunnelQueues.isEmpty
    else { return nil }
    let known = plan.descriptors.egressListeners.lazy.compactMap { localEndpoint($0) }
      .first { $0.address == .v4(.loopback) }
    let arrivals = ArrivalRelay(channel, link, policy, loop: loop)
    watch = ListeningWatch(
      loop: loop, target: plan.settings.hostTarget, token: plan.settings.proxyToken,
      ports: plan.settings.ingressPorts, known: known?.port ?? 0, datagrams: arrivals, report: log)
    channel.keep()
    return arrivals
  }

  // MARK: egress

  private func holdConnections(_ link: PacketLink) throws(SystemError) {
    let ends = plan.descriptors.linkListeners.compactMap { localEndpoint($0) }
    guard let port = ends.first?.port else { return }
    let made = HeldEgress(
      loop: loop, link: link, port: port, hasIPv6: ends.count > 1, target: plan.settings.hostTarget,
      budget: budget, timeout: plan.settings.connections.connect, judge: { [unowned self] in judge($0, $1) }
    ) { [unowned self] destination, sentence, isWorthy in
      if isWorthy {
        fail("egress to \(destination): \(sentence)")
      } else {
        debug("egress to \(destination): \(sentence)")
      }
    }
    link.connections = made
    for fd in plan.descriptors.linkListeners {
      setResetOnClose(fd, true)
      listeners.append(
        try Listener(loop: loop, socket: FileReference(OwnedFileDescriptor(fd)), report: log) {
          [unowned self, unowned made] in
          if let accepted = made.accepted($0, from: $1) { take(accepted) }
        })
    }
  }

  /// What becomes of a program's SYN.
  private func judge(_ source: IPEndpoint, _ destination: IPEndpoint) -> HeldEgress.Judgement {
    let names = names(of: destination)
    if let denial = policy.destinations.denial(of: destination.address, port: destination.port, names: names) {
      deny(destination, names.first, denial.description)
      return denial.isOfNobody ? .nowhere : .denied
    }
    if ending.refuses(destination, names) { return .refused }
    if isInspected(destination) { return .accept }
    return .ask(request(source, destination, policy.allowedName(at: destination, names)))
  }

  private func take(_ accepted: HeldEgress.Accepted) {
    let (connection, destination, lease) = (accepted.connection, accepted.destination, accepted.lease)
    if let (stream, early) = accepted.stream {
      relay(
        plain: connection, framed: stream, early: early, lease: lease,
        isKept: ending.isKept(destination, names(of: destination)), "egress to \(destination)")
    } else if isInspected(destination) {
      inspect(connection, accepted.source, destination, names(of: destination), lease)
    }
  }

  private func names(of destination: IPEndpoint) -> [DomainName] {
    names.with { $0.names(of: destination.address, now: monotonicNanoseconds() / 1_000_000_000) }
  }

  /// Whether what a client says first decides.
  private func isInspected(_ destination: IPEndpoint) -> Bool {
    plan.settings.sni.check != .off && plan.settings.sni.ports.contains(destination.port)
  }

  /// The connection resets when it is dropped: the listener has linger 0, which accepted sockets inherit.
  private func egress(_ connection: FileReference, _ peer: IPEndpoint?, v6: Bool) {
    let destination: IPEndpoint
    do throws(SystemError) {
      destination = try originalDestination(connection.rawValue, v6: v6)
    } catch {
      return fail("egress: \(error)")
    }
    // Somebody connected to the proxy's own port: there is no original destination to go to.
    if destination == localEndpoint(connection.rawValue) { return }
    let names = names(of: destination)
    if case .deny(let reason) = policy.egress(to: destination, names: names) {
      deny(destination, names.first, reason)
      return
    }
    if ending.refuses(destination, names) { return }
    guard let lease = budget.lease(.outgoing) else { return }
    if isInspected(destination) {
      inspect(connection, peer, destination, names, lease)
    } else {
      connect(connection, peer, destination, policy.allowedName(at: destination, names), lease)
    }
  }

  private func deny(_ destination: IPEndpoint, _ name: DomainName?, _ reason: String) {
    guard let more = denials.admit(at: monotonicNanoseconds()) else { return }
    log("egress to \(Self.shown(destination, name)) denied: \(reason)\(more)")
  }

  private static func shown(_ destination: IPEndpoint, _ name: DomainName?) -> String {
    name.map { "\(destination) (\($0))" } ?? destination.description
  }

  /// The name that the client asks its server for must be allowed as well.
  private func inspect(
    _ connection: FileReference, _ peer: IPEndpoint?, _ destination: IPEndpoint, _ names: [DomainName],
    _ lease: AnyObject
  ) {
    do throws(SystemError) {
      _ = try HelloInspection(loop: loop, socket: connection) { [unowned self] _, reading in
        let name: DomainName?
        switch reading {
        case .hello(let hello): name = hello.serverName
        case .notTLS: name = nil
        case .malformed(let reason): return deny(destination, names.first, "a ClientHello that \(reason)")
        case .incomplete: return deny(destination, names.first, "no whole ClientHello came (egress.sni)")
        }
        let requires = plan.settings.sni.check == .require
        if case .deny(let reason) = policy.egress(to: destination, naming: name, names: names, requires: requires) {
          return deny(destination, name ?? names.first, reason)
        }
        connect(connection, peer, destination, name ?? policy.allowedName(at: destination, names), lease)
      }
    } catch {
      fail("egress to \(destination): \(error)")
    }
  }

  /// Says what went wrong on this side, and not more often than anybody can read.
  private func fail(_ sentence: @autoclosure () -> String) {
    if let more = failures.admit(at: monotonicNanoseconds()) { log(sentence() + more) }
  }

  /// Says that something is used, the first time.
  private func use(_ use: FirstUses.Use, _ sentence: () -> String?) {
    switch uses?.note(use) {
    case .first: if let said = sentence() { log(said) }
    case .tooMany: log("egress: so many destinations are in use that no further one is named here")
    case .known, nil: break
    }
  }

  private func usedDatagrams(_ destination: IPEndpoint, _ transport: FlowTransport, _ name: DomainName?) {
    use(.init(destination, name, transport)) {
      "packets to \(FlowDenial.shown(destination, transport, name)) allowed: \(policy.grounds(for: destination, name, transport))"
    }
  }

  /// What the host is asked for, which is a use of the destination.
  private func request(_ source: IPEndpoint?, _ destination: IPEndpoint, _ name: DomainName?) -> Hello {
    use(.init(destination, name)) {
      "egress to \(Self.shown(destination, name)) allowed: \(policy.grounds(for: destination, name))"
    }
    return ConnectRequest(.endpoint(destination), source: source, name: name).hello
      .proven(by: plan.settings.proxyToken)
  }

  private func connect(
    _ connection: FileReference, _ peer: IPEndpoint?, _ destination: IPEndpoint, _ name: DomainName?,
    _ lease: AnyObject
  ) {
    StreamOpening(
      loop: loop, target: plan.settings.hostTarget, hello: request(peer, destination, name),
      timeout: plan.settings.connections.connect
    ) { [unowned self] outcome in
      switch outcome {
      case .opened(let stream, _, let early):
        relay(
          plain: connection, framed: stream, early: early, lease: lease,
          isKept: ending.isKept(destination, names(of: destination)), "egress to \(destination)")
      case .refused(let status):
        debug("egress to \(destination): \(status)")
      case .failed(let sentence): fail("egress to \(destination): \(sentence)")
      }
    }.start()
  }

  private func relay(
    plain: FileReference, framed: FileReference, early: [UInt8], lease: AnyObject, isKept: Bool = false,
    _ what: @autoclosure @escaping () -> String
  ) {
    do throws(SystemError) {
      let made = try Relay(
        loop: loop, buffer: buffer, plain: plain, framed: framed, early: early, pressure: pressure, timeouts: timeouts
      ) { [unowned self] relay, end in
        ending.open.remove(relay)
        withExtendedLifetime(lease) {}
        switch end {
        case .completed, .reset:
          debug("\(what()): \(end), \(relay.totals.toTransport) bytes out, \(relay.totals.fromTransport) in")
        case .transportLost:
          if let more = losses.admit(at: monotonicNanoseconds()) {
            log("\(what()): the stream to the host was lost\(more)")
          }
        case .protocolError(let error): fail("\(what()): the host broke the protocol: \(error)")
        }
      }
      if !isKept { ending.open.add(made) }
    } catch {
      fail("\(what()): \(error)")
    }
  }

  // MARK: ingress

  private func fromHost(_ stream: FileReference, _ peer: IPEndpoint?) {
    do throws(SystemError) {
      // The host's own streams say what they are at once.
      if halfOpen.count >= Self.helloLimit, halfOpen.removeOldest() {
        fail("ingress: more than \(Self.helloLimit) streams said nothing, and the oldest was closed")
      }
      let number = halfOpen.next
      let serving = try StreamServing(loop: loop, stream: stream, timeout: plan.settings.connections.hello) {
        [unowned self] _, outcome in
        halfOpen.remove(number)
        switch outcome {
        case .hello(let stream, let hello, let early): serve(stream, hello, early)
        case .failed(let sentence): fail("ingress: \(sentence)")
        case .probed: break
        }
      }
      halfOpen.add(serving)
    } catch {
      fail("ingress: \(error)")
    }
  }

  private func serve(_ stream: FileReference, _ hello: Hello, _ early: [UInt8]) {
    // Programs inside can reach this socket, and so can other users of the parent.
    guard hello.token.matches(plan.settings.hostToken) else {
      strangers.refused(log)
      answer(stream, Answer(.denied))
      return
    }
    guard hello.channel == .connect else {
      answer(stream, Answer(.unsupported))
      return
    }
    let request: ConnectRequest
    do throws(WireError) {
      request = try ConnectRequest(parameters: hello.parameters)
    } catch {
      log("ingress: \(error)")
      answer(stream, Answer(.badRequest))
      return
    }
    // Only ports of the program: the host must not use the enclave's network as its own.
    guard case .port(let port) = request.destination else {
      log("ingress to \(request) denied: only published ports can be reached from outside")
      answer(stream, Answer(.denied))
      return
    }
    if case .deny(let reason) = policy.ingress(port: port) {
      log("ingress to \(request) denied: \(reason)")
      answer(stream, Answer(.denied))
      return
    }
    if ending.refusesClients { return answer(stream, Answer(.refused)) }
    guard let lease = budget.lease(.incoming) else { return answer(stream, Answer(.noResources)) }
    connect([.v4(.loopback), .v6(.loopback)], port, stream, request, early, lease, tries: Self.loopbacks)
  }

  /// Programs listen on every address, or on one of the two loopbacks.
  private func connect(
    _ addresses: [IPAddress], _ port: UInt16, _ stream: FileReference, _ request: ConnectRequest, _ early: [UInt8],
    _ lease: ConnectionBudget.Lease, tries: UInt32
  ) {
    guard let first = addresses.first else { return }
    let tried = loopback
    let isLoopback = first == .v4(.loopback)
    let address = isLoopback ? IPAddress.v4(IPv4Address(rawValue: IPv4Address.loopback.rawValue &+ tried)) : first
    PlainConnecting(
      loop: loop, address: .ip(IPEndpoint(address, port)), timeout: Self.programTimeout
    ) { [unowned self] _, result in
      switch result {
      case .success(let program):
        if let version = plan.settings.proxyProtocols[port] {
          let header = ProxyHeader.encode(version, source: request.source, port: port)
          // A fresh socket takes these few bytes whole.
          guard case .bytes(header.count) = header.withUnsafeBytes({ sendBytes(program.rawValue, $0) }) else {
            debug("ingress to \(request): the program did not take the PROXY header")
            return answer(stream, Answer(.reset))
          }
        }
        answer(stream, Answer(.ok))
        relay(plain: program, framed: stream, early: early, lease: lease, "ingress to \(request)")
      case .failure(let error):
        if isLoopback, error.errno == EADDRNOTAVAIL, tries > 0 {
          // Every port is in use towards that address.
          if loopback == tried { loopback = (tried + 1) % Self.loopbacks }
          connect(addresses, port, stream, request, early, lease, tries: tries - 1)
        } else if isLoopback, tried > 0 {
          // The program does not listen there.
          loopback = 0
          connect(addresses, port, stream, request, early, lease, tries: 0)
        } else if addresses.count > 1 {
          connect(Array(addresses.dropFirst()), port, stream, request, early, lease, tries: 0)
        } else {
          if error.isExhaustion { fail("ingress to \(request): \(error)") }
          debug("ingress to \(request): \(error)")
          answer(stream, Answer(Status(errno: error.errno)))
        }
      }
    }.start()
  }
}
