import CLinux
import Glibc

/// Whether the kernel filters system calls (CONFIG_SECCOMP_FILTER).
public func hasSystemCallFilters() -> Bool { clinux_has_seccomp() }

/// Gives up, for all threads and for good, every system call that the filter does not allow. What it traps ends the process
/// with a line on standard error. The C functions are `prctl(PR_SET_NO_NEW_PRIVS)` and `seccomp`.
public func confineSystemCalls(_ filter: [sock_filter]) throws(SystemError) {
  try check("seccomp", "", clinux_confine(filter, UInt32(filter.count)))
}

/// Nobody may look into this process from now on: no core file, no ptrace(2), and its entries in /proc are root's. The
/// corresponding C function is `prctl(PR_SET_DUMPABLE, 0)`.
public func forbidInspection() throws(SystemError) {
  try check("prctl", "PR_SET_DUMPABLE", clinux_set_dumpable(false))
}
