import CCap
import CLinux
import LinuxSystem

/// Sets of capabilities(7), one bit each, through libcap.
public struct CapabilitySet: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  private init(_ number: Int32) { self.init(rawValue: 1 << UInt64(number)) }

  public static let none: CapabilitySet = []

  /// What no program in an enclave needs and what could end or subvert the kernel under it: loading modules, raw
  /// memory and ports, rebooting, stepping the clock, replacing the security module's policy, reading the kernel's
  /// log and audit trail.
  public static let harmful: CapabilitySet = [
    .init(CAP_SYS_MODULE), .init(CAP_SYS_RAWIO), .init(CAP_SYS_BOOT), .init(CAP_SYS_TIME), .init(CAP_SYS_PACCT),
    .init(CAP_MAC_OVERRIDE), .init(CAP_MAC_ADMIN), .init(CAP_SYSLOG), .init(CAP_WAKE_ALARM),
    .init(CAP_AUDIT_CONTROL), .init(CAP_AUDIT_READ),
  ]

  /// What PID 1 itself goes on needing once everything is set up: to signal and start processes of other users, to
  /// narrow what they get, to give them their pipes, to read the image's files, and to unmount and power off at the
  /// end.
  public static let supervising: CapabilitySet = [
    .init(CAP_KILL), .init(CAP_CHOWN), .init(CAP_SETUID), .init(CAP_SETGID), .init(CAP_SETPCAP),
    .init(CAP_DAC_OVERRIDE),
    .init(CAP_SYS_ADMIN), .init(CAP_SYS_BOOT), .init(CAP_SYS_TIME), .init(CAP_SYS_RESOURCE),
  ]

  /// What nfnetlink_queue asks of the process that gives a verdict.
  public static let verdicts: CapabilitySet = [.init(CAP_NET_ADMIN)]

  /// The names of cap_to_name(3).
  public var names: [String] {
    (0..<64).filter { rawValue >> UInt64($0) & 1 == 1 }.compactMap { number in
      guard let name = cap_to_name(cap_value_t(number)) else { return nil }
      defer { cap_free(name) }
      return String(cString: name)
    }
  }
}

public enum Capabilities {
  /// Takes capabilities out of the bounding set: nothing started from here on can have them again.
  /// The corresponding C function is `cap_drop_bound`.
  public static func dropBounding(_ set: CapabilitySet) throws(SystemError) {
    for number in 0...cap_value_t(clinux_last_capability()) where set.rawValue >> UInt64(number) & 1 == 1 {
      guard cap_get_bound(number) == 1 else { continue }
      try checkErrno("cap_drop_bound", "\(CapabilitySet(rawValue: 1 << UInt64(number)).names.first ?? "\(number)")") {
        cap_drop_bound(number)
      }
    }
  }

  /// Keeps, of what this process has, only `set` in the effective set, and it and `more` in the permitted one; clears the
  /// inheritable one. The corresponding C function is `cap_set_proc`.
  /// - Parameter more: what a program that is started by this process may have and this process does not use: under
  ///   no_new_privs execve(2) gives root nothing that was not permitted before (cap_bprm_creds_from_file).
  public static func keepOnly(_ set: CapabilitySet, permitting more: CapabilitySet = []) throws(SystemError) {
    guard let current = cap_get_proc() else { throw SystemError("cap_get_proc", errno: errnoValue()) }
    defer { cap_free(UnsafeMutableRawPointer(current)) }
    guard let wanted = cap_init() else { throw SystemError("cap_init", errno: errnoValue()) }
    defer { cap_free(UnsafeMutableRawPointer(wanted)) }
    let permitted = set.union(more)
    for number in 0...cap_value_t(clinux_last_capability()) where permitted.rawValue >> UInt64(number) & 1 == 1 {
      var value = CAP_CLEAR
      guard cap_get_flag(current, number, CAP_PERMITTED, &value) == 0, value == CAP_SET else { continue }
      var list = [number]
      try checkErrno("cap_set_flag") { cap_set_flag(wanted, CAP_PERMITTED, 1, &list, CAP_SET) }
      guard set.rawValue >> UInt64(number) & 1 == 1 else { continue }
      try checkErrno("cap_set_flag") { cap_set_flag(wanted, CAP_EFFECTIVE, 1, &list, CAP_SET) }
    }
    try checkErrno("cap_set_proc") { cap_set_proc(wanted) }
  }
}
