import CLinux
import LinuxSystem
import Netlink

/// What must be undone in this network namespace, in a file each, so that the next gateway undoes it where one was killed.
///
/// `/run/tombolo/net-INODE/` has `sysctls` (as they were before the first gateway) and a file for each gateway, named like
/// its link and ruleset and locked as long as the gateway lives: the kernel drops the lock however it ends. The last
/// gateway to end restores the sysctls. `/run/tombolo/lock` is held while anything of it changes.
///
/// What a killed gateway left is not removed at once but taken over, name, rules and all: its enclave's connections
/// are still being translated, and without the rules the next packet from outside would be answered with a reset.
struct HostState {
  private static let base = "/run/tombolo"
  private static let sysctlsName = "sysctls"

  private let directory: String
  private var own: FileReference?
  private var name: String?

  init() throws(SystemError) {
    // net:[4026531840]
    let inode = try readLink("/proc/thread-self/ns/net").filter { $0.isASCII && $0.isNumber }
    directory = "\(Self.base)/net-\(inode)"
    try makeDirectories(Self.base)
  }

  private func locked<T>(_ body: () throws -> T) throws -> T {
    let file = try openFile("\(Self.base)/lock", O_RDWR | O_CREAT, mode: 0o600)
    _ = try lockFile(file.rawValue, wait: true)
    try makeDirectories(directory)
    defer { removeDirectory(directory) }
    return try body()
  }

  private func gateways() throws(SystemError) -> [String] {
    try directoryEntries(directory).filter { !$0.hasPrefix(Self.sysctlsName) }
  }

  /// Takes part under the name of the link that `open` makes: what is done from here on, `leave` or the next gateway
  /// undoes.
  /// - Parameter open: gets the name that a killed gateway had, or nil.
  mutating func enter<Link>(_ open: (String?) throws -> (Link, name: String)) throws -> Link {
    let (link, name, file) = try locked {
      var taken: (name: String, file: FileReference)?
      for name in try gateways() {
        guard let file = try? FileReference(openFile("\(directory)/\(name)", O_RDWR)),
          try lockFile(file.rawValue, wait: false)
        else { continue }
        if taken == nil { taken = (name, file) } else { remove(name) }
      }
      if let found = taken, let (link, name) = try? open(found.name), name == found.name {
        return (link, name, found.file)
      }
      if let found = taken { remove(found.name) }
      let (link, name) = try open(nil)
      let file = FileReference(try openFile("\(directory)/\(name)", O_RDWR | O_CREAT, mode: 0o600))
      _ = try lockFile(file.rawValue, wait: true)
      return (link, name, file)
    }
    own = file
    self.name = name
    return link
  }

  private func remove(_ name: String) {
    // Whichever back end has the rules; neither minds that they are not there.
    for backend in PacketFilter.allCases { try? backend.remove(rulesetNamed: name) }
    removeFile("\(directory)/\(name)")
  }

  private func restoreSysctls() {
    let path = "\(directory)/\(Self.sysctlsName)"
    guard let text = try? readText(path) else { return }
    Sysctls(text: text).restore()
    removeFile(path)
  }

  /// Switches forwarding on, having written down what was before.
  /// - Parameter prepare: puts rules in place, knowing what was forwarded before the first gateway.
  func enableForwarding(ipv6: Bool, prepare: (HostRuleset.Forwarding) throws -> Void) throws {
    try change { now, before in
      try prepare(before.forwarding)
      try now.enableForwarding(ipv6: ipv6)
    }
  }

  /// No other gateway of this network namespace chooses addresses meanwhile.
  func exclusively<T>(_ body: () throws -> T) throws -> T { try locked(body) }

  /// Keeps the host's own connections to those ports, having written down what was before.
  func usePorts(_ range: ClosedRange<UInt16>) throws { try change { now, _ in try now.usePorts(range) } }

  /// - Parameter body: gets the settings of now, and those before the first gateway.
  private func change(_ body: (Sysctls, Sysctls) throws -> Void) throws {
    try locked {
      let path = "\(directory)/\(Self.sysctlsName)"
      let now = Sysctls.current()
      if fileKind(path) == nil {
        // A whole file or none: written beside it first.
        try writeFile(path + ".new", now.text, mode: 0o600)
        try renameFile(path + ".new", to: path)
      }
      try body(now, Sysctls(text: try readText(path)))
    }
  }

  /// What another process needs to `leave` in our place.
  var held: [FileReference] { own.map { [$0] } ?? [] }

  /// Another process has what is `held`, and leaves in our place.
  mutating func abandon() { own = nil }

  mutating func leave() {
    guard own != nil, let name else { return }
    _ = try? locked {
      own = nil
      var living = false
      var dead = [name]
      for other in try gateways() where other != name {
        guard let file = try? openFile("\(directory)/\(other)", O_RDWR) else { continue }
        if try lockFile(file.rawValue, wait: false) { dead.append(other) } else { living = true }
      }
      // Forwarding first: the rules hold what it would let through.
      if !living { restoreSysctls() }
      for name in dead { remove(name) }
    }
  }
}
