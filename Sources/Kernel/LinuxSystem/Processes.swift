import CLinux
import Glibc
import SystemText

/// What a child process is started with; everything it does not say is inherited.
public struct SpawnRequest {
  public enum Executable {
    case path(String)
    /// Executed through the descriptor: the file need not be reachable by name any more.
    case descriptor(Int32)
  }

  public var executable: Executable
  /// Any bytes, as `SystemText`.
  public var arguments: [String]
  public var environment: [String]
  public var workingDirectory: String?
  /// Becomes descriptor 0, 1, 2, …; all others close, being close-on-exec.
  public var descriptors: [Int32]
  public var newSession = true
  /// nil: stays as it is.
  public var identity: (uid: UInt32, gid: UInt32, groups: [UInt32])?
  /// False in a user namespace with one id, where setgroups(2) is denied.
  public var setsGroups = true
  /// Bits of capabilities(7) that stay in the bounding set.
  public var keptCapabilities = UInt64.max
  public var clearsCapabilities = false
  public var noNewPrivileges = false
  public var parentDeathSignal: Int32 = 0
  /// Both limits of open files; where the hard one may not be raised so far, the soft one is set, at most to the hard one. 0
  /// leaves them.
  public var openFilesLimit: UInt64 = 0
  /// Signals that are blocked here stay so in a program that opens a signalfd itself: what comes before that waits.
  public var keepsSignalMask = false
  /// Set before anything is given up: a limit may be raised with CAP_SYS_RESOURCE alone.
  public var limits: [clinux_limit] = []
  /// seccomp(2); empty for none. Needs `noNewPrivileges` or CAP_SYS_ADMIN.
  public var filter: [sock_filter] = []
  /// A session keyring of its own, so that nothing is shared through that of the process that started us.
  public var newKeyring = false

  public init(_ executable: Executable, arguments: [String], environment: [String], descriptors: [Int32]) {
    self.executable = executable
    self.arguments = arguments
    self.environment = environment
    self.descriptors = descriptors
  }

  /// Both limits of open files, exactly.
  public mutating func limitOpenFiles(_ count: UInt64) {
    limits.append(clinux_limit(resource: Int32(RLIMIT_NOFILE.rawValue), soft: count, hard: count))
  }

  func withSpecification<R>(_ body: (UnsafePointer<clinux_spawn>) -> R) -> R {
    var spec = clinux_spawn()
    spec.exec_fd = -1
    var path: UnsafeMutablePointer<CChar>?
    switch executable {
    case .path(let text): path = duplicateSystemCString(text)
    case .descriptor(let fd): spec.exec_fd = fd
    }
    var argv: [UnsafeMutablePointer<CChar>?] = arguments.map(duplicateSystemCString) + [nil]
    var envp: [UnsafeMutablePointer<CChar>?] = environment.map(duplicateSystemCString) + [nil]
    let directory = workingDirectory.map(duplicateSystemCString)
    defer {
      free(path)
      for pointer in argv + envp { free(pointer) }
      if let directory { free(directory) }
    }
    spec.path = UnsafePointer(path)
    spec.directory = directory.map { UnsafePointer($0) } ?? nil
    spec.new_session = newSession
    spec.keep_capabilities = keptCapabilities
    spec.clear_capabilities = clearsCapabilities
    spec.no_new_privileges = noNewPrivileges
    spec.parent_death_signal = parentDeathSignal
    spec.nofile = openFilesLimit
    spec.keep_signal_mask = keepsSignalMask
    spec.new_keyring = newKeyring
    if let identity {
      spec.change_ids = true
      spec.uid = identity.uid
      spec.gid = identity.gid
      spec.set_groups = setsGroups
    }
    return argv.withUnsafeMutableBufferPointer { argv in
      envp.withUnsafeMutableBufferPointer { envp in
        descriptors.withUnsafeBufferPointer { fds in
          (identity?.groups ?? []).withUnsafeBufferPointer { groups in
            spec.argv = argv.baseAddress.map { UnsafePointer($0) }
            spec.envp = envp.baseAddress.map { UnsafePointer($0) }
            spec.fds = fds.baseAddress
            spec.fd_count = UInt32(fds.count)
            spec.groups = groups.baseAddress
            spec.group_count = UInt32(groups.count)
            return limits.withUnsafeBufferPointer { limits in
              filter.withUnsafeBufferPointer { filter in
                spec.limits = limits.baseAddress
                spec.limit_count = UInt32(limits.count)
                spec.filter = filter.baseAddress
                spec.filter_count = UInt32(filter.count)
                return withUnsafePointer(to: &spec) { body($0) }
              }
            }
          }
        }
      }
    }
  }
}

/// Which part of starting a process failed.
public struct SpawnError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Stage: Int32, Sendable {
    case none, clone, dup2, setsid, chdir, capabilityBoundingSet, setgroups, setgid, setuid, capset, noNewPrivileges
    case rlimit, exec, seccomp, keyring
  }

  public var stage: Stage
  public var program: String
  public var directory: String?
  public var errno: Int32

  public var description: String {
    switch stage {
    case .exec: SystemError("execve", program, errno: errno).description
    case .chdir: SystemError("chdir", directory ?? "", errno: errno).description
    default: SystemError("starting \(program): \(stage)", errno: errno).description
    }
  }
}

/// Starts a child process. Between fork and exec nothing but `CLinux` runs.
/// - Returns: its pid; it has been exec'ed.
public func spawn(_ request: SpawnRequest) throws(SpawnError) -> Int32 {
  var stage: Int32 = 0
  let pid = request.withSpecification { clinux_spawn_start($0, &stage) }
  guard pid < 0 else { return pid }
  throw SpawnError(
    stage: SpawnError.Stage(rawValue: stage) ?? .none, program: request.arguments.first ?? "",
    directory: request.workingDirectory, errno: -pid)
}

/// The namespaces of clone(2).
public struct Namespaces: OptionSet, Sendable {
  public let rawValue: UInt64
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  public static let mount = Namespaces(rawValue: 0x0002_0000)
  public static let uts = Namespaces(rawValue: 0x0400_0000)
  public static let ipc = Namespaces(rawValue: 0x0800_0000)
  public static let user = Namespaces(rawValue: 0x1000_0000)
  public static let pid = Namespaces(rawValue: 0x2000_0000)
  public static let network = Namespaces(rawValue: 0x4000_0000)
}

/// Starts the first process of new namespaces; it executes when one byte can be read from `gate`.
public func spawnInNamespaces(
  _ namespaces: Namespaces, gate: Int32, _ request: SpawnRequest
) throws(SystemError) -> Int32 {
  try check(
    "clone", "new namespaces",
    request.withSpecification { clinux_spawn_in_namespaces(namespaces.rawValue, gate, $0) })
}

public enum Reaped: Equatable, Sendable {
  case child(pid: Int32, exited: UInt8?, signal: Int32?)
  /// Only where asked for.
  case stopped(pid: Int32)
  /// Children run, none has ended.
  case noneEnded
  case noChildren
}

/// The next child that has ended, ours or an orphan that has come to us. The C function is `waitpid(-1, WNOHANG)`.
/// - Parameter stops: tell of those that were stopped, too (WUNTRACED).
public func reapChild(stops: Bool = false) -> Reaped {
  var pid: Int32 = 0
  var status: Int32 = 0
  switch clinux_reap(&pid, &status, stops) {
  case 0:
    if clinux_stopped(status) { return .stopped(pid: pid) }
    return clinux_exited(status)
      ? .child(pid: pid, exited: UInt8(truncatingIfNeeded: clinux_exit_status(status)), signal: nil)
      : .child(pid: pid, exited: nil, signal: clinux_term_signal(status))
  case -EAGAIN: return .noneEnded
  default: return .noChildren
  }
}

/// The corresponding C function is `kill`, for one process.
/// - Parameter pid: greater than 1.
@discardableResult
public func sendSignal(_ signal: Int32, to pid: Int32) -> Bool {
  pid > 1 && kill(pid, signal) == 0
}

/// The same for a child and its whole process group, which it leads (setsid(2)).
@discardableResult
public func sendSignal(_ signal: Int32, toGroupOf pid: Int32) -> Bool {
  pid > 1 && kill(-pid, signal) == 0
}

/// Stops this process: its parent sees it and may continue it (SIGCONT).
public func stopOneself() { _ = kill(getpid(), SIGSTOP) }

/// Signals every other process of this PID namespace, which only its PID 1 may do: elsewhere kill(-1) would end
/// everything on the machine.
/// - Returns: false where nobody is left.
public func signalEveryone(_ signal: Int32) -> Bool {
  guard getpid() == 1 else { return false }
  return kill(-1, signal) == 0
}

/// Signals as an event source reads them: blocked, and waiting in a signalfd(2). Real-time signals wait one by one.
public func openSignals(_ signals: [Int32]) throws(SystemError) -> FileReference {
  FileReference(OwnedFileDescriptor(try check("signalfd", "", clinux_signalfd(signals, Int32(signals.count)))))
}

/// The next signal that somebody else sent, or nil where none waits.
public func nextSignal(_ signals: FileReference) -> Int32? {
  let signal = clinux_signalfd_read(signals.rawValue)
  return signal > 0 ? signal : nil
}

/// SIGPIPE ends no process of ours: a write to a closed pipe or socket gives EPIPE instead.
public func ignoreBrokenPipes() { _ = signal(SIGPIPE, SIG_IGN) }

/// What ps(1) and top(1) call this process, at most 15 bytes: one executed through a descriptor is called by its number
/// before Linux 6.14. The C function is `prctl(PR_SET_NAME)`.
public func setProcessName(_ name: String) { _ = clinux_set_process_name(name) }

public func processID() -> Int32 { getpid() }
public func userID() -> UInt32 { getuid() }
public func effectiveUserID() -> UInt32 { geteuid() }
public func groupID() -> UInt32 { getgid() }

/// The soft limit of open files becomes the hard one. The corresponding C function is `setrlimit(RLIMIT_NOFILE)`.
public func raiseOpenFilesLimit() { clinux_raise_nofile(0) }

/// Both limits of open files become as many as a process may have at all, where this one may do that (CAP_SYS_RESOURCE), and
/// else the soft one the hard one.
public func raiseOpenFilesLimits() { clinux_raise_nofile(openFilesCeiling()) }

/// The hard limit of open files that this process was started with.
public func givenOpenFilesLimit() -> UInt64 { clinux_given_nofile() }

/// How many files one process may have open, whatever its limits (proc_sys_fs(5), nr_open).
public func openFilesCeiling() -> UInt64 {
  let text = (try? readText("/proc/sys/fs/nr_open")) ?? ""
  return UInt64(text.prefix { $0.isNumber }) ?? 1 << 20
}

/// How many descriptors this process may have now. The C function is `sysconf(_SC_OPEN_MAX)`.
public func openFilesLimit() -> Int { max(3, sysconf(Int32(_SC_OPEN_MAX))) }

/// The command line without its first element, as the kernel gave it: also where /proc was not mounted at start, when
/// Swift's own `CommandLine` is empty.
public func processArguments() -> [String] {
  var words: [String] = []
  while let word = clinux_argument(Int32(words.count + 1)) { words.append(String(systemCString: word)) }
  return words
}

/// Gives a pipe to the user who is to open it again by name, as /dev/stdout: the kernel looks at its owner then, and not
/// at who inherited it (runc's fixStdioPermissions does it for the same reason). Its group stays, and so does everything
/// else that the descriptor may be, such as a terminal, a file or a FIFO with a name. The C function is `fchown`.
public func givePipe(_ fd: Int32, to user: UInt32) throws(SystemError) {
  guard clinux_is_anonymous_pipe(fd) else { return }
  try checkErrno("fchown", "a pipe") { fchown(fd, user, .max) }
}

/// A variable of this process's environment.
public func environmentVariable(_ name: String) -> String? { getenv(name).map { String(systemCString: $0) } }

/// The C function is `getcwd`.
public func currentDirectory() -> String? {
  guard let path = getcwd(nil, 0) else { return nil }
  defer { free(path) }
  return String(systemCString: path)
}

/// Our children, orphans that have come to us included (proc(5), /proc/pid/task/tid/children).
public func childProcesses() -> [Int32] {
  let text = (try? readText("/proc/self/task/\(getpid())/children")) ?? ""
  return text.split(separator: " ").compactMap { Int32($0) }.filter { $0 > 1 }
}

/// What else runs: as PID 1 every process that is not the kernel's own, elsewhere our children. Those that have ended and
/// wait to be reaped are not among them.
public func otherProcesses() -> [Int32] {
  guard getpid() == 1 else { return childProcesses() }
  let names = (try? directoryEntries("/proc")) ?? []
  return names.compactMap { Int32($0) }.filter { $0 > 1 && isProgram($0) }
}

/// proc(5), /proc/pid/stat: behind the name, in brackets, come the state and, as the seventh, the flags.
private func isProgram(_ pid: Int32) -> Bool {
  let kernelThread: UInt64 = 0x0020_0000  // PF_KTHREAD, linux/sched.h
  guard let text = try? readText("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return false }
  let fields = text[text.index(after: end)...].split(separator: " ")
  guard fields.count > 6, fields[0] != "Z", fields[0] != "X", let flags = UInt64(fields[6]) else { return false }
  return flags & kernelThread == 0
}
