import CLinux
import Capabilities
import EventLoop
import HostNetwork
import HostRights
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Seccomp
import Wire

// Theory of operation.
//
// The other half of the enclave's proxy and the home of its log. One loop, put together here, for `run`, `host` and `boot`
// alike:
//
//   stream from the enclave ▶ Dispatcher: peer, hello ▶ SessionServer: a boot admitted, reports and orders
//                                      ▶ token of the boot, or refused
//                                      ▶ ConnectServer:  policy, connect(2), answer, relay
//                                      ▶ ResolveServer:  queries to the host's resolvers
//                                      ▶ LogServer:      records to the sinks, acknowledgements back
//                                      ▶ ControlServer:  addresses, in raw mode
//                                      ▶ PacketsServer:  queues, in raw mode
//                                      ▶ DatagramServer: policy, a socket for each flow, datagrams and errors
//                                      ▶ PublishedPorts: which published ports are listened on
//   plain stream of --forward ▶ Forwards: policy, connect(2), relay; a client of --forward-in the other way
//   client of a published port ▶ PublishedPorts: stream to the enclave, connect hello ▶ answer ▶ relay, or reset
//   datagram of one ▶ PublishedDatagrams: its flow ▶ message on DatagramServer's stream; answers the other way
//
// What the servers count is in `HostCounters`, which `StatusService` shows.
//
// A start goes in this order: `HostSettings` and `HostPlace` are put together; `openPublished` and `HostPlace.open` take
// what rights may be needed for (ports below 1024, directories, owners); `HostSide` is made of what is open; what else the
// command needs rights for is done (an init, a QEMU); `reduceRights` gives them up; the loop runs, and reads what is foreign.

/// What a host side is told, whichever way its enclave is reached.
public struct HostSettings {
  public var published: [PublishedPort] = []
  public var forwards: [HostForward] = []
  /// Clients of published ports begin with a PROXY header.
  public var acceptsProxyProtocol = false
  /// The name server to ask; nil for the machine's own.
  public var nameServer: IPAddress?
  /// What the enclave may reach; this machine's own addresses are found out here.
  public var destinations = Destinations()
  /// How queries for names are answered where the rules have something to say of them.
  public var names = NameSettings()
  /// In raw mode the names that QUIC's clients ask for are judged as well.
  public var checksQUIC = false
  public var logFormat = LogFormat.raw
  /// The enclave goes on when this process ends. So what has not been written is left with it, for the next host side; and
  /// the log waits while the disk it goes to is full, instead of calling that the loss of its reader.
  public var isOutlived = false
  /// Says how every connection ended.
  public var verbose = false
  /// What one enclave may hold at a time; nil for the defaults, by the files that this process may open.
  var limits: HostLimits?
  /// Connections that one enclave may have at a time, where that is said, and how long they may take and stay.
  public var connections = ConnectionLimits(connect: ConnectionLimits.hostConnect)
  /// Raw mode's way into the network; its maker closes it.
  public var rawGateway: (any RawGateway)?
  /// For `tombolo status`.
  public var name = "enclave"
  /// What every enclave is given that takes it.
  public var given = RuntimeParameters()

  public init() {}

  /// What this process was started with.
  public var inherited = InheritedSockets()

  /// Takes the published ports' sockets, so that a port already taken is found before anything is started.
  public func openPublished() throws -> [FileReference] {
    try published.map { try $0.open(raw: rawGateway != nil, inherited) }
  }

  /// Takes the sockets that this process was started with; each must be one of ours.
  public mutating func takeInherited(at place: HostPlace) throws {
    inherited = try InheritedSockets.handedOver()
    let ports = rawGateway == nil ? published : []
    try inherited.check(
      served: ports.map { (.ip($0.listen), $0.transport == .tcp ? .stream : .datagram) }
        + ([place.listen] + forwards.compactMap { place.address(of: $0) }).map { ($0, .stream) })
  }
}

/// Where a host side listens, where its enclave is, and whom it serves.
public struct HostPlace {
  public var listen: SocketAddress
  /// Who may connect to a Unix socket beside its owner; root gives it to that group.
  public var group: UInt32?
  public var enclave: StreamTarget
  public var peers = PeerRule.only
  /// The directory of Unix sockets was made by this process, and given to the user of root's host sides.
  public var isOwn = false
  /// For `tombolo status`, in words.
  public var transport: String

  public init(listen: SocketAddress, enclave: StreamTarget, transport: String) {
    self.listen = listen
    self.enclave = enclave
    self.transport = transport
  }

  /// Opens the transport's socket. One that a dead process left behind is taken over. A Unix socket is for its owner and one
  /// group: the enclave's proxy, which has a user of its own, or the group in which a virtual machine's monitor is.
  public func open() throws(SystemError) -> FileReference { try open(listen) }

  /// The same, where this process may have been started with it.
  public func open(_ inherited: InheritedSockets) throws -> FileReference {
    if let socket = inherited.take(listen, .stream) { return socket }
    return try open(listen)
  }

  /// The same for another of its ports.
  func open(_ address: SocketAddress) throws(SystemError) -> FileReference {
    let listener = FileReference(try takeOverStream(address))
    guard case .unix(let path) = address else { return listener }
    if effectiveUserID() == 0, let group { try changeOwner(path, user: nil, group: group) }
    try changeMode(path, 0o660)
    return listener
  }
}

/// The host's side of one enclave, or of all of them.
public final class HostSide {
  private let place: HostPlace
  private let rawGateway: (any RawGateway)?
  /// In raw mode the kernel passes clients on, and these only keep the ports from others.
  private let reserved: [FileReference]
  private let complaints: ComplaintLog
  private let counters = HostCounters()
  private let sessions: SessionServer
  private let connections: Connections
  private let output: StandardStreams
  private let logs: LogServer
  private let publishedPorts: PublishedPorts
  private let publishedDatagrams: PublishedDatagrams
  private let forwards: Forwards
  private let connectServer: ConnectServer
  private let datagramServer: DatagramServer
  private let budget: Budget
  private var draining: Draining?
  /// Names of Unix sockets that go when this side does.
  public let socketNames: [String]
  /// Ports of the enclave that forwards lead to.
  private let enclavePorts: [UInt32]
  let dispatcher: Dispatcher
  private let listener: Listener
  private let loop: EventLoop
  private var status: StatusService?
  private let boots: BootStore?
  private var caretaker: Caretaker?
  private var keeper: (process: Keeper, end: () -> Void)?
  private var helpers: [HelperWatch] = []

  /// The program's exit status, as the log has it.
  public var onExit: ((UInt8) -> Void)? {
    get { logs.onExit }
    set { logs.onExit = newValue }
  }
  /// Standard output or standard error takes no more; with EPIPE its reader has gone.
  public var onOutputLost: ((SystemError) -> Void)? {
    get { output.lost }
    set { output.lost = newValue }
  }
  /// A process that does a part of the work has ended before this one.
  public var onHelperLost: ((LostHelper) -> Void)?
  public var onLogStreamClosed: (() -> Void)? {
    get { logs.onStreamClosed }
    set { logs.onStreamClosed = newValue }
  }

  /// What every process needs that is a host side.
  public static func makeLoop() throws(SystemError) -> EventLoop {
    ignoreBrokenPipes()
    raiseOpenFilesLimits()
    return try EventLoop(spin: EventLoop.dataSpin)
  }

  /// - Parameters:
  ///   - command: of `tombolo`.
  ///   - transport: `place`'s socket.
  ///   - published: the settings' sockets.
  ///   - boots: where the boots of enclaves that outlive this process are kept.
  ///   - log: takes sentences for the operator.
  public init(
    _ settings: HostSettings, command: String, place: HostPlace, loop: EventLoop, transport: FileReference,
    published: [FileReference], boots: BootStore? = nil, log: @escaping (String) -> Void
  ) throws {
    self.place = place
    self.loop = loop
    self.boots = boots
    rawGateway = settings.rawGateway
    let debug: (String) -> Void = settings.verbose ? log : { _ in }
    let complaints = ComplaintLog(loop: loop, log: log)
    let sessions = SessionServer(
      loop: loop, offer: RuntimeOffer(settings.given), store: boots, counters: counters, complaints: complaints,
      log: log)
    var limits = settings.limits ?? HostLimits()
    limits.outgoing = settings.connections.outgoing ?? limits.outgoing
    limits.incoming = settings.connections.incoming ?? limits.incoming
    let wanted = max(settings.connections.outgoing ?? 0, settings.connections.incoming ?? 0)
    if wanted > limits.mostConnections {
      log(
        "\(wanted) connections are more than there are descriptors for: about \(limits.mostConnections) of one direction,"
          + " because this process may have \(limits.openFiles) files open (RLIMIT_NOFILE) and cannot have more")
    }
    // These are the program's own connections then.
    if rawGateway != nil { limits.resolvers = 64 }
    let budget = Budget(limits, isShared: place.peers == .any, counters: counters, complaints: complaints)
    let connections = Connections(
      loop: loop, limits: limits, times: settings.connections, counters: counters, complaints: complaints,
      debug: debug)
    let policy = try HostPolicy(
      settings.destinations, settings.names, checksQUIC: settings.checksQUIC, loop: loop, rawGateway: rawGateway,
      log: log)
    let resolver = Resolver(
      loop: loop, policy: policy, counters: counters, budget: budget, complaints: complaints,
      configuration: resolverConfiguration(settings.nameServer))
    let stalled: ((Int32) -> Void)? =
      settings.isOutlived ? { log("the log waits: \(SystemError("write", "standard output", errno: $0))") } : nil
    output = StandardStreams(loop: loop, format: settings.logFormat, stalled: stalled, isOutlived: settings.isOutlived)
    logs = LogServer(
      loop: loop, sinks: [output], keepsUnwritten: settings.isOutlived, labels: place.peers == .any,
      counters: counters, complaints: complaints)
    let isRaw = rawGateway != nil
    reserved = isRaw ? published : []
    let places = isRaw ? [] : zip(published, settings.published).enumerated().map { ($1.0, $1.1, $0) }
    publishedPorts = try PublishedPorts(
      loop: loop, enclave: place.enclave, peer: place.peers.enclave,
      published: places.filter { $0.1.transport == .tcp }, inherited: settings.inherited,
      acceptsProxyProtocol: settings.acceptsProxyProtocol, sessions: sessions, connections: connections,
      counters: counters, budget: budget, complaints: complaints, log: log, debug: debug)
    publishedDatagrams = try PublishedDatagrams(
      loop: loop, published: places.filter { $0.1.transport == .udp }, inherited: settings.inherited,
      counters: counters,
      log: log)
    let forwardSockets = try settings.forwards.map { ($0, try place.open($0, settings.inherited)) }
    forwards = try Forwards(
      loop: loop, place: place, forwardSockets, inherited: settings.inherited, policy: policy,
      resolver: resolver, connections: connections, counters: counters, budget: budget, complaints: complaints,
      log: log,
      debug: debug)
    enclavePorts = settings.forwards.compactMap { if case .incoming = $0.way { $0.vsockPort } else { nil } }
    // Others' sockets keep their names.
    let own =
      (settings.inherited.contains(transport) ? [] : [place.listen])
      + forwardSockets.compactMap { settings.inherited.contains($0.1) ? nil : place.address(of: $0.0) }
    socketNames = own.compactMap { if case .unix(let path) = $0 { path } else { nil } }
    connectServer = ConnectServer(
      loop: loop, policy: policy, connections: connections, timeout: settings.connections.connect,
      counters: counters, budget: budget, complaints: complaints, debug: debug)
    datagramServer = DatagramServer(
      loop: loop, policy: policy, published: publishedDatagrams, counters: counters, budget: budget,
      complaints: complaints, idle: settings.connections.datagrams, log: log)
    self.budget = budget
    let dispatcher = Dispatcher(
      loop: loop, peers: place.peers, sessions: sessions,
      servers: [
        .connect: connectServer,
        .resolve: ResolveServer(loop: loop, resolver: resolver, budget: budget),
        .logs: logs,
        .packets: PacketsServer(
          loop: loop, rawGateway: rawGateway, resolver: resolver, budget: budget, complaints: complaints, log: log),
        .control: ControlServer(rawGateway: rawGateway, given: settings.given, complaints: complaints),
        .listening: publishedPorts,
        .datagrams: datagramServer,
      ], counters: counters, budget: budget, complaints: complaints, helloTimeout: settings.connections.hello, log: log)
    listener = try Listener(
      loop: loop, socket: transport, isShared: settings.inherited.contains(transport), report: log
    ) { stream, _ in dispatcher.accept(stream) }
    self.complaints = complaints
    self.sessions = sessions
    self.connections = connections
    self.dispatcher = dispatcher
    status = StatusService(
      loop: loop, command: command, name: settings.name, transport: place.transport, published: settings.published,
      report: log
    ) { [unowned self] in complete($0, $1) }
  }

  deinit { complaints.finish() }

  /// Gives up every right that serving does not need; to be called when everything is open and started, and before the loop
  /// runs.
  /// - Parameters:
  ///   - signalled: processes that were started and may be signalled.
  ///   - hasDevice: a guest's vsock device is in this process.
  ///   - kept: descriptors that `atEnd` needs.
  ///   - atEnd: takes away what else is left then; runs in another process, at `close`.
  public func reduceRights(
    signalled: [Int32] = [], hasDevice: Bool = false, kept: [FileReference] = [], note: (String) -> Void,
    atEnd: @escaping () -> Void = {}
  ) throws {
    let removeStatus = status?.handOver() ?? {}
    let (place, boots) = (place, boots)
    let (enclavePorts, socketNames) = (enclavePorts, socketNames)
    let user = HostRights.user
    let gateway = try rawGateway?.handOver()
    let caretaker = try Caretaker(
      kept: kept + (gateway?.held ?? []),
      capabilities: (user == nil ? CapabilitySet.none : .cleaning).union(gateway == nil ? .none : .linking),
      filter: gateway == nil ? .caretaker : .linkCaretaker
    ) { (request, bytes) throws(SystemError) in
      switch request {
      case .connect:
        var address = place.enclave.address
        if let port = enclavePorts.first(where: { EnclaveConnector.bytes(of: $0) == bytes }) {
          // Of a hybrid socket the port is said on it.
          if place.enclave.hybridPort == nil { address = address.atPort(port) ?? address }
        } else if !bytes.isEmpty {
          throw SystemError("connect", "a port of no forward", errno: EPERM)
        }
        let socket = FileReference(try makeSocket(address.family, .stream))
        _ = try connectStream(socket.rawValue, address)
        return ([], [socket])
      case .save: try boots?.replace(bytes)
      case .gateway: if let gateway { return gateway.answer(bytes) }
      case .end:
        gateway?.end()
        removeStatus()
        for path in socketNames { removeFile(path) }
        atEnd()
      }
      return ([], [])
    }
    self.caretaker = caretaker
    helpers.append(try HelperWatch(caretaker.socket, loop) { [unowned self] in onHelperLost?(.caretaker) })
    if let part = gateway?.keeper {
      keeper = (try Keeper(kept: part.held, work: part.run), part.end)
      helpers.append(try HelperWatch(part.orders, loop) { [unowned self] in onHelperLost?(.keeper) })
    }
    gateway?.goesOn { try caretaker.ask(.gateway, $0) }
    boots?.write = { bytes throws(SystemError) in _ = try caretaker.ask(.save, bytes) }
    if user != nil, !place.isOwn, case .unix = place.enclave.address {
      let connector = EnclaveConnector(caretaker, place.enclave)
      publishedPorts.connect = { () throws(SystemError) in try connector.connect([]) }
      forwards.connector = connector
    }
    let own = signalled.isEmpty ? [] : signalled + [processID()]
    try HostRights.reduce(
      to: .host(signalled: own, hasDevice: hasDevice), keeping: user == nil || signalled.isEmpty ? .none : .signalling,
      becoming: user,
      signalsOthers: !signalled.isEmpty, note: note)
  }

  /// Removes the names of its sockets, which would be left on the machine.
  public func close() {
    status?.close()
    status = nil
    for helper in helpers { helper.stop() }
    helpers = []
    if let caretaker {
      caretaker.finish()
      self.caretaker = nil
      // Behind the caretaker, which takes away the rules that send packets to queues.
      keeper?.end()
      keeper?.process.wait()
      keeper = nil
    } else {
      for path in socketNames { removeFile(path) }
    }
  }

  /// Whether `close` does what `reduceRights` was given to do.
  public var hasCaretaker: Bool { caretaker != nil }

  /// Refuses every new connection and flow, in and out. Those that are open have until `limit` is over, then they are reset.
  /// - Parameter finished: called once, with how many were reset.
  public func drain(within limit: Duration, finished: @escaping (Int) -> Void) {
    connectServer.isDraining = true
    datagramServer.isDraining = true
    publishedPorts.drain()
    publishedDatagrams.drain()
    forwards.drain()
    draining = Draining(
      loop: loop, limit: limit, count: { [budget] in budget.connections },
      abort: { [connections] in connections.abort() }, finished: finished)
  }

  public var isLogDelivered: Bool { logs.isDelivered }

  /// Asks the enclave to stop its program.
  /// - Returns: false where there is no session to ask on.
  public func requestStop() -> Bool { sessions.order(.stop) }

  /// The program's status as the session has it: also where the log's last record never came.
  public var reportedExit: UInt8? { sessions.exit }

  /// Completes what a host side says of itself; at once in TCP mode.
  func complete(_ base: HostStatus, _ completion: @escaping (HostStatus) -> Void) {
    var status = base
    status.logConnected = logs.isConnected
    status.sessions = sessions.status
    counters.write(to: &status)
    connections.add(to: &status.traffic)
    publishedPorts.write(to: &status)
    publishedDatagrams.write(to: &status)
    forwards.write(to: &status)
    guard let rawGateway else { return completion(status) }
    rawGateway.count(in: loop) { counts in
      status.raw = .init(rawGateway, counts)
      completion(status)
    }
  }
}
