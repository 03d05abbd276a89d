import BootPlanning
import CLinux
import LinuxSystem
import Netfilter
import Netlink

/// Carries out the steps of a boot plan, in order; stops at the first that fails.
public enum BootRunner {
  /// - Throws: the step's error, which names the call, the object and the reason.
  public static func run(_ steps: [BootStep]) throws {
    for step in steps { try run(step) }
  }

  private static func run(_ step: BootStep) throws {
    switch step {
    case .mount(let source, let target, let type, let options, let data):
      try mountFileSystem(source, target, type: type, flags: flags(options), data: data)
    case .bind(let source, let target, let recursive):
      try mountFileSystem(source, target, type: nil, flags: recursive ? [.bind, .recursive] : [.bind])
    case .makeMountsPrivate:
      try mountFileSystem("none", "/", type: nil, flags: [.private, .recursive])
    case .makeDirectory(let path, let mode):
      try makeDirectories(path)
      // mkdir(2) takes the umask away from it.
      try changeMode(path, mode)
    case .makeFile(let path):
      _ = try openFile(path, O_WRONLY | O_CREAT, mode: 0o644)
    case .makeLink(let path, let target):
      try makeSymbolicLink(path, to: target)
    case .pivotRoot(let path):
      try pivotRoot(to: path)
    case .provideFile(let path, let text):
      try FileProvision.provide(path, text)
    case .setHostname(let name):
      try setHostname(name)
    case .bringUpLoopback(let routed):
      try EnclaveRoutes.setUp(routes: routed, ipv6: IPv6Support.probe() == .available)
    case .installRules(let ruleset):
      try installRules(ruleset)
    }
  }

  private static func installRules(_ ruleset: Ruleset) throws {
    guard NFTables.isAvailable() else {
      throw MissingFeature(
        sentence: "the kernel has no nf_tables (CONFIG_NF_TABLES, CONFIG_NFT_REDIR, CONFIG_NF_NAT), "
          + "which [network] mode = \"tcp\" needs to redirect connections")
    }
    try NFTables.apply(ruleset)
  }

  private static func flags(_ options: [BootStep.MountOption]) -> MountFlags {
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
