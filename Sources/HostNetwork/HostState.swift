import CLinux
import LinuxSystem
import Netlink

/// What must be undone in this network namespace, in a file each, so that the next gateway undoes it where one was killed.
///
/// `/run/tombolo/net-INODE/` has `lock` (held while anything here changes), `sysctls` (as they were before the first
/// gateway) and a file for each gateway, named like its link and ruleset and locked as long as the gateway lives: the
/// kernel drops the lock however it ends. The last gateway to end restores the sysctls.
struct HostState {
  private let directory: String
  private var own: FileHandle?

  private static let lockName = "lock"
  private static let sysctlsName = "sysctls"

  init() throws(SystemError) {
    // net:[4026531840]
    let inode = try readLink("/proc/self/ns/net").filter { $0.isASCII && $0.isNumber }
    directory = "/run/tombolo/net-\(inode)"
    try makeDirectories(directory)
  }

  private func locked<T>(_ body: () throws -> T) throws -> T {
    let file = try openFile("\(directory)/\(Self.lockName)", O_RDWR | O_CREAT, mode: 0o600)
    _ = try lockFile(file.rawValue, wait: true)
    return try body()
  }

  /// Undoes what killed gateways left.
  func cleanUp() throws {
    try locked { try removeStale() }
  }

  private func removeStale() throws {
    var living = 0
    for name in try directoryEntries(directory) where name != Self.lockName && name != Self.sysctlsName {
      let path = "\(directory)/\(name)"
      guard let file = try? openFile(path, O_RDWR) else { continue }
      if try lockFile(file.rawValue, wait: false) {
        Self.removeRules(name)
        removeFile(path)
      } else {
        living += 1
      }
    }
    if living == 0 { restoreSysctls() }
  }

  private func restoreSysctls() {
    let path = "\(directory)/\(Self.sysctlsName)"
    guard let text = try? readText(path) else { return }
    Sysctls(text: text).restore()
    removeFile(path)
  }

  /// Whichever back end has them; neither minds that they are not there.
  static func removeRules(_ name: String) {
    for backend in PacketFilter.allCases { try? backend.remove(rulesetNamed: name) }
  }

  /// Takes part: from here on `leave`, or the next gateway's `cleanUp`, undoes what is done under this name.
  mutating func enter(_ name: String) throws {
    let path = "\(directory)/\(name)"
    own = try locked {
      let file = FileHandle(try openFile(path, O_RDWR | O_CREAT, mode: 0o600))
      _ = try lockFile(file.rawValue, wait: true)
      return file
    }
  }

  /// Switches forwarding on, having written down what was before.
  func enableForwarding(ipv6: Bool) throws {
    try locked {
      let path = "\(directory)/\(Self.sysctlsName)"
      let now = Sysctls.current()
      if fileKind(path) == nil {
        // A whole file or none: written beside it first.
        try writeFile(path + ".new", now.text, mode: 0o600)
        try renameFile(path + ".new", to: path)
      }
      try now.enableForwarding(ipv6: ipv6)
    }
  }

  mutating func leave(_ name: String) {
    guard own != nil else { return }
    _ = try? locked {
      Self.removeRules(name)
      removeFile("\(directory)/\(name)")
      own = nil
      try removeStale()
      // Nothing but the lock is left where nobody else is here.
      if try directoryEntries(directory) == [Self.lockName] {
        removeFile("\(directory)/\(Self.lockName)")
        removeDirectory(directory)
      }
    }
  }
}
