import CLinux
import EnclaveConfig
import LinuxSystem
import Seccomp

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
