import EnclaveConfig

/// Sets of capabilities(7), one bit each, by the numbers of linux/capability.h.
public enum PlannedCapabilities {
  /// What no program in an enclave needs and what could end or subvert the kernel under it: loading modules, raw
  /// memory and ports, rebooting, stepping the clock, replacing the security module's policy, reading the kernel's
  /// log and audit trail: SYS_MODULE, SYS_RAWIO, SYS_PACCT, SYS_BOOT, SYS_TIME, AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN,
  /// SYSLOG, WAKE_ALARM, AUDIT_READ.
  public static let harmful = set([16, 17, 20, 22, 25, 30, 32, 33, 34, 35, 37])

  /// What PID 1 itself goes on needing once everything is set up: to signal and start processes of other users, to
  /// narrow what they get, to give them their pipes, to read the image's files, and to unmount and power off at the
  /// end: CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP, SYS_ADMIN, SYS_BOOT, SYS_RESOURCE, SYS_TIME.
  public static let supervising = set([0, 1, 5, 6, 7, 8, 21, 22, 24, 25])

  /// Of the proxy's keeper of verdicts: NET_ADMIN.
  public static let verdicts = set([12])

  private static func set(_ numbers: [UInt64]) -> UInt64 { numbers.reduce(0) { $0 | 1 << $1 } }

  /// `CHOWN, KILL`; "none" for no bit.
  static func names(_ set: UInt64) -> String {
    let names = ProgramRights.names(of: set)
    return names.isEmpty ? "none" : names.joined(separator: ", ")
  }
}
