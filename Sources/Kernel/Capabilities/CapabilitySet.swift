import CCap
import CLinux
import LinuxSystem

/// Sets of capabilities(7), one bit each, through libcap.
public struct CapabilitySet: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  private init(_ number: Int32) { self.init(rawValue: 1 << UInt64(number)) }

  public static let none: CapabilitySet = []

  /// What a host side needs that has started its enclave under another user: to end it, also by its own end
  /// (PR_SET_PDEATHSIG asks for the right to send that signal).
  public static let signalling: CapabilitySet = [.init(CAP_KILL)]

  /// What a host side's caretaker needs: to take away files in directories of others.
  public static let cleaning: CapabilitySet = [.init(CAP_DAC_OVERRIDE), .init(CAP_FOWNER)]

  /// What it needs in raw mode: links and rules; legacy xtables asks for raw sockets.
  public static let linking: CapabilitySet = [.init(CAP_NET_ADMIN), .init(CAP_NET_RAW)]

  /// What root's `tombolo status` needs: to connect to sockets in directories of other users.
  public static let reachingOthers: CapabilitySet = [.init(CAP_DAC_OVERRIDE)]

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
    // Whoever has nothing more may be forbidden to ask (a unit's SystemCallFilter=~@privileged).
    guard cap_compare(current, wanted) != 0 else { return }
    try checkErrno("cap_set_proc") { cap_set_proc(wanted) }
  }
}
