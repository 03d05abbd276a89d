import BootPlanning
import Booting
import Capabilities
import CLinux
import EnclaveConfig
import EventLoop
import Inet
import LinuxSystem
import LogForwarding
import Logging
import Proxying
import Relaying
import ServiceControl

/// Reads the configuration as a start would, for printing and for starting.
func readConfiguration(_ arguments: InitArguments, _ document: LocalDocument.Content?) throws -> Configuration {
  var configuration = Configuration()
  if let given = document?.configuration {
    try configuration.apply(toml: given.text, file: given.name)
  } else {
    let path = arguments.configurationPath ?? Configuration.defaultPath
    // Only the default may be absent.
    if arguments.configurationPath != nil || fileKind(path) != nil {
      try configuration.apply(toml: try readText(path), file: path)
    }
  }
  if let overrides = document?.overrides { try configuration.apply(toml: overrides, file: "command line") }
  if !arguments.command.isEmpty { configuration.program.command = arguments.command }
  return configuration
}

/// `--plan`: what a start would do.
enum PlanRole {
  static func run(_ arguments: InitArguments) throws {
    let plan = BootPlan(try readConfiguration(arguments, nil), local: nil)
    try writeAll(1, (plan.description + "\n").utf8)
  }
}

/// The networking proxy; started by PID 1, with its descriptors open.
enum ProxyRole {
  static func run(_ words: [String]) throws {
    ignoreBrokenPipes()
    let plan = try ProxyPlan(arguments: words)
    let loop = try EventLoop()
    let signals = try openSignals([SIGTERM])
    let stop = SignalSource(signals) { _ in exit(0) }
    _ = try loop.add(signals.rawValue, [.readable], stop)
    let proxy = try EnclaveProxy(plan, loop: loop) { writeToStandardError($0 + "\n") }
    if let ready = plan.readiness {
      try writeAll(ready, [1], "readiness pipe")
      _ = OwnedFileDescriptor(ready)
    }
    try withExtendedLifetime(proxy) { try loop.run() }
  }
}

/// Calls with each signal.
final class SignalSource: EventSource {
  private let signals: FileHandle
  private let received: (Int32) -> Void

  init(_ signals: FileHandle, _ received: @escaping (Int32) -> Void) {
    self.signals = signals
    self.received = received
  }

  override func ready(_ events: EventSet, tag: Int) {
    while let signal = nextSignal(signals) { received(signal) }
  }
}

/// PID 1.
enum EnclaveRole {
  static func run(_ arguments: InitArguments) throws {
    // First of all, so that none is lost: they wait in the signalfd until the loop runs.
    let signals = try openSignals(EnclaveSupervision.signals)
    ignoreBrokenPipes()
    raiseOpenFilesLimit()
    let document = try arguments.localDescriptor.map(readLocalDocument)
    guard let document, processID() == 1 else {
      throw MissingFeature(
        sentence: "must be started by `tombolo run`, as PID 1 of a local enclave (see tombolo-init --help)")
    }
    var configuration = try readConfiguration(arguments, document)
    let target = EnclaveLogTarget()
    let logger = Logger(label: "tombolo-init") { [level = configuration.logs.level] _ in
      EnclaveLogHandler(target: target, logLevel: Logger.Level(level))
    }

    var plan = BootPlan(configuration, local: document.local)
    try BootRunner.run(plan.fileSystem) { _ in }
    if document.configuration == nil, document.local.rootfs != nil {
      // The image's own configuration can only be read now that the image is the root.
      configuration = try readConfiguration(arguments, document)
      plan = BootPlan(configuration, local: document.local)
    }
    if configuration.program.workingDirectory == nil, let directory = document.defaultDirectory,
      fileKind(directory) == .directory
    {
      configuration.program.workingDirectory = directory
    }
    var notes: [String] = []
    try BootRunner.run(plan.network) { notes.append($0) }
    try Capabilities.dropBounding(.harmful)

    let loop = try EventLoop()
    let directory = EnclaveLayout.transportDirectory
    let host = StreamTarget(.unix(EnclaveLayout.hostSocket(in: directory)))
    let forwarder = LogForwarder(
      loop: loop, target: host,
      settings: .init(
        capacity: configuration.logs.buffer, patience: configuration.logs.patience, drain: configuration.logs.drain))
    var sockets = ProxySockets()
    if configuration.networkMode == .tcp {
      try sockets.open(host: host, listen: .unix(EnclaveLayout.enclaveSocket(in: directory)), configuration)
    }
    try Capabilities.keepOnly(.supervising)
    target.forwarder = forwarder
    for note in notes { logger.info("\(note)") }
    let supervision = try EnclaveSupervision(
      loop: loop, configuration: configuration, forwarder: forwarder, signals: signals, proxyPlan: sockets.plan,
      proxySockets: sockets.handles,
      programInput: document.passesInput ? FileHandle(OwnedFileDescriptor(0).duplicate()) : nil,
      separateProxyUser: !document.local.hasUserNamespace,
      log: { level, sentence in logger.log(level: Logger.Level(level), "\(sentence)") },
      finished: { status in exit(Int32(status)) })
    supervision.start()
    try withExtendedLifetime(supervision) { try loop.run() }
  }

  private static func readLocalDocument(_ fd: Int32) throws -> LocalDocument.Content {
    let file = OwnedFileDescriptor(fd)
    guard let content = LocalDocument.decode(try readFile("/proc/self/fd/\(file.rawValue)")) else {
      throw InitArguments.Misuse(description: "--local: not what `tombolo run` writes")
    }
    return content
  }
}

/// The sockets that the proxy is handed, opened while PID 1 still has every right.
struct ProxySockets {
  var handles: [FileHandle] = []
  var plan: ProxyPlan?

  mutating func open(host: StreamTarget, listen: SocketAddress, _ configuration: Configuration) throws(SystemError) {
    var plan = ProxyPlan(hostTarget: host)
    plan.ingressPorts = configuration.ingressPorts
    plan.verbose = configuration.logs.level == .debug
    for address in [IPAddress.v4(.loopback), .v6(.loopback)] {
      do throws(SystemError) {
        let egress = FileHandle(try listenStream(.ip(IPEndpoint(address, EnclaveLayout.egressPort))))
        let dnsListener = FileHandle(try listenStream(.ip(IPEndpoint(address, EnclaveLayout.dnsPort))))
        let dnsSocket = FileHandle(try bindDatagram(IPEndpoint(address, EnclaveLayout.dnsPort)))
        plan.egressListeners.append(add(egress))
        plan.dnsListeners.append(add(dnsListener))
        plan.dnsSockets.append(add(dnsSocket))
      } catch where address != .v4(.loopback) && (error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL) {
        // A kernel without IPv6.
      }
    }
    let transport = FileHandle(try listenStream(listen))
    plan.transportListener = add(transport)
    self.plan = plan
  }

  private mutating func add(_ handle: FileHandle) -> Int32 {
    handles.append(handle)
    return Int32(handles.count - 1)
  }
}
