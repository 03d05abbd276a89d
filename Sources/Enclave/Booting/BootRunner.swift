import BootPlanning
import CLinux
import Capabilities
import EnclaveConfig
import LinuxSystem
import Mounting
import Netfilter
import Netlink
import Volumes

/// Carries out the steps of a plan, in order.
public struct BootRunner {
  private let log: (String) -> Void
  /// The one that has been entered and not yet made the only one.
  private var root: ConfinedRoot?
  /// What has been carried out.
  public private(set) var done: [BootStep] = []
  /// What has been opened for the proxy and its keeper.
  public private(set) var sockets = ProxySockets()
  /// What has been opened for the DNS client, where there is one.
  public private(set) var dnsClient: DNSClientFiles?

  /// What has been opened for the attestation service, where there is one.
  public private(set) var attestation: AttestationFiles?

  /// - Parameter log: takes sentences on what was chosen.
  public init(log: @escaping (String) -> Void) { self.log = log }

  /// Stops at the first step that fails.
  /// - Throws: the step's error, which names the call, the object and the reason.
  public mutating func run(_ steps: [BootStep]) throws {
    for step in steps {
      try carryOut(step)
      done.append(step)
    }
  }

  private mutating func carryOut(_ step: BootStep) throws {
    switch step {
    case .mount(let source, let target, let type, let options, let data):
      try mountFileSystem(source, target, type: type, flags: flags(options), data: data)
    case .bind(let source, let target, let recursive):
      try bind(source, target, root, recursive ? [.bind, .recursive] : [.bind])
    case .bindReadOnly(let source, let target):
      try bind(source, target, root, [.bind])
      try makeMountReadOnly(target)
    case .bindDevice(let path):
      try bindDevice(path)
    case .showFile(let source, let target, let copied):
      try MachineFiles.show(source, at: target, copied: copied)
    case .bindFrom(let tree, let path, let target):
      let file = try ForeignTree(tree).open(path)
      try mountFileSystem("/proc/self/fd/\(file.rawValue)", target, type: nil, flags: [.bind, .recursive])
    case .remountReadOnly(let path):
      try makeMountReadOnly(path)
    case .protect(let path, let exceptions):
      try MachineFiles.protect(path, but: exceptions)
    case .mask(let paths):
      try paths.forEach(MachineFiles.mask)
    case .makeMountsPrivate:
      try mountFileSystem("none", "/", type: nil, flags: [.private, .recursive])
    case .makeDirectory(let path, let mode):
      try makeDirectories(path)
      // mkdir(2) takes the umask away from it.
      try changeMode(path, mode)
    case .makeDirectoryLike(let model, let path):
      try makeDirectories(path)
      try copyOwnerAndMode(model, to: path)
    case .changeGroup(let path, let group):
      guard fileKind(path) != nil else { return }
      try changeOwner(path, user: nil, group: group)
    case .makeFile(let path):
      _ = try openFile(path, O_WRONLY | O_CREAT, mode: 0o644)
    case .makeLink(let path, let target):
      try makeSymbolicLink(path, to: target)
    case .enterRoot(let path):
      root = try ConfinedRoot(path)
    case .pivotRoot(let path):
      try root?.leave()
      root = nil
      try pivotRoot(to: path)
    case .mountIfMissing(let source, let target, let type, let options, let data):
      try KernelSteps.mountIfMissing(source, target, type, flags(options), data)
    case .openConsole:
      KernelSteps.openConsole(log)
    case .loadModules(let list):
      try KernelSteps.loadModules(list: list, log)
    case .loadModule(let path):
      guard fileKind(path) != nil else { return }
      // The security module's driver: a kernel that has it built in refuses the file, and works.
      do throws(SystemError) { try KernelSteps.loadModule(path) } catch { log("\(error)") }
      removeFile(path)
    case .switchRoot(let path, let moving):
      try KernelSteps.switchRoot(path, moving: moving)
    case .mountControlGroups:
      KernelSteps.mountControlGroups(log)
    case .raiseLimits:
      raiseOpenFilesLimit()
    case .seedEntropy:
      KernelSteps.seedEntropy(log)
    case .setClock:
      guard let clock = EnclaveClock() else {
        log("there is no /dev/ptp0: the clock stays as the machine set it")
        return
      }
      if let sentence = try clock.discipline() { log(sentence) }
    case .provideFile(let path, let text):
      try FileProvision.provide(path, text)
    case .mountLocally(let mount):
      do throws(MountFailure) {
        try Mounter.mount(MountWork(mount))
      } catch {
        guard !mount.isRequired else { throw error }
        log("\(error)")
      }
    case .makeMountPoint(let mount):
      do {
        _ = try Mounter.openTarget(mount.target)
      } catch {
        guard !mount.isRequired else { throw MissingFeature(sentence: "mount \(mount.target): \(error)") }
        log("mount \(mount.target): \(error)")
      }
    case .nameNFSClient:
      KernelSteps.nameNFSClient(log)
    case .makeRootReadOnly(let paths):
      for path in paths { try makeMountReadOnly(path) }
    case .setHostname(let name):
      try setHostname(name)
    case .setSysctl(let name, let value):
      setSysctl(name, value)
    case .bringUpLoopback(let routed):
      try EnclaveRoutes.setUp(routes: routed, ipv6: IPv6Support.probe() == .available)
    case .createTunnel(let plan):
      try EnclaveTunnel.create(plan)
    case .createPacketLink(let plan):
      sockets.hold(link: try EnclaveTunnel.createLink(plan, log), plan)
    case .listenOnPacketLink(let port):
      if try !sockets.listenOnLink(port) {
        log("network.connect is \"early\": a program's connect succeeds before the host's has")
      }
    case .installRules(let ruleset, let firewall):
      log(try installRules(ruleset, firewall))
    case .becomeSubreaper:
      try check("prctl", "PR_SET_CHILD_SUBREAPER", clinux_become_subreaper())
    case .removeFiles(let paths):
      for path in paths { removeFile(path) }
    case .dropBounding(let set):
      try Capabilities.dropBounding(CapabilitySet(rawValue: set))
    case .keepCapabilities(let own, let program):
      try Capabilities.keepOnly(CapabilitySet(rawValue: own), permitting: CapabilitySet(rawValue: program))
    case .listenForProxy(let egress, let dns):
      try sockets.listen(egress: egress, dns: dns)
    case .listenForQueries(let dns):
      try sockets.listen(dns: dns)
    case .listenForHost(let listener):
      try sockets.listen(at: listener)
    case .listenForForward(let forward, let listener):
      try sockets.listen(for: forward, at: listener)
    case .openTunnelQueues(let count):
      try sockets.openTunnel(count)
    case .openPacketQueues(let count):
      try sockets.openCapture(count)
    case .listenAsNameServer:
      try sockets.listenAsNameServer()
    case .openDNSClient:
      dnsClient = try DNSClientFiles(besideInit: EnclaveLayout.dnsClient)
      sockets.join(dnsClient)
    case .openAttestationService:
      attestation = try AttestationFiles()
    case .openSecurityModule(let device):
      try attestation?.openModule(device)
    // It is made where it is asked.
    case .simulateSecurityModule: break
    case .listenForAttestation(let ports, let callers):
      try attestation?.listen(ports: ports, callers: callers)
    case .makeKeyFiles(let files):
      try attestation?.makeKeyFiles(files)
    case .makeDocument(let path):
      try attestation?.makeDocument(at: path)
    case .readCertificates(let path):
      try dnsClient?.readCertificates(path)
    }
  }

  /// Where it cannot be written the program finds it as it is: not without a word, and not with the start's failure.
  private func setSysctl(_ name: String, _ value: String) {
    let path = "/proc/sys/" + String(name.map { $0 == "." ? "/" : $0 })
    do throws(SystemError) {
      // Without O_CREAT, which a missing file of /proc answers with EACCES.
      let file = try openFile(path, O_WRONLY)
      try writeAll(file.rawValue, value.utf8, path)
    } catch {
      if error.errno != ENOENT { log("sysctl \(name) stays as it is: \(error)") }
    }
  }

  private func bindDevice(_ path: String) throws(SystemError) {
    let file: OwnedFileDescriptor?
    do throws(SystemError) {
      file = try root?.openOutside(path)
    } catch  where error.errno == ENOENT {
      return
    }
    guard let file, let end = path.lastIndex(of: "/") else { return }
    try makeDirectories(String(path[..<end]))
    _ = try openFile(path, O_WRONLY | O_CREAT, mode: 0o644)
    try mountFileSystem("/proc/self/fd/\(file.rawValue)", path, type: nil, flags: [.bind])
    try makeMountReadOnly(path)
  }

  private func bind(
    _ source: String, _ target: String, _ root: ConfinedRoot?, _ flags: MountFlags
  ) throws(SystemError) {
    guard let root else { return try mountFileSystem(source, target, type: nil, flags: flags) }
    let file: OwnedFileDescriptor
    do throws(SystemError) {
      file = try root.openOutside(source)
    } catch {
      throw SystemError("mount", "\(source) on \(target)", errno: error.errno)
    }
    try mountFileSystem("/proc/self/fd/\(file.rawValue)", target, type: nil, flags: flags)
  }

  /// With a back end named, that one or its error; else the first that takes the rules.
  private func installRules(_ ruleset: Ruleset, _ firewall: Configuration.Firewall) throws -> String {
    switch firewall {
    case .auto:
      let chosen = try PacketFilter.install(ruleset)
      return "rules installed with \(chosen), the first that this kernel takes"
    case .nftables, .xtables:
      let wanted: PacketFilter = firewall == .nftables ? .nfTables : .xtables
      guard wanted.isAvailable(for: ruleset) else {
        throw MissingFeature(sentence: "network.firewall = \"\(firewall.rawValue)\": this kernel has no \(wanted)")
      }
      try wanted.apply(ruleset)
      return "rules installed with \(wanted), as configured"
    }
  }

  private func flags(_ options: [BootStep.MountOption]) -> MountFlags {
    options.reduce(into: []) { flags, option in
      switch option {
      case .readOnly: flags.insert(.readOnly)
      case .noSetUID: flags.insert(.noSetUID)
      case .noDevices: flags.insert(.noDevices)
      case .noExecution: flags.insert(.noExecution)
      }
    }
  }
}

/// Something that the running kernel cannot do.
public struct MissingFeature: Error, CustomStringConvertible {
  public var sentence: String
  public init(sentence: String) { self.sentence = sentence }
  public var description: String { sentence }
}
