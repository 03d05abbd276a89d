/// What a program may do: capabilities(7), the filter of its system calls, its limits.
public struct ProgramRights: Equatable, Sendable {
  public enum Filter: String, CaseIterable, Sendable {
    /// The containers' list.
    case standard = "default"
    case none
  }

  /// A limit of setrlimit(2).
  public struct Limit: Equatable, Sendable {
    /// RLIMIT_…
    public var resource: Int32
    public var name: String
    /// In the resource's own unit; `UInt64.max` for none.
    public var soft: UInt64
    public var hard: UInt64
  }

  /// The bounding set, one bit each; nil: `containers`.
  public var capabilities: UInt64?
  public var filter = Filter.standard
  /// Set-uid programs and file capabilities work.
  public var newPrivileges = false
  /// The program may open AF_VSOCK sockets, and with them speak to the host itself.
  public var vsock = false
  public var limits: [Limit] = []
  public var readOnlyRoot = false
  /// Device nodes that the enclave has taken away must not come back: MKNOD is not among the usual ones.
  public var makesNoDevices = false

  public init() {}

  /// What the OCI runtimes give: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
  /// NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP (moby's oci/caps/defaults.go).
  public static let containers: UInt64 = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31].reduce(0) { $0 | 1 << $1 }
  /// CAP_MKNOD: a local enclave has no device group that would keep the machine's devices from it.
  public static let mknod: UInt64 = 1 << 27

  /// The bounding set.
  public func bounding(isLocal: Bool) -> UInt64 {
    capabilities ?? (isLocal || makesNoDevices ? Self.containers & ~Self.mknod : Self.containers)
  }

  /// In the order of their numbers (linux/capability.h), without "CAP_".
  static let names = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
  ]

  /// The names of a set's capabilities, in the order of their numbers.
  public static func names(of set: UInt64) -> [String] {
    (0..<64).filter { set >> UInt64($0) & 1 == 1 }.map { $0 < names.count ? names[$0] : "\($0)" }
  }

  /// The bit of a capability's name, with or without "CAP_", in capitals.
  public static func bit(_ name: String) -> UInt64? {
    let short = name.hasPrefix("CAP_") ? String(name.dropFirst(4)) : name
    return names.firstIndex(of: short).map { 1 << UInt64($0) }
  }

  /// The names of setrlimit(2) in small letters and their numbers (asm-generic/resource.h).
  static let resources: [(name: String, number: Int32)] = [
    ("cpu", 0), ("fsize", 1), ("data", 2), ("stack", 3), ("core", 4), ("rss", 5), ("nproc", 6), ("nofile", 7),
    ("memlock", 8), ("as", 9), ("locks", 10), ("sigpending", 11), ("msgqueue", 12), ("nice", 13), ("rtprio", 14),
    ("rttime", 15),
  ]

  static let limitForm = "a number, \"unlimited\", or two of them as \"SOFT:HARD\", soft not above hard"

  /// `1024`, `unlimited`, `1024:4096`.
  static func limit(_ name: String, _ text: String) -> Limit? {
    guard let resource = resources.first(where: { $0.name == name }) else { return nil }
    func number(_ text: Substring) -> UInt64? {
      if text == "unlimited" { return .max }
      guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let value = UInt64(text), value < .max
      else { return nil }
      return value
    }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let soft = number(parts[0]), let hard = number(parts[parts.count - 1]),
      soft <= hard
    else { return nil }
    return Limit(resource: resource.number, name: name, soft: soft, hard: hard)
  }

  mutating func read(_ table: inout TableReader) throws(ConfigurationError) {
    if let words = try table.strings("capabilities") {
      var set: UInt64 = 0
      for word in words {
        guard let bit = Self.bit(word) else {
          throw table.error(
            "capabilities", "found \"\(word)\", expected names of capabilities(7) such as \"CAP_NET_ADMIN\"")
        }
        set |= bit
      }
      capabilities = set
    }
    filter =
      try table.value("seccomp", "\"default\" or \"none\"") { Filter(rawValue: $0) } ?? filter
    newPrivileges = try table.flag("new_privileges") ?? newPrivileges
    vsock = try table.flag("vsock") ?? vsock
    readOnlyRoot = try table.flag("read_only_root") ?? readOnlyRoot
    if let given = try table.environment("limits") {
      var made: [Limit] = []
      for name in given.keys.sorted() {
        guard Self.resources.contains(where: { $0.name == name }) else {
          throw table.error(
            "limits", entry: name,
            "found \"\(name)\", expected one of \(Self.resources.map(\.name).joined(separator: ", "))")
        }
        guard let limit = Self.limit(name, given[name] ?? "") else {
          throw table.error("limits", entry: name, "found \"\(given[name] ?? "")\", expected \(Self.limitForm)")
        }
        made.append(limit)
      }
      limits = made
    }
  }
}
