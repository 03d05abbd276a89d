import EnclaveConfig
import Inet
import Netfilter
import Policy

// Theory of operation.
//
// A start has three parts: it finds out what there is, makes its plan, and carries that out. What is asked is `Question`s;
// what a kernel's init has to do before it can ask anything is `early`. From the answers, `StartFacts`, the plan is made once:
// steps, which `Booting` carries out one by one, then the services, which `ServiceControl` brings up. Nothing that changes
// the enclave is done apart from them, so the text of a plan is what a start does: `tombolo-init --plan` prints it, and the
// log of a start has, at level "debug", what was done, in the same words.

/// How init was started.
public enum StartKind: Equatable, Sendable {
  /// By a kernel, of our own image or as the drop-in of nitro-cli's init: everything is to be set up.
  case kernel(hasRootfs: Bool)
  /// By `tombolo run`.
  indirect case local(LocalEnclave)
  /// Under another init (a Docker ENTRYPOINT, AWS's init): the file system is as the program shall see it.
  case child

  public var isKernel: Bool { if case .kernel = self { true } else { false } }
  public var isLocal: Bool { if case .local = self { true } else { false } }
}

/// What a start has found out before it does anything.
public struct StartFacts: Sendable {
  public var kind: StartKind
  /// With the program and the addresses that were asked for.
  public var configuration: Configuration
  /// That this process may run on.
  public var processors = 1
  /// There is a /dev/nsm.
  public var hasSecurityModule = true
  /// What the host has given, a line each.
  public var given: [String] = []
  /// Where the program starts unless the configuration says, if that is a directory in the enclave.
  public var defaultDirectory: String?

  public init(_ kind: StartKind, _ configuration: Configuration, defaultDirectory: String? = nil) {
    self.kind = kind
    self.configuration = configuration
    self.defaultDirectory = defaultDirectory
  }

  /// What of the configuration cannot be had in a start of this kind.
  public var defect: String? {
    guard case .local(let local) = kind, local.hasUserNamespace else { return nil }
    for mount in configuration.mounts where mount.isNetwork {
      return "mount: \(mount.target) is of type \"nfs\", which Linux mounts for root of the machine only, and not in "
        + "a user namespace: start tombolo run as root, or mount it outside and use --rootfs"
    }
    return nil
  }

  /// Where the host finds the enclave.
  public var listener: HostListener { listener(at: EnclaveLayout.port) }

  func listener(at port: UInt32) -> HostListener {
    if kind.isLocal { return .unix(EnclaveLayout.enclaveSocket(in: EnclaveLayout.transportDirectory, port: port)) }
    switch configuration.transport {
    case .unix(let directory): return .unix(EnclaveLayout.enclaveSocket(in: directory, port: port))
    case .vsock: return .vsock(port: port)
    }
  }
}

/// What a start does from when it has found out everything, in order.
public struct StartPlan: Sendable, CustomStringConvertible {
  public var steps: [BootStep]
  public var services: [ServiceStep]

  public init(_ facts: StartFacts) {
    let configuration = facts.configuration
    let fileSystem =
      switch facts.kind {
      case .kernel(let hasRootfs): FileSystemSteps.kernel(hasRootfs: hasRootfs, configuration)
      case .local(let local): FileSystemSteps.local(local, configuration)
      // Docker's or AWS's init is above us: orphans are ours to reap, the machine is not ours to end.
      case .child: [BootStep.becomeSubreaper]
      }
    steps = (configuration.needsDNSClient ? [.openDNSClient] : [])
    if configuration.needsAttestation { steps.append(.openAttestationService) }
    steps += fileSystem
    if configuration.needsDNSClient, configuration.resolver.names.upstreams.contains(where: \.isAuthenticated) {
      steps.append(.readCertificates(configuration.resolver.names.certificateFile))
    }
    steps += Self.mounts(facts)
    steps += Self.network(facts)
    if configuration.needsAttestation { steps += Self.attestation(facts) }
    // Behind everything that a module might be needed for. The last two cannot be undone.
    if facts.kind.isKernel {
      steps += ["kernel.yama.ptrace_scope", "kernel.kexec_load_disabled", "kernel.modules_disabled"].map {
        .setSysctl($0, value: "1")
      }
    }
    steps.append(.dropBounding(PlannedCapabilities.harmful))
    steps += Self.sockets(facts)
    steps += configuration.forwards.map { forward in
      switch forward.way {
      case .out: .listenForForward(forward, nil)
      case .incoming: .listenForForward(forward, facts.listener(at: forward.vsockPort))
      }
    }
    // The proxy's socket is in it now. Nobody inside puts another in the place of the host's.
    if facts.kind.isLocal { steps.append(.remountReadOnly(EnclaveLayout.transportDirectory)) }
    // What its children get must have been permitted here (no_new_privs): the program's, and the keeper of verdicts'.
    let hasKeeper = configuration.networkMode == .raw && configuration.raw.capture == .nfqueue
    steps.append(
      .keepCapabilities(
        PlannedCapabilities.supervising,
        permitting: configuration.program.rights.bounding(isLocal: facts.kind.isLocal)
          | (hasKeeper ? PlannedCapabilities.verdicts : 0)))
    services = ServiceStep.all(facts)
  }

  /// What a kernel's init does before it reads anything: the way to explain a failure comes first, and no secret is made
  /// before the kernel has random numbers.
  public static func early(_ kind: StartKind) -> [BootStep] {
    guard kind.isKernel else { return [] }
    return [
      .mountIfMissing(source: "devtmpfs", target: "/dev", type: "devtmpfs", options: [.noSetUID], data: "mode=0755"),
      .openConsole,
      .mountIfMissing(
        source: "proc", target: "/proc", type: "proc", options: [.noSetUID, .noDevices, .noExecution], data: ""),
      .mountIfMissing(
        source: "sysfs", target: "/sys", type: "sysfs", options: [.noSetUID, .noDevices, .noExecution], data: ""),
      .loadModules(list: "/lib/modules/tombolo.load"),
      .loadModule("/nsm.ko"),
      .seedEntropy,
    ]
  }

  /// Before the root may become read-only; what needs the network comes with the services.
  private static func mounts(_ facts: StartFacts) -> [BootStep] {
    let mounts = facts.configuration.mounts
    let volumes = mounts.volumes
    var steps = mounts.local.map { BootStep.mountLocally($0) }
    // In another mount, its target is made when that is there.
    for (index, mount) in volumes.enumerated() where volumes.dependencies(of: index).isEmpty {
      if case .bind = mount.kind { continue }
      steps.append(.makeMountPoint(mount))
    }
    if facts.kind.isKernel, volumes.contains(where: \.isNetwork) { steps.append(.nameNFSClient) }
    return steps
  }

  private static func network(_ facts: StartFacts) -> [BootStep] {
    let kind = facts.kind
    let configuration = facts.configuration
    let isRouted = configuration.networkMode == .tcp
    var steps: [BootStep] = []
    if kind != .child {
      steps.append(.setHostname(configuration.hostname))
      // The network namespace is ours alone: port 80 is for every user in it, as in Docker's containers (Linux 4.11).
      steps.append(.setSysctl("net.ipv4.ip_unprivileged_port_start", value: "0"))
    }
    steps.append(.bringUpLoopback(routed: isRouted))
    if configuration.networkMode == .raw {
      let plan = TunnelPlan(configuration.raw, processors: facts.processors)
      steps.append(.createTunnel(plan))
      let dnsPort = configuration.queriesReachProxy ? EnclaveLayout.dnsPort : nil
      if plan.sharedPorts != nil {
        steps.append(
          .installRules(
            .capture(
              link: TunnelPlan.link, firstQueue: TunnelPlan.firstQueue, queues: plan.queues, ipv6: plan.hasIPv6,
              dnsPort: dnsPort),
            configuration.firewall))
      } else if let dnsPort {
        steps.append(.installRules(.queries(link: TunnelPlan.link, dnsPort: dnsPort), configuration.firewall))
      }
    }
    if isRouted {
      let link = PacketLinkPlan(configuration)
      steps.append(.createPacketLink(link))
      steps.append(
        .installRules(
          .transparentProxy(
            tcpPort: EnclaveLayout.egressPort, dnsPort: EnclaveLayout.dnsPort, link: PacketLinkPlan.link,
            holdsConnections: configuration.connect == .real, carriesDatagrams: true,
            local: [
              IPPrefix(.v6(AgreedAddresses.loopback6), clamping: 128),
              IPPrefix(link.address.address, clamping: 32), IPPrefix(link.address6.address, clamping: 128),
            ]), configuration.firewall))
    }
    if configuration.program.rights.readOnlyRoot, kind != .child { steps.append(.makeRootReadOnly(rootMounts(kind))) }
    return steps
  }

  /// What the program cannot write where its root is to be read-only: the overlays of a throw-away root are mounts each.
  private static func rootMounts(_ kind: StartKind) -> [String] {
    guard case .local(let local) = kind else { return ["/"] }
    return ["/"] + local.pieces.compactMap { if case .overlay(let path) = $0, path != "/" { path } else { nil } }
  }

  /// A local enclave has the machine's devices and kernel, and no security module of its own.
  private static func attestation(_ facts: StartFacts) -> [BootStep] {
    let settings = facts.configuration.attestation
    var steps: [BootStep] = [
      facts.kind.isLocal || !facts.hasSecurityModule && settings.missing == .simulate
        ? .simulateSecurityModule : .openSecurityModule(settings.device),
      .listenForAttestation(ports: settings.ports, callers: settings.callers),
    ]
    if !settings.keys.isEmpty {
      let directory = EnclaveLayout.keyDirectory
      let user = facts.configuration.program.user ?? "0"
      steps += [
        .makeDirectory(directory, mode: 0o755),
        // Of its own: under another init /run may be on a disk.
        .mount(
          source: "tmpfs", target: directory, type: "tmpfs", options: [.noSetUID, .noDevices, .noExecution],
          data: "mode=755,size=1m"),
        .makeKeyFiles(settings.keys.map { .init(name: $0.name, user: $0.user ?? user) }),
      ]
    }
    if let path = settings.document { steps.append(.makeDocument(at: path)) }
    return steps
  }

  /// What the proxy is handed, opened while PID 1 still has every right.
  private static func sockets(_ facts: StartFacts) -> [BootStep] {
    switch facts.configuration.networkMode {
    case .none: return []
    case .tcp:
      let held: [BootStep] =
        facts.configuration.connect == .real ? [.listenOnPacketLink(port: EnclaveLayout.connectionPort)] : []
      return [.listenForProxy(egress: EnclaveLayout.egressPort, dns: EnclaveLayout.dnsPort)] + held
        + [.listenForHost(facts.listener)]
    case .raw:
      let queues = TunnelPlan(facts.configuration.raw, processors: facts.processors).queues
      let names: [BootStep] =
        facts.configuration.queriesReachProxy ? [.listenForQueries(dns: EnclaveLayout.dnsPort)] : []
      guard facts.configuration.raw.capture == .nfqueue else { return [.openTunnelQueues(queues)] + names }
      return [.openTunnelQueues(queues), .openPacketQueues(queues), .listenAsNameServer] + names
    }
  }

  public var description: String {
    (steps.map(\.description) + services.map(\.description)).joined(separator: "\n")
  }

  /// All that a start does, what it asks included, one thing a line.
  public static func text(_ facts: StartFacts) -> String {
    (early(facts.kind).map(\.description) + Question.all(facts).map(\.description) + [StartPlan(facts).description])
      .joined(separator: "\n")
  }
}
