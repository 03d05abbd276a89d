import CLinux
import Glibc
import SystemText

// Theory of operation.
//
// A run that is killed leaves its directory behind, and the next run of the same user removes it. What tells the dead
// from the living is a file "lock" in the directory, locked (flock(2)) for as long as the run's process lives: the kernel
// lets go of it however that ends. The file gets its name only when it is locked, so a directory that has just been made
// has none, and one without is never touched. Everything is reached from the descriptor of the directory that has it,
// and never through a link: a name may become something else at any moment in a directory that others write to.

/// A directory of one run for its sockets and mount points, which only its user may enter.
public final class RunDirectory {
  private static let prefix = "tombolo-"
  /// mkdtemp(3) puts six characters behind the prefix.
  private static let nameLength = prefix.utf8.count + 6
  private static let lockName = "lock"

  public let path: String
  private let lock: FileReference

  /// Whom root gives its directories to.
  private let other: UInt32?

  /// Makes one, and removes those of runs that were killed.
  /// - Parameters:
  ///   - parent: such as /tmp.
  ///   - other: a user to whom `giveAway` gives it; those of runs that were killed may be that user's, too.
  public init(in parent: String, other: UInt32? = nil) throws(SystemError) {
    self.other = other
    Self.removeDead(in: parent, [geteuid()] + (other.map { [$0] } ?? []))
    path = try makeTemporaryDirectory("\(parent)/\(Self.prefix)")
    do throws(SystemError) {
      lock = try Self.makeLock(in: path)
    } catch {
      removeTree(path)
      throw error
    }
  }

  private static func makeLock(in path: String) throws(SystemError) -> FileReference {
    let unnamed = "\(path)/.\(lockName)"
    let lock = FileReference(try openFile(unnamed, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600))
    _ = try lockFile(lock.rawValue, wait: false)
    try checkErrno("rename", unnamed) {
      unnamed.withSystemCString { old in "\(path)/\(lockName)".withSystemCString { rename(old, $0) } }
    }
    return lock
  }

  /// With all that is in it.
  public func remove() { removeTree(path) }

  /// Lets the other user enter it.
  public func giveAway() throws(SystemError) {
    if let other { try changeOwner(path, user: other, group: other) }
  }

  private static func removeDead(in parent: String, _ owners: [UInt32]) {
    guard let directory = try? openFile(parent, O_RDONLY | O_DIRECTORY) else { return }
    for name in (try? directoryEntries(parent)) ?? [] where name.hasPrefix(prefix) && name.utf8.count == nameLength {
      removeDead(name, in: directory.rawValue, owners)
    }
  }

  private static func removeDead(_ name: String, in parent: Int32, _ owners: [UInt32]) {
    guard let directory = try? openFile(name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, in: parent),
      let owned = status(directory.rawValue), owners.contains(owned.st_uid), owned.st_mode & 0o077 == 0,
      // Not a FIFO that somebody has put there and that would be waited for.
      let lock = try? openFile(lockName, O_RDWR | O_NOFOLLOW | O_NONBLOCK, in: directory.rawValue),
      let file = status(lock.rawValue), file.st_mode & S_IFMT == S_IFREG, file.st_uid == geteuid(),
      (try? lockFile(lock.rawValue, wait: false)) == true
    else { return }
    removeContents(directory.rawValue, device: owned.st_dev, last: lockName)
    // Of this name or another one that has come in its place: only an empty directory goes.
    _ = unlinkat(parent, name, AT_REMOVEDIR)
  }

  private static func status(_ fd: Int32) -> stat? {
    var info = stat()
    return fstat(fd, &info) == 0 ? info : nil
  }
}

/// Removes a file or a whole tree; never crosses into another file system, never follows a link.
public func removeTree(_ path: String) {
  var info = stat()
  guard path.withSystemCString({ lstat($0, &info) }) == 0 else { return }
  guard info.st_mode & S_IFMT == S_IFDIR else {
    _ = path.withSystemCString { unlink($0) }
    return
  }
  if let directory = try? openFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) {
    removeContents(directory.rawValue, device: info.st_dev, last: nil)
  }
  _ = path.withSystemCString { rmdir($0) }
}

/// - Parameter last: a name that is kept until everything else has gone.
private func removeContents(_ directory: Int32, device: dev_t, last: String?) {
  for name in entryNames(directory) where last.map({ !matches(name, $0) }) ?? true {
    removeEntry(name, directory, device)
  }
  if let last { _ = unlinkat(directory, last, 0) }
}

private func removeEntry(_ name: [CChar], _ directory: Int32, _ device: dev_t) {
  var info = stat()
  guard fstatat(directory, name, &info, AT_SYMLINK_NOFOLLOW) == 0, info.st_dev == device else { return }
  guard info.st_mode & S_IFMT == S_IFDIR else {
    _ = unlinkat(directory, name, 0)
    return
  }
  let opened = clinux_open_at(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
  if opened >= 0 {
    let inner = OwnedFileDescriptor(opened)
    if fstat(inner.rawValue, &info) == 0, info.st_dev == device {
      removeContents(inner.rawValue, device: device, last: nil)
    }
  }
  _ = unlinkat(directory, name, AT_REMOVEDIR)
}

/// The names in a directory as the kernel has them, which need not be UTF-8, each with its NUL.
private func entryNames(_ directory: Int32) -> [[CChar]] {
  // The stream closes its descriptor, so it gets one of its own.
  let own = clinux_open_at(directory, ".", O_RDONLY | O_DIRECTORY, 0)
  guard own >= 0 else { return [] }
  guard let stream = fdopendir(own) else {
    _ = close(own)
    return []
  }
  defer { closedir(stream) }
  var names: [[CChar]] = []
  while let entry = readdir(stream) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
      pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
        Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1))
      }
    }
    if !matches(name, "."), !matches(name, "..") { names.append(name) }
  }
  return names
}

private func matches(_ name: [CChar], _ text: String) -> Bool {
  name.dropLast().elementsEqual(text.utf8.lazy.map { CChar(bitPattern: $0) })
}
