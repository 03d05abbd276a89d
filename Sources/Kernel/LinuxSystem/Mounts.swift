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

/// Makes `path`, a mount point, the root of this mount namespace and detaches the old root.
/// The corresponding C functions are `pivot_root` and `umount2(MNT_DETACH)`; both on "." as in pivot_root(2).
public func pivotRoot(to path: String) throws(SystemError) {
  try checkErrno("chdir", path) { path.withSystemCString { chdir($0) } }
  try check("pivot_root", path, clinux_pivot_root(".", "."))
  try checkErrno("umount2", "the old root") { umount2(".", Int32(CLINUX_MNT_DETACH)) }
  try checkErrno("chdir", "/") { chdir("/") }
}

/// The corresponding C function is `symlink`; one that is already there stays.
public func makeSymbolicLink(_ path: String, to target: String) throws(SystemError) {
  do throws(SystemError) {
    try checkErrno("symlink", path) {
      target.withSystemCString { target in path.withSystemCString { symlink(target, $0) } }
    }
  } catch  where error.errno == EEXIST {}
}

/// The corresponding C function is `chmod`.
public func changeMode(_ path: String, _ mode: UInt32) throws(SystemError) {
  try checkErrno("chmod", path) { path.withSystemCString { chmod($0, mode) } }
}

/// The corresponding C function is `sethostname`.
public func setHostname(_ name: String) throws(SystemError) {
  try checkErrno("sethostname", name) { sethostname(name, name.utf8.count) }
}

/// Moves the mount `path` over the root and makes it the root. The C functions are `chdir`, `mount(MS_MOVE)`, `chroot`.
public func changeRoot(to path: String) throws(SystemError) {
  try checkErrno("chdir", path) { path.withSystemCString { chdir($0) } }
  try mountFileSystem(".", "/", type: nil, flags: [.move])
  try checkErrno("chroot", path) { chroot(".") }
  try checkErrno("chdir", "/") { chdir("/") }
}

/// This process in a directory as its root, with the way back: what is opened, made or mounted by name meanwhile is in
/// that directory, wherever links there point (path_resolution(7)). The corresponding C functions are `chroot` and `fchdir`.
public final class ConfinedRoot: Sendable {
  private let outside: OwnedFileDescriptor
  private let inside: OwnedFileDescriptor

  /// Enters `path`.
  public init(_ path: String) throws(SystemError) {
    outside = try openFile("/", O_PATH | O_DIRECTORY)
    inside = try openFile(path, O_PATH | O_DIRECTORY)
    try Self.enter(inside.rawValue)
  }

  public func leave() throws(SystemError) { try Self.enter(outside.rawValue) }

  /// Opens what has this name outside.
  public func openOutside(_ path: String) throws(SystemError) -> OwnedFileDescriptor {
    try leave()
    let opened: Result<Int32, SystemError>
    do throws(SystemError) {
      opened = .success(try openFile(path, O_PATH).release())
    } catch {
      opened = .failure(error)
    }
    try Self.enter(inside.rawValue)
    return OwnedFileDescriptor(try opened.get())
  }

  private static func enter(_ directory: Int32) throws(SystemError) {
    try checkErrno("fchdir", "a root") { fchdir(directory) }
    try checkErrno("chroot", "a root") { chroot(".") }
  }
}

/// The corresponding C function is `sync`.
public func syncFileSystems() { sync() }
