import CLinux
import Capabilities
import LinuxSystem
import Seccomp

// What a host side keeps of its rights once its sockets are open and its enclave has been started, and before it reads a
// byte of the enclave's:
//
//   root's ▶ a user of its own     capabilities ▶ those of the role     no_new_privs     no core file, no ptrace
//   files ▶ reading resolv.conf (Landlock, where the kernel has it)     system calls ▶ those of the role (RoleFilter)
//
// What it has made under other rights it cannot take away any more: that is its caretaker's work (`Caretaker`).

public enum HostRights {
  /// The user of host sides that root starts; as the enclave's proxy (61042), below systemd's numbers for dynamic users.
  private static let ownUser: UInt32 = 61_043

  /// Whom root's host side becomes; nil where it stays who it is: it is not root, or that user is not in its namespace.
  public static let user: UInt32? = {
    guard effectiveUserID() == 0 else { return nil }
    let maps = ["uid", "gid"].map { (try? readText("/proc/self/\($0)_map", limit: 65536)) ?? "" }
    return maps.allSatisfy { isMapped(ownUser, $0) } ? ownUser : nil
  }()

  /// Whether a user namespace has that id (user_namespaces(7)): lines of an id inside, one outside, and a length.
  static func isMapped(_ id: UInt32, _ map: String) -> Bool {
    map.split(separator: "\n").contains { line in
      let numbers = line.split(separator: " ").compactMap { UInt32($0) }
      return numbers.count == 3 && id >= numbers[0] && id &- numbers[0] < numbers[2]
    }
  }

  /// Where resolv.conf is read, and read again when it has changed: it is replaced by another file then.
  public static var resolverDirectories: [String] {
    let real = realPath("/etc/resolv.conf") ?? "/etc/resolv.conf"
    return ["/etc", real.lastIndex(of: "/").map { String(real[..<$0]) } ?? "/etc"]
  }

  /// Gives up everything else, for all threads there will be. Called while there is one.
  /// - Parameters:
  ///   - keeping: capabilities of the role.
  ///   - readable: directories in which files may be read, and with `removable` removed.
  ///   - signalsOthers: the role's filter says whom.
  ///   - note: takes sentences that nobody needs to act on.
  public static func reduce(
    to role: RoleFilter, keeping: CapabilitySet = .none, becoming user: UInt32? = user,
    readable: [String] = resolverDirectories, removable: Bool = false, signalsOthers: Bool = false,
    note: (String) -> Void
  ) throws(SystemError) {
    if let user {
      try Capabilities.dropBounding(CapabilitySet(rawValue: .max).subtracting(keeping))
      try becomeUser(user)
    }
    try Capabilities.keepOnly(keeping)
    try forbidInspection()
    try forbidNewPrivileges()
    do throws(SystemError) {
      try restrictFiles(readable: readable, removable: removable, signalsOthers: signalsOthers)
    } catch {
      note("this kernel has no Landlock, so files are closed by their modes alone (\(error))")
    }
    guard hasSystemCallFilters() else {
      return note("this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER): the host side runs without one")
    }
    try confine(role)
  }

  static func confine(_ role: RoleFilter) throws(SystemError) {
    try confineSystemCalls(
      role.instructions.map { sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value) })
  }
}
