import CLinux
import Glibc

/// The flags of mount(2).
public struct MountFlags: OptionSet, Sendable {
  public let rawValue: UInt
  public init(rawValue: UInt) { self.rawValue = rawValue }

  public static let readOnly = MountFlags(rawValue: 1)
  public static let noSetUID = MountFlags(rawValue: 2)
  public static let noDevices = MountFlags(rawValue: 4)
  public static let noExecution = MountFlags(rawValue: 8)
  public static let synchronous = MountFlags(rawValue: 16)
  public static let remount = MountFlags(rawValue: 32)
  public static let bind = MountFlags(rawValue: 4096)
  public static let move = MountFlags(rawValue: 8192)
  public static let recursive = MountFlags(rawValue: 16384)
  public static let `private` = MountFlags(rawValue: 1 << 18)
}

/// The corresponding C function is `mount`.
public func mountFileSystem(
  _ source: String, _ target: String, type: String?, flags: MountFlags = [], data: String = ""
) throws(SystemError) {
  try checkErrno("mount", type.map { "\($0) on \(target)" } ?? "\(source) on \(target)") {
    source.withSystemCString { source in
      target.withSystemCString { target in
        data.withSystemCString { mount(source, target, type, flags.rawValue, data.isEmpty ? nil : $0) }
      }
    }
  }
}

/// Makes the mount at `path` read-only, whatever its file system is elsewhere. The flags that it has stay: in a user
/// namespace they are locked, and a remount without them is refused (mount_namespaces(7)).
/// The corresponding C functions are `statvfs` and `mount(MS_REMOUNT | MS_BIND | MS_RDONLY)`.
public func makeMountReadOnly(_ path: String) throws(SystemError) {
  var info = statvfs()
  try checkErrno("statvfs", path) { path.withSystemCString { statvfs($0, &info) } }
  // ST_NOSUID, ST_NODEV and ST_NOEXEC have the numbers of their MS_ twins; the access times' flags are kept by the kernel.
  let kept = MountFlags(rawValue: UInt(info.f_flag)).intersection([.noSetUID, .noDevices, .noExecution])
  try mountFileSystem("none", path, type: nil, flags: kept.union([.remount, .bind, .readOnly]))
}

/// Gives the bind mount at `path` flags of its own; those that it has stay (see `makeMountReadOnly`).
public func remountBind(_ path: String, _ flags: MountFlags) throws(SystemError) {
  var info = statvfs()
  try checkErrno("statvfs", path) { path.withSystemCString { statvfs($0, &info) } }
  let kept = MountFlags(rawValue: UInt(info.f_flag)).intersection([.readOnly, .noSetUID, .noDevices, .noExecution])
  try mountFileSystem("none", path, type: nil, flags: kept.union(flags).union([.remount, .bind]))
}

/// Makes `path`, a mount point, the root of this mount namespace and detaches the old root.
/// The corresponding C functions are `pivot_root` and `umount2(MNT_DETACH)`; both on "." as in pivot_root(2).
public func pivotRoot(to path: String) throws(SystemError) {
  try checkErrno("chdir", path) { path.withSystemCString { chdir($0) } }
  try check("pivot_root", path, clinux_pivot_root(".", "."))
  try checkErrno("umount2", "the old root") { umount2(".", Int32(CLINUX_MNT_DETACH)) }
  try checkErrno("chdir", "/") { chdir("/") }
}

/// Moves the mount `path` over the root and makes it the root. The C functions are `chdir`, `mount(MS_MOVE)`, `chroot`.
public func changeRoot(to path: String) throws(SystemError) {
  try checkErrno("chdir", path) { path.withSystemCString { chdir($0) } }
  try mountFileSystem(".", "/", type: nil, flags: [.move])
  try checkErrno("chroot", path) { chroot(".") }
  try checkErrno("chdir", "/") { chdir("/") }
}

/// What an unmount does where the mount is in use, or its server away (umount2(2)).
public struct UnmountFlags: OptionSet, Sendable {
  public let rawValue: Int32
  public init(rawValue: Int32) { self.rawValue = rawValue }

  /// What waits for a server fails.
  public static let force = UnmountFlags(rawValue: 1)
  /// It has no name any more, and ends with its last user.
  public static let detach = UnmountFlags(rawValue: 2)
  public static let noFollow = UnmountFlags(rawValue: 8)
}

/// The corresponding C function is `umount2`.
public func unmountFileSystem(_ path: String, _ flags: UnmountFlags) throws(SystemError) {
  try checkErrno("umount2", path) { path.withSystemCString { umount2($0, flags.rawValue) } }
}

/// Writes what has not been written of the file system of an open file. The C function is `syncfs`.
public func syncFileSystem(_ fd: Int32, _ object: String) throws(SystemError) {
  try checkErrno("syncfs", object) { clinux_syncfs(fd) }
}
