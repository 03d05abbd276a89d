import CLinux
import Glibc
import SystemText

/// A directory tree of somebody else's making, in which no link leads out and nobody who changes it meanwhile does either.
///
/// Names are looked up component by component, each with O_NOFOLLOW; links are followed by hand, an absolute one from this
/// root, and ".." goes back to what has been passed. That is RESOLVE_IN_ROOT of openat2(2), which needs Linux 5.6.
public final class ForeignTree: Sendable {
  private static let linkLimit = 40

  private let root: OwnedFileDescriptor
  private let path: String

  public init(_ path: String) throws(SystemError) {
    root = try openFile(path, O_PATH | O_DIRECTORY)
    self.path = path
  }

  /// What is made where a name is missing.
  public enum Missing: Sendable { case nothing, directories, file }

  /// Opens what has this name in the tree, however links in it lead there.
  /// - Parameter making: directories that are missing on the way, and at its end a directory or an empty file.
  public func open(
    _ name: String, _ flags: Int32 = O_PATH, making: Missing = .nothing
  ) throws(SystemError) -> OwnedFileDescriptor {
    var passed: [FileReference] = []
    var rest = Self.components(name)
    var links = 0
    while let component = rest.popLast() {
      if component == ".." {
        _ = passed.popLast()
        continue
      }
      let directory = passed.last?.rawValue ?? root.rawValue
      if making != .nothing, entryKind(directory, component) == nil {
        if making == .file, rest.isEmpty {
          try makeFileEntry(directory, component)
        } else {
          try makeDirectoryEntry(directory, component)
        }
      }
      let found = FileReference(try Self.open(directory, component, shown(name)))
      guard let target = try Self.linkTarget(found.rawValue, shown(name)) else {
        passed.append(found)
        continue
      }
      links += 1
      guard links <= Self.linkLimit else { throw SystemError("open", shown(name), errno: ELOOP) }
      if target.utf8.first == UInt8(ascii: "/") { passed = [] }
      rest += Self.components(target)
    }
    // An O_PATH descriptor is opened anew by its name in /proc, for what it will be used for (open(2), O_PATH).
    let place = passed.last?.rawValue ?? root.rawValue
    do throws(SystemError) {
      return try openFile("/proc/self/fd/\(place)", flags)
    } catch {
      throw SystemError("open", shown(name), errno: error.errno)
    }
  }

  /// A whole file of the tree.
  public func read(_ name: String) throws(SystemError) -> [UInt8] {
    let file = try open(name)
    do throws(SystemError) {
      return try readFile("/proc/self/fd/\(file.rawValue)")
    } catch {
      throw SystemError(error.call, shown(name), errno: error.errno)
    }
  }

  private func shown(_ name: String) -> String { path + "/" + name }

  /// The last first.
  private static func components(_ path: String) -> [String] {
    path.utf8.split(separator: UInt8(ascii: "/")).map { String($0) ?? "" }.filter { $0 != "." }.reversed()
  }

  private static func open(
    _ directory: Int32, _ name: String, _ object: String
  ) throws(SystemError) -> OwnedFileDescriptor {
    OwnedFileDescriptor(
      try check("open", object, name.withSystemCString { clinux_open_at(directory, $0, O_PATH | O_NOFOLLOW, 0) }))
  }

  /// Where a link leads; nil for what is no link.
  private static func linkTarget(_ fd: Int32, _ object: String) throws(SystemError) -> String? {
    var info = stat()
    try checkErrno("fstat", object) { fstat(fd, &info) }
    guard info.st_mode & S_IFMT == S_IFLNK else { return nil }
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = try checkErrno("readlink", object) { readlinkat(fd, "", &buffer, buffer.count) }
    return systemText(buffer[..<count].map { UInt8(bitPattern: $0) })
  }
}

// Entries of an open directory: one component, no link followed.

/// What an entry is; nil where there is none. The C function is `fstatat` with AT_SYMLINK_NOFOLLOW.
public func entryKind(_ directory: Int32, _ name: String) -> (kind: FileKind, size: Int)? {
  var info = stat()
  guard fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
  return (FileKind(mode: info.st_mode), Int(info.st_size))
}

/// The corresponding C function is `mkdirat`.
public func makeDirectoryEntry(_ directory: Int32, _ name: String) throws(SystemError) {
  try checkErrno("mkdir", name) { mkdirat(directory, name, 0o755) }
}

/// A new empty file. The corresponding C function is `openat` with O_EXCL.
public func makeFileEntry(_ directory: Int32, _ name: String) throws(SystemError) {
  _ = OwnedFileDescriptor(
    try check("open", name, clinux_open_at(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o644)))
}

/// The corresponding C function is `unlinkat`.
public func removeEntry(_ directory: Int32, _ name: String, isDirectory: Bool) {
  _ = unlinkat(directory, name, isDirectory ? AT_REMOVEDIR : 0)
}
