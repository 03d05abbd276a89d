import BootPlanning
import Booting
import CLinux
import Capabilities
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
/// - Parameter root: where the enclave's files are at this moment: "/rootfs" before a kernel's init has switched to it.
func readConfiguration(
  _ arguments: InitArguments, _ document: LocalDocument.Content? = nil, root: String = ""
) throws -> Configuration {
  var configuration = Configuration()
  if let given = document?.configuration {
    try configuration.apply(toml: given.text, file: given.name)
  } else {
    let path = arguments.configurationPath ?? Configuration.defaultPath
    // Only the default may be absent.
    if arguments.configurationPath != nil || fileKind(root + path) != nil {
      try configuration.apply(toml: try readText(root + path), file: path)
    }
  }
  if let overrides = document?.overrides { try configuration.apply(toml: overrides, file: "command line") }
  if !arguments.command.isEmpty { configuration.program.command = arguments.command }
  return configuration
}

/// `--plan`: what a start would do.
enum PlanRole {
  static func run(_ arguments: InitArguments) throws {
    let configuration = try readConfiguration(arguments)
    var lines: [String] = []
    if arguments.plansKernelStart {
      lines = BootPlan.early.map(\.description)
      lines.append(BootPlan(configuration, .kernel(hasRootfs: fileKind("/rootfs") == .directory)).description)
    } else {
      lines.append(BootPlan(configuration, .child).description)
    }
    try writeAll(1, (lines.joined(separator: "\n") + "\n").utf8)
  }
}

/// The networking proxy; started by PID 1, with its descriptors open.
enum ProxyRole {
  static func run(_ words: [String]) throws {
    setProcessName("tombolo-proxy")
    ignoreBrokenPipes()
    let plan = try ProxyPlan(arguments: words)
    let loop = try EventLoop(spin: EventLoop.dataSpin)
    let signals = try openSignals([SIGTERM, SIGUSR1])
    let proxy = try EnclaveProxy(plan, loop: loop) { writeToStandardError($0 + "\n") }
    let stop = SignalSource(signals) { [proxy] signal in
      if signal == SIGUSR1 { proxy.report() } else { exit(0) }
    }
    _ = try loop.add(signals.rawValue, [.readable], stop)
    if let ready = plan.readiness { try proxy.announceReadiness(on: ready) }
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

/// The sockets that the proxy is handed, opened while PID 1 still has every right.
struct ProxySockets {
  var handles: [FileHandle] = []
  /// What the keeper of verdicts is handed: its pipe, then the queues' sockets.
  var keeper: [FileHandle] = []
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
      } catch  where address != .v4(.loopback) && (error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL) {
        // A kernel without IPv6.
      }
    }
    let transport = FileHandle(try takeOverStream(listen))
    plan.transportListener = add(transport)
    self.plan = plan
  }

  mutating func add(_ handle: FileHandle) -> Int32 {
    handles.append(handle)
    return Int32(handles.count - 1)
  }
}
