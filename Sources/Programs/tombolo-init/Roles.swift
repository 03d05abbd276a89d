import BootPlanning
import Booting
import CLinux
import Capabilities
import Digests
import EnclaveConfig
import EventLoop
import Inet
import LinuxSystem
import LogForwarding
import Logging
import Proxying
import Relaying
import Seccomp
import ServiceControl
import SystemText
import Wire

/// Reads the configuration as a start would, for printing and for starting.
/// - Parameter root: where the enclave's files are at this moment: "/rootfs" before a kernel's init has switched to it.
func readConfiguration(
  _ arguments: InitArguments, _ document: LocalDocument.Content? = nil, root: String = "",
  digest: inout ConfigurationDigest
) throws -> Configuration {
  digest = ConfigurationDigest()
  var configuration = Configuration()
  func apply(_ text: String, _ file: String, isCommandLine: Bool = false) throws {
    try configuration.apply(toml: text, file: file, isSystemText: isCommandLine, relativePaths: isCommandLine)
    digest.add(isCommandLine ? systemBytes(text) : Array(text.utf8))
  }
  if let given = document?.configuration {
    try apply(given.text, given.name)
  } else {
    let path = arguments.configurationPath ?? Configuration.defaultPath
    // Only the default may be absent.
    let bytes = try readFile(path, in: root, mayBeAbsent: arguments.configurationPath == nil)
    if let bytes { try apply(try Configuration.text(bytes, file: path), path) }
  }
  if let overrides = document?.overrides { try apply(overrides, "command line", isCommandLine: true) }
  if !arguments.command.isEmpty {
    configuration.program.command = arguments.command
    for word in arguments.command { digest.add(systemBytes(word)) }
  }
  if let defect = configuration.egress.defect(in: configuration.networkMode) {
    let file = document?.configuration?.name ?? arguments.configurationPath ?? Configuration.defaultPath
    throw ConfigurationError(file: file, problem: defect)
  }
  return configuration
}

/// - Parameter root: not yet the root, and perhaps with links that would lead out of it.
private func readFile(_ path: String, in root: String, mayBeAbsent: Bool) throws(SystemError) -> [UInt8]? {
  do throws(SystemError) {
    return try root.isEmpty ? LinuxSystem.readFile(path) : ForeignTree(root).read(path)
  } catch {
    guard mayBeAbsent, error.errno == ENOENT else { throw error }
    return nil
  }
}

/// `--plan`: what a start would do.
enum PlanRole {
  static func run(_ arguments: InitArguments) throws {
    var digest = ConfigurationDigest()
    let configuration = try readConfiguration(arguments, digest: &digest)
    var lines: [String] = []
    if arguments.plansKernelStart {
      lines = BootPlan.early.map(\.description)
      lines.append(BootPlan(configuration, .kernel(hasRootfs: fileKind("/rootfs") == .directory)).description)
    } else {
      lines.append(BootPlan(configuration, .child).description)
    }
    try writeAll(1, (shownText(lines.joined(separator: "\n")) + "\n").utf8)
  }
}

/// The networking proxy; started by PID 1, with its descriptors open.
enum ProxyRole {
  static func run() throws {
    setProcessName("tombolo-proxy")
    try forbidInspection()
    ignoreBrokenPipes()
    let plan = try ProxyPlan(document: handedDocument())
    let loop = try EventLoop(spin: EventLoop.dataSpin)
    let signals = try openSignals([SIGTERM, SIGUSR1])
    let proxy = try EnclaveProxy(plan, loop: loop) { writeToStandardError($0 + "\n") }
    let stop = SignalSource(signals) { [proxy] signal in
      if signal == SIGUSR1 { proxy.report() } else { exit(0) }
    }
    _ = try loop.add(signals.rawValue, [.readable], stop)
    try confine(.proxy)
    if let ready = plan.descriptors.readiness { try proxy.announceReadiness(on: ready) }
    try withExtendedLifetime(proxy) { try loop.run() }
  }
}

/// Gives up every system call that the role does not need, before the first foreign byte is read.
func confine(_ role: RoleFilter) throws(SystemError) {
  guard hasSystemCallFilters() else {
    return writeToStandardError("this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER)\n")
  }
  try confineSystemCalls(
    role.instructions.map { sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value) })
}

/// What PID 1 has handed over; nobody else can read it any more when this returns.
private func handedDocument() throws(SystemError) -> [UInt8] {
  let file = OwnedFileDescriptor(ProxyHandOver.documentDescriptor)
  return try readToEnd(file.rawValue)
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

/// The sockets that the proxy is handed, opened while PID 1 still has every right.
struct ProxySockets {
  /// What the keeper of verdicts is handed: its pipe, then the queues' sockets.
  var keeper: [FileHandle] = []
  var handOver: ProxyHandOver?

  /// What the proxy is told in both modes.
  static func settings(_ host: StreamTarget, _ configuration: Configuration) -> ProxySettings {
    let secrets = BootIdentity.own.secrets
    var settings = ProxySettings(hostTarget: host, proxyToken: secrets.proxy, hostToken: secrets.host)
    settings.ingressPorts = configuration.ingressPorts
    settings.egress = configuration.egress.rules
    settings.sni = configuration.egress.sni
    settings.names = configuration.resolver.names
    settings.verbose = configuration.logs.level == .debug
    return settings
  }

  mutating func open(host: StreamTarget, listen: SocketAddress, _ configuration: Configuration) throws(SystemError) {
    var made = ProxyHandOver(Self.settings(host, configuration))
    for address in [IPAddress.v4(.loopback), .v6(.loopback)] {
      do throws(SystemError) {
        let egress = FileHandle(try listenStream(.ip(IPEndpoint(address, EnclaveLayout.egressPort))))
        let dnsListener = FileHandle(try listenStream(.ip(IPEndpoint(address, EnclaveLayout.dnsPort))))
        let dnsSocket = FileHandle(try bindDatagram(IPEndpoint(address, EnclaveLayout.dnsPort)))
        made.descriptors.egressListeners.append(egress)
        made.descriptors.dnsListeners.append(dnsListener)
        made.descriptors.dnsSockets.append(dnsSocket)
      } catch  where address != .v4(.loopback) && (error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL) {
        // A kernel without IPv6.
      }
    }
    made.descriptors.transportListener = FileHandle(try takeOverStream(listen))
    if case .unix(let path) = listen { try changeMode(path, 0o660) }
    handOver = made
  }
}
