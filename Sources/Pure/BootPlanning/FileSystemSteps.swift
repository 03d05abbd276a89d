import EnclaveConfig
import Inet
import Policy

/// The steps that make the enclave's file system.
enum FileSystemSteps {
  static func kernel(hasRootfs: Bool, _ configuration: Configuration) -> [BootStep] {
    let mounts = ["/dev", "/proc", "/sys"]
    // Read by now; they are not for the program.
    var steps: [BootStep] = [.removeFiles(BootContract.files)]
    if hasRootfs { steps.append(.switchRoot("/rootfs", moving: mounts)) }
    steps += [
      .makeDirectory("/dev/pts", mode: 0o755),
      .mountIfMissing(
        source: "devpts", target: "/dev/pts", type: "devpts", options: [.noSetUID, .noExecution],
        data: "newinstance,ptmxmode=0666,mode=0620"),
      .makeDirectory("/dev/shm", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/dev/shm", type: "tmpfs", options: [.noSetUID, .noDevices],
        data: "mode=1777,size=\(configuration.program.sharedMemory)"),
      .makeLink("/dev/fd", to: "/proc/self/fd"), .makeLink("/dev/stdin", to: "/proc/self/fd/0"),
      .makeLink("/dev/stdout", to: "/proc/self/fd/1"), .makeLink("/dev/stderr", to: "/proc/self/fd/2"),
      .makeDirectory("/run", mode: 0o755), .makeDirectory("/tmp", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/run", type: "tmpfs", options: [.noSetUID, .noDevices], data: "mode=755"),
      .makeDirectory("/run/lock", mode: 0o1777),
      .mountIfMissing(
        source: "tmpfs", target: "/tmp", type: "tmpfs", options: [.noSetUID, .noDevices], data: "mode=1777"),
      .mountControlGroups, .raiseLimits, .setClock,
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

  static func local(_ local: LocalEnclave, _ configuration: Configuration) -> [BootStep] {
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
      // Names of devices and links; nobody's data.
      tmpfs("/dev", mode: "755,size=64k,nr_inodes=1024", [.noSetUID]),
    ]
    let tun = configuration.networkMode == .raw ? ["net/tun"] : []
    if !tun.isEmpty { steps.append(.makeDirectory("/dev/net", mode: 0o755)) }
    for name in ["null", "zero", "full", "random", "urandom", "tty"] + tun {
      // A device can be written to all the same; its owner, mode and times are the machine's and stay.
      steps += [.makeFile("/dev/\(name)"), .bindReadOnly(source: "/dev/\(name)", target: "/dev/\(name)")]
    }
    if configuration.networkMode == .tcp { steps.append(.bindDevice("/dev/net/tun")) }
    steps += [
      .makeDirectory("/dev/pts", mode: 0o755),
      .mount(
        source: "devpts", target: "/dev/pts", type: "devpts", options: [.noSetUID, .noExecution],
        data: "newinstance,ptmxmode=0666,mode=0620"),
      .makeLink("/dev/ptmx", to: "pts/ptmx"),
      .makeDirectory("/dev/shm", mode: 0o1777),
      tmpfs("/dev/shm", mode: "1777,size=\(configuration.program.sharedMemory)", [.noSetUID, .noDevices]),
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
      for forward in configuration.forwards {
        guard case .out = forward.way else { continue }
        let socket = EnclaveLayout.hostSocket(in: EnclaveLayout.transportDirectory, port: forward.vsockPort)
        steps.append(.changeGroup(socket, to: EnclaveLayout.proxyID))
      }
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
}
