import CLinux
import Glibc

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
