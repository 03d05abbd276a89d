// The system calls that a program in an enclave may make: what containers have by default (moby/profiles,
// seccomp/default.json, 2026), as a BPF program that PID 1 carries as numbers.
//
//   another ABI than x86-64 ▶ ENOSYS     socket, clone, clone3, personality ▶ by their arguments
//   a number in one of the ranges ▶ allowed     any other known number ▶ EPERM     a newer one ▶ ENOSYS
//
// ENOSYS for what is newer than this table, as runc has it: a libc then falls back to the older call, where EPERM would
// end it.

/// Numbers of calls, both ends among them. Not a ClosedRange: the first of a kind has the runtime look through every
/// conformance of the program, on PID 1's way to the program.
struct CallRange: Equatable, Sendable {
  var lowerBound: UInt32
  var upperBound: UInt32
}

/// One instruction of classic BPF (linux/filter.h, struct sock_filter).
public struct FilterInstruction: Equatable, Sendable {
  public var code: UInt16
  public var jumpTrue: UInt8
  public var jumpFalse: UInt8
  public var value: UInt32

  public init(_ code: UInt16, _ value: UInt32, _ jumpTrue: UInt8 = 0, _ jumpFalse: UInt8 = 0) {
    self.code = code
    self.value = value
    self.jumpTrue = jumpTrue
    self.jumpFalse = jumpFalse
  }
}

public struct ProgramFilter: Equatable, Sendable {
  /// What the program keeps of capabilities(7), one bit each: some calls are allowed to who has the right anyway.
  public var capabilities: UInt64
  /// AF_VSOCK: the program may speak to the host itself.
  public var allowsVsock: Bool

  /// Calls besides, by number.
  private var others: [UInt32] = []
  /// keyctl(2), to have a session keyring of one's own and for nothing else.
  private var joinsKeyring = false

  public init(capabilities: UInt64, allowsVsock: Bool) {
    self.capabilities = capabilities
    self.allowsVsock = allowsVsock
  }

  /// PID 1's own, once everything is set up: it loads nothing into the kernel, mounts nothing, makes no namespaces. What it
  /// starts inherits that, so it is the program's filter with the calls that PID 1 itself needs besides, which the program's
  /// own refuses again.
  /// - Parameter mounts: processes that it starts mount and unmount.
  public func supervisor(mounts: Bool = false) -> ProgramFilter {
    var filter = self
    filter.allowsVsock = true
    filter.joinsKeyring = true
    // settimeofday, reboot, clock_settime
    filter.others = [164, 169, 227]
    // mount, umount2
    if mounts { filter.others += [165, 166] }
    return filter
  }

  // MARK: the table, x86-64 (arch/x86/entry/syscalls/syscall_64.tbl)

  /// The highest number that was looked at: open_tree_attr.
  static let last: UInt32 = 467

  /// Calls that need no capability, by number.
  static let ranges: [CallRange] = [
    (0, 40), (42, 55), (57, 102), (104, 133), (137, 138), (140, 152), (154, 154), (157, 160), (162, 162), (186, 211),
    (213, 226), (228, 235), (240, 245), (247, 247), (251, 255), (257, 271), (273, 278), (280, 297), (299, 299),
    (301, 303), (305, 307), (309, 311), (314, 319), (322, 322), (324, 334), (424, 424), (434, 434), (436, 437),
    (439, 439), (441, 441), (444, 449), (451, 458), (462, 466),
  ].map { CallRange(lowerBound: $0.0, upperBound: $0.1) }

  private static let socket: UInt32 = 41
  private static let clone: UInt32 = 56
  private static let personality: UInt32 = 135
  private static let keyctl: UInt32 = 250
  private static let clone3: UInt32 = 435

  /// Capability numbers (linux/capability.h) and the calls that come with each.
  static let conditional: [(capability: UInt64, calls: [UInt32])] = [
    (2, [304]),  // DAC_READ_SEARCH: open_by_handle_at
    (16, [175, 176, 313]),  // SYS_MODULE: init_module, delete_module, finit_module
    (17, [172, 173]),  // SYS_RAWIO: iopl, ioperm
    (18, [161]),  // SYS_CHROOT: chroot
    (19, [312, 438, 440]),  // SYS_PTRACE: kcmp, pidfd_getfd, process_madvise
    (20, [163]),  // SYS_PACCT: acct
    // SYS_ADMIN: syslog, mount, umount2, sethostname, setdomainname, quotactl, lookup_dcookie, unshare,
    // perf_event_open, fanotify_init, setns, bpf, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
    // mount_setattr, quotactl_fd, lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules
    (
      21,
      [
        103, 165, 166, 170, 171, 179, 212, 272, 298, 300, 308, 321, 428, 429, 430, 431, 432, 433, 442, 443, 459, 460,
        461,
      ]
    ),
    (22, [169]),  // SYS_BOOT: reboot
    (23, [237, 238, 239, 450]),  // SYS_NICE: mbind, set_mempolicy, get_mempolicy, set_mempolicy_home_node
    (25, [164, 227]),  // SYS_TIME: settimeofday, clock_settime
    (26, [153]),  // SYS_TTY_CONFIG: vhangup
    (34, [103]),  // SYSLOG: syslog
    (38, [298]),  // PERFMON: perf_event_open
    (39, [321]),  // BPF: bpf
  ]

  private static let sysAdmin: UInt64 = 21

  private func has(_ capability: UInt64) -> Bool { capabilities >> capability & 1 == 1 }

  /// Every call that no argument decides, as ranges in order.
  var allowed: [CallRange] {
    var more = others
    for entry in Self.conditional where has(entry.capability) { more += entry.calls }
    if has(Self.sysAdmin) { more += [Self.clone, Self.clone3] }
    guard !more.isEmpty else { return Self.ranges }
    var result: [CallRange] = []
    for range in (Self.ranges + more.map { CallRange(lowerBound: $0, upperBound: $0) }).sorted(by: {
      $0.lowerBound < $1.lowerBound
    }) {
      if let last = result.last, last.upperBound &+ 1 >= range.lowerBound {
        result[result.count - 1].upperBound = max(last.upperBound, range.upperBound)
      } else {
        result.append(range)
      }
    }
    return result
  }

  // MARK: the program

  // linux/bpf_common.h, linux/seccomp.h, asm-generic/errno.h
  private static let load: UInt16 = 0x20  // BPF_LD | BPF_W | BPF_ABS
  private static let jumpEqual: UInt16 = 0x15  // BPF_JMP | BPF_JEQ | BPF_K
  private static let jumpGreater: UInt16 = 0x25  // BPF_JMP | BPF_JGT | BPF_K
  private static let jumpGreaterEqual: UInt16 = 0x35  // BPF_JMP | BPF_JGE | BPF_K
  private static let jumpSet: UInt16 = 0x45  // BPF_JMP | BPF_JSET | BPF_K
  private static let give: UInt16 = 0x06  // BPF_RET | BPF_K
  private static let allow = FilterInstruction(give, 0x7fff_0000)
  private static let refuse = FilterInstruction(give, 0x0005_0000 | 1)  // EPERM
  private static let unknown = FilterInstruction(give, 0x0005_0000 | 38)  // ENOSYS

  // struct seccomp_data: nr, arch, instruction pointer, six arguments of 64 bits, the lower half first.
  private static let number: UInt32 = 0
  private static let architecture: UInt32 = 4
  private static let firstArgument: UInt32 = 16
  private static let x86_64: UInt32 = 0xc000_003e
  /// Numbers from here on are the x32 ABI's.
  private static let x32: UInt32 = 0x4000_0000
  /// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
  private static let cloneNamespaces: UInt32 = 0x7e02_0000

  /// At most 4096 instructions (linux/bpf_common.h, BPF_MAXINSNS).
  public var instructions: [FilterInstruction] {
    var code: [FilterInstruction] = [
      .init(Self.load, Self.architecture),
      .init(Self.jumpEqual, Self.x86_64, 1, 0), Self.unknown,
      .init(Self.load, Self.number),
      .init(Self.jumpGreaterEqual, Self.x32, 0, 1), Self.unknown,
    ]
    /// A call whose first argument decides.
    func byArgument(_ call: UInt32, _ body: [FilterInstruction]) {
      let block = [.init(Self.load, Self.firstArgument)] + body
      code.append(.init(Self.jumpEqual, call, 0, UInt8(truncatingIfNeeded: block.count)))
      code += block
    }
    // AF_ALG (38): the kernel's ciphers have been a way into it. AF_VSOCK (40): the host, past every rule of ours.
    byArgument(
      Self.socket,
      (allowsVsock ? [] : [.init(Self.jumpEqual, 40, 0, 1), Self.refuse])
        + [.init(Self.jumpEqual, 38, 0, 1), Self.refuse, Self.allow])
    byArgument(
      Self.personality,
      [0, 8, 0x20000, 0x20008, 0xffff_ffff].flatMap { [.init(Self.jumpEqual, $0, 0, 1), Self.allow] }
        + [Self.refuse])
    // KEYCTL_JOIN_SESSION_KEYRING
    if joinsKeyring { byArgument(Self.keyctl, [.init(Self.jumpEqual, 1, 0, 1), Self.allow, Self.refuse]) }
    if !has(Self.sysAdmin) {
      byArgument(Self.clone, [.init(Self.jumpSet, Self.cloneNamespaces, 0, 1), Self.refuse, Self.allow])
      // Its flags are behind a pointer, which no filter can follow: a libc falls back to clone.
      code += [.init(Self.jumpEqual, Self.clone3, 0, 1), Self.unknown]
    }
    for range in allowed {
      code += [
        .init(Self.jumpGreaterEqual, range.lowerBound, 1, 0), Self.refuse,
        .init(Self.jumpGreater, range.upperBound, 1, 0), Self.allow,
      ]
    }
    return code + [.init(Self.jumpGreater, Self.last, 1, 0), Self.refuse, Self.unknown]
  }
}
