import CLinux
import Glibc

// How a process becomes one with fewer rights: thin calls.

/// Another user with one group, in every thread; what capabilities are permitted stays permitted. The C functions are
/// `setgroups`, `setresgid` and `setresuid`.
public func becomeUser(_ user: UInt32) throws(SystemError) {
  try check("setresuid", "\(user)", clinux_become(user, user))
}

/// What is executed from here on gets no right that this process does not have. The C function is
/// `prctl(PR_SET_NO_NEW_PRIVS)`.
public func forbidNewPrivileges() throws(SystemError) {
  try check("prctl", "PR_SET_NO_NEW_PRIVS", clinux_set_no_new_privileges())
}

/// A filter of system calls for this process and what it starts; needs `forbidNewPrivileges` or CAP_SYS_ADMIN. The C
/// function is `seccomp`.
public func filterSystemCalls(_ filter: [sock_filter]) throws(SystemError) {
  try check("seccomp", "", clinux_filter(filter, UInt32(filter.count)))
}

/// Opens no file any more but below some directories, and those to read them; no new listening TCP port, where the kernel
/// can tell that (6.7). landlock(7); what is open stays so.
/// - Parameters:
///   - removable: files and directories in them may be removed.
///   - replaceable: files in them may get other names in them.
///   - signalsOthers: processes of others may be signalled; without it not where the kernel can tell that (6.12).
/// - Throws: ENOSYS or EOPNOTSUPP where the kernel has no Landlock.
public func restrictFiles(
  readable: [String], removable: Bool = false, replaceable: Bool = false, signalsOthers: Bool
) throws(SystemError) {
  let paths = readable.map(duplicateSystemCString)
  defer { for path in paths { free(path) } }
  let result = paths.map { UnsafePointer($0) }.withUnsafeBufferPointer {
    clinux_landlock($0.baseAddress, Int32(truncatingIfNeeded: $0.count), removable, replaceable, signalsOthers)
  }
  try check("landlock_restrict_self", "", result)
}

/// A child with a copy of everything. The C function is `fork`; only for a process with one thread.
/// - Returns: 0 in the child, which goes on as this process would and ends by `exitNow`.
public func forkProcess() throws(SystemError) -> Int32 { try check("fork", "", clinux_fork()) }

/// Ends this process with nothing done that its parent's exit will do. The C function is `_exit`.
public func exitNow(_ status: Int32) -> Never { clinux_exit_now(status) }

/// Closes every descriptor from 3 on but those. The C function is `close_range`.
public func closeDescriptors(except kept: [Int32]) {
  clinux_keep_descriptors(kept, Int32(truncatingIfNeeded: kept.count))
}

/// The C function is `dup2`.
public func replaceDescriptor(_ target: Int32, by source: Int32) { _ = clinux_dup_to(source, target) }

/// Blocks every signal that can be blocked. The C function is `sigprocmask`.
public func blockEverySignal() { clinux_set_signal_mask(~0, nil) }
