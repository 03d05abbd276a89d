import EnclaveConfig
import Inet
import Netfilter

/// The ports and paths that inside and outside agree on.
public enum EnclaveLayout {
  public static let proxyID = Configuration.proxyID
  /// The one vsock port on each side; over the unix transport part of the sockets' names.
  public static let port = Configuration.defaultPort
  /// Where redirected TCP arrives, on both loopbacks.
  public static let egressPort: UInt16 = 61_001
  /// Where redirected DNS arrives.
  public static let dnsPort: UInt16 = 61_053
  /// The unix transport's directory as seen inside.
  public static let transportDirectory = "/run/tombolo/host"

  public static func hostSocket(in directory: String) -> String { "\(directory)/host_\(port)" }
  public static func enclaveSocket(in directory: String) -> String { "\(directory)/enclave_\(port)" }
}

/// How init was started.
public enum StartKind: Equatable, Sendable {
  /// By a kernel, of our own image or as the drop-in of nitro-cli's init: everything is to be set up.
  case kernel(hasRootfs: Bool)
  /// By `tombolo run`.
  case local(LocalEnclave)
  /// Under another init (a Docker ENTRYPOINT, AWS's init): the file system is as the program shall see it.
  case child
}

/// What a boot consists of, in order.
public struct BootPlan: Equatable, Sendable, CustomStringConvertible {
  /// A kernel's init before it reads the configuration: the way to explain a failure comes first.
  public static let early: [BootStep] = [
    .mountIfMissing(source: "devtmpfs", target: "/dev", type: "devtmpfs", options: [.noSetUID], data: "mode=0755"),
    .openConsole,
    .mountIfMissing(
      source: "proc", target: "/proc", type: "proc", options: [.noSetUID, .noDevices, .noExecution], data: ""),
    .mountIfMissing(
      source: "sysfs", target: "/sys", type: "sysfs", options: [.noSetUID, .noDevices, .noExecution], data: ""),
    .loadModules(list: "/lib/modules/tombolo.load"),
    .loadModule("/nsm.ko"),
  ]

  /// The file system, before anything else can fail quietly.
  public var fileSystem: [BootStep]
  public var network: [BootStep]
  public var configuration: Configuration

  public init(_ configuration: Configuration, _ kind: StartKind) {
    self.configuration = configuration
    fileSystem =
      switch kind {
      case .kernel(let hasRootfs): Self.kernelFileSystem(hasRootfs: hasRootfs, configuration)
      case .local(let local): Self.fileSystem(local, configuration)
      case .child: []
      }
    let isRouted = configuration.networkMode == .tcp
    network = [.bringUpLoopback(routed: isRouted)]
    if kind != .child {
      // The network namespace is ours alone: port 80 is for every user in it, as in Docker's containers (Linux 4.11).
      network.insert(.setSysctl("net.ipv4.ip_unprivileged_port_start", value: "0"), at: 0)
      network.insert(.setHostname(configuration.hostname), at: 0)
    }
    if configuration.networkMode == .raw {
      let plan = TunnelPlan(configuration.raw)
      network.append(.createTunnel(plan))
      if plan.sharedPorts != nil {
        network.append(
          .installRules(
            .capture(
              link: TunnelPlan.link, firstQueue: TunnelPlan.firstQueue, queues: plan.queues, ipv6: plan.hasIPv6),
            configuration.firewall))
      }
    }
    if isRouted {
      network.append(
        .installRules(
          .transparentProxy(
            tcpPort: EnclaveLayout.egressPort, dnsPort: EnclaveLayout.dnsPort,
            local: [IPPrefix(.v6(AgreedAddresses.loopback6), clamping: 128)]), configuration.firewall))
    }
    if configuration.program.rights.readOnlyRoot, kind != .child {
      network.append(.makeRootReadOnly(Self.rootMounts(kind)))
    }
  }

  /// What the program cannot write where its root is to be read-only: the overlays of a throw-away root are mounts each.
  private static func rootMounts(_ kind: StartKind) -> [String] {
    guard case .local(let local) = kind else { return ["/"] }
    return ["/"] + local.pieces.compactMap { if case .overlay(let path) = $0, path != "/" { path } else { nil } }
  }

  private static func kernelFileSystem(hasRootfs: Bool, _ configuration: Configuration) -> [BootStep] {
    let mounts = ["/dev", "/proc", "/sys"]
    var steps: [BootStep] = hasRootfs ? [.switchRoot("/rootfs", moving: mounts)] : []
    steps += [
      .makeDirectory("/dev/pts", mode: 0o755),
      .mountIfMissing(
        source: "devpts", target: "/dev/pts", type: "devpts", options: [.noSetUID, .noExecution],
        data: "newinstance,ptmxmode=0666,mode=0620"),
      .makeDirectory("/dev/shm", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/dev/shm", type: "tmpfs", options: [.noSetUID, .noDevices], data: "mode=1777"),
      .makeLink("/dev/fd", to: "/proc/self/fd"), .makeLink("/dev/stdin", to: "/proc/self/fd/0"),
      .makeLink("/dev/stdout", to: "/proc/self/fd/1"), .makeLink("/dev/stderr", to: "/proc/self/fd/2"),
      .makeDirectory("/run", mode: 0o755), .makeDirectory("/tmp", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/run", type: "tmpfs", options: [.noSetUID, .noDevices], data: "mode=755"),
      .makeDirectory("/run/lock", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/tmp", type: "tmpfs", options: [.noSetUID, .noDevices], data: "mode=1777"),
      .mountControlGroups, .raiseLimits, .seedEntropy, .setClock,
      .makeDirectory("/etc", mode: 0o755),
      .provideFile(
        "/etc/resolv.conf", text: configuration.resolver.resolvConf(nameServer: AgreedAddresses.nameServer.description)),
      .provideFile("/etc/hosts", text: hosts(configuration)),
      .provideFile("/etc/hostname", text: "\(configuration.hostname)\n"),
    ]
    return steps
  }

  private static func hosts(_ configuration: Configuration) -> String {
    "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 \(configuration.hostname)\n"
      + configuration.resolver.hostsLines
  }

  private static func fileSystem(_ local: LocalEnclave, _ configuration: Configuration) -> [BootStep] {
    let root = local.rootfs == nil ? local.stage + "/root" : local.stage
    var steps: [BootStep] = [.makeMountsPrivate]
    if let rootfs = local.rootfs, local.pieces.isEmpty {
      steps.append(.bind(source: rootfs, target: root, recursive: true))
    } else if let rootfs = local.rootfs {
      steps.append(tmpfs(root, mode: "755", [.noDevices]))
      steps += local.pieces.flatMap { Self.steps($0, of: rootfs, root: root) }
      steps.append(.remountReadOnly(root))
    } else {
      steps.append(tmpfs(local.stage, mode: "755", [.noDevices]))
      steps.append(.makeDirectory(root, mode: 0o755))
      // pivot_root(2) wants a mount point; an overlay of "/" is one.
      if local.pieces.first != .overlay("/") { steps.append(tmpfs(root, mode: "755", [])) }
      for (index, piece) in local.pieces.enumerated() {
        steps += Self.steps(
          piece, root: root, upper: "\(local.stage)/\(index)", userxattr: local.hasUserNamespace,
          isAlone: !Self.isBelowAnOverlay(piece, local.pieces[..<index]))
      }
    }
    steps.append(.enterRoot(root))
    // An overlay of "/" and a prepared --rootfs have these; a root of pieces may not.
    if local.rootfs == nil {
      steps += ["/proc", "/sys", "/dev", "/run", "/tmp"].map { .makeDirectory($0, mode: 0o755) }
    }
    // First /proc: a bind mount finds the machine's file through it.
    steps += [
      .mount(
        source: "proc", target: "/proc", type: "proc", options: [.noSetUID, .noDevices, .noExecution], data: ""),
      .mount(
        source: "sysfs", target: "/sys", type: "sysfs", options: [.readOnly, .noSetUID, .noDevices, .noExecution],
        data: ""),
      tmpfs("/dev", mode: "755", [.noSetUID]),
    ]
    let tun = configuration.networkMode == .raw ? ["net/tun"] : []
    if !tun.isEmpty { steps.append(.makeDirectory("/dev/net", mode: 0o755)) }
    for name in ["null", "zero", "full", "random", "urandom", "tty"] + tun {
      // A device can be written to all the same; its owner, mode and times are the machine's and stay.
      steps += [.makeFile("/dev/\(name)"), .bindReadOnly(source: "/dev/\(name)", target: "/dev/\(name)")]
    }
    steps += [
      .makeDirectory("/dev/pts", mode: 0o755),
      .mount(
        source: "devpts", target: "/dev/pts", type: "devpts", options: [.noSetUID, .noExecution],
        data: "newinstance,ptmxmode=0666,mode=0620"),
      .makeLink("/dev/ptmx", to: "pts/ptmx"),
      .makeDirectory("/dev/shm", mode: 0o1777),
      tmpfs("/dev/shm", mode: "1777", [.noSetUID, .noDevices]),
      .makeLink("/dev/fd", to: "/proc/self/fd"), .makeLink("/dev/stdin", to: "/proc/self/fd/0"),
      .makeLink("/dev/stdout", to: "/proc/self/fd/1"), .makeLink("/dev/stderr", to: "/proc/self/fd/2"),
      tmpfs("/run", mode: "755", [.noSetUID, .noDevices]),
      .makeDirectory("/run/lock", mode: 0o1777),
      tmpfs("/tmp", mode: "1777", [.noSetUID, .noDevices]),
      .makeDirectory(EnclaveLayout.transportDirectory, mode: 0o755),
      .bind(source: local.transport, target: EnclaveLayout.transportDirectory, recursive: false),
    ]
    // Started by root, `tombolo run` has done it itself; otherwise the proxy's group is one that only we have.
    if local.hasUserNamespace, let count = local.userCount, count > EnclaveLayout.proxyID {
      let socket = EnclaveLayout.hostSocket(in: EnclaveLayout.transportDirectory)
      steps.append(.changeGroup(socket, to: EnclaveLayout.proxyID))
    }
    steps += KernelInterfaces.protection
    if !local.hidden.isEmpty { steps.append(.mask(local.hidden)) }
    steps += [
      .pivotRoot(root),
      .provideFile(
        "/etc/resolv.conf",
        text: configuration.resolver.resolvConf(
          nameServer: local.nameServer,
          machine: ResolverSettings(search: local.search, options: local.resolverOptions))),
      .provideFile("/etc/hosts", text: hosts(configuration)),
      .provideFile("/etc/hostname", text: "\(configuration.hostname)\n"),
    ]
    return steps
  }

  /// The mount point of such a piece comes from the overlay around it.
  private static func isBelowAnOverlay(_ piece: RootPiece, _ before: ArraySlice<RootPiece>) -> Bool {
    guard case .overlay(let path) = piece, path != "/" else { return true }
    return before.contains {
      if case .overlay(let other) = $0 { other == "/" || path.hasPrefix(other + "/") } else { false }
    }
  }

  private static func steps(
    _ piece: RootPiece, root: String, upper: String, userxattr: Bool, isAlone: Bool
  ) -> [BootStep] {
    switch piece {
    case .overlay(let path):
      let target = path == "/" ? root : root + path
      let data =
        "lowerdir=\(escaped(path)),upperdir=\(upper)/up,workdir=\(upper)/work" + (userxattr ? ",userxattr" : "")
      return [
        .makeDirectory(upper, mode: 0o755), .makeDirectoryLike(path, at: upper + "/up"),
        .makeDirectory(upper + "/work", mode: 0o755),
      ]
        + (isAlone ? [.makeDirectory(target, mode: 0o755)] : [])
        + [.mount(source: "overlay", target: target, type: "overlay", options: [], data: data)]
    case .directory(let path, let mode): return [.makeDirectory(root + path, mode: mode)]
    case .link(let path, let target): return [.makeLink(root + path, to: target)]
    case .file(let path, let copied): return [.showFile(path, at: root + path, copied: copied)]
    case .tree, .leaf, .empty: return []
    }
  }

  /// Pieces of a `--rootfs`.
  private static func steps(_ piece: RootPiece, of rootfs: String, root: String) -> [BootStep] {
    switch piece {
    case .directory(let path, let mode): [.makeDirectory(root + path, mode: mode)]
    case .link(let path, let target): [.makeLink(root + path, to: target)]
    case .tree(let path):
      [.makeDirectory(root + path, mode: 0o755), .bindFrom(tree: rootfs, path, at: root + path)]
    case .leaf(let path): [.makeFile(root + path), .bindFrom(tree: rootfs, path, at: root + path)]
    case .empty(let path): [.makeFile(root + path)]
    case .overlay, .file: []
    }
  }

  private static func tmpfs(_ target: String, mode: String, _ options: [BootStep.MountOption]) -> BootStep {
    .mount(source: "tmpfs", target: target, type: "tmpfs", options: options, data: "mode=\(mode)")
  }

  /// overlayfs splits its options at commas and lower directories at colons (fs/overlayfs/params.c).
  private static func escaped(_ path: String) -> String {
    path.unicodeScalars.reduce(into: "") { text, scalar in
      if scalar == "," || scalar == ":" || scalar == "\\" { text.append("\\") }
      text.unicodeScalars.append(scalar)
    }
  }

  public var description: String {
    (fileSystem.map(\.description) + [networkAndProgram]).joined(separator: "\n")
  }

  /// The plan without what depends on how init was started.
  public var networkAndProgram: String {
    var lines = network.map(\.description)
    if configuration.networkMode == .tcp {
      lines.append("start the proxy: egress on port \(EnclaveLayout.egressPort), DNS on port \(EnclaveLayout.dnsPort)")
      let ports = configuration.ingressPorts.map(String.init).joined(separator: ", ")
      lines.append("let the host reach \(ports.isEmpty ? "no port" : "port \(ports)")")
      lines.append("wait until the proxy is ready")
    }
    if configuration.networkMode == .raw {
      lines.append(
        configuration.raw.capture == .tun
          ? "start the proxy: the queues of \(TunnelPlan.link), a stream to the host for each"
          : "start the proxy and its keeper of verdicts: packet queues, a stream to the host for each")
      lines.append("wait until the proxy is ready")
    }
    let program = configuration.program
    lines.append("cd \(program.workingDirectory ?? "/")")
    lines.append("start as \(program.user ?? "root"): \(program.command.joined(separator: " "))")
    return lines.joined(separator: "\n")
  }
}
