import CLinux
import EnclaveConfig
import LinuxSystem
import Seccomp

/// What PID 1 itself gives up when everything is set up; what it starts inherits that, and so it is never less than the program
/// is to have. A program without a filter needs a PID 1 without one.
/// - Parameter mounts: processes that PID 1 starts mount and unmount.
public func confineSupervisor(_ rights: ProgramRights, isLocal: Bool, mounts: Bool) throws(SystemError) {
  if !rights.newPrivileges { try forbidNewPrivileges() }
  guard rights.filter == .standard, hasSystemCallFilters() else { return }
  let filter = ProgramFilter(capabilities: rights.bounding(isLocal: isLocal), allowsVsock: rights.vsock)
    .supervisor(mounts: mounts)
  try filterSystemCalls(
    filter.instructions.map { sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value) })
}

extension SpawnRequest {
  /// What the program may do, as the configuration says and no more.
  /// - Parameter isLocal: the machine's own devices are within reach of a right to make their nodes.
  mutating func confine(_ rights: ProgramRights, isLocal: Bool, warn: (String) -> Void) {
    let kept = rights.bounding(isLocal: isLocal)
    keptCapabilities = kept
    noNewPrivileges = !rights.newPrivileges
    newKeyring = true
    limits = rights.limits.map { clinux_limit(resource: $0.resource, soft: $0.soft, hard: $0.hard) }
    guard rights.filter == .standard else { return }
    guard hasSystemCallFilters() else {
      warn("this kernel has no filters of system calls (CONFIG_SECCOMP_FILTER): the program runs without one")
      return
    }
    filter = ProgramFilter(capabilities: kept, allowsVsock: rights.vsock).instructions.map {
      sock_filter(code: $0.code, jt: $0.jumpTrue, jf: $0.jumpFalse, k: $0.value)
    }
  }
}
