import CLinux
import Glibc
import SystemText

/// The corresponding C function is `open`, always with O_CLOEXEC.
public func openFile(_ path: String, _ flags: Int32, mode: UInt32 = 0) throws(SystemError) -> OwnedFileDescriptor {
  OwnedFileDescriptor(try check("open", path, path.withSystemCString { clinux_open($0, flags, mode) }))
}

/// The same from a directory that is open. The corresponding C function is `openat`.
public func openFile(_ name: String, _ flags: Int32, in directory: Int32) throws(SystemError) -> OwnedFileDescriptor {
  OwnedFileDescriptor(try check("openat", name, name.withSystemCString { clinux_open_at(directory, $0, flags, 0) }))
}

/// A whole file, at most `limit` bytes.
/// - Throws: EFBIG where the file is larger than `limit`.
public func readFile(_ path: String, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
  let file = try openFile(path, O_RDONLY)
  var bytes: [UInt8] = []
  // Most of what init reads is small; what is large gets large reads.
  var chunk = [UInt8](repeating: 0, count: 1024)
  while true {
    if bytes.count == chunk.count, chunk.count < 1 << 18 { chunk = [UInt8](repeating: 0, count: chunk.count * 16) }
    let raw = file.rawValue
    let count = chunk.withUnsafeMutableBytes { clinux_read(raw, $0.baseAddress, $0.count) }
    try check("read", path, count)
    if count == 0 { return bytes }
    guard bytes.count + count <= limit else { throw SystemError("read", path, errno: EFBIG) }
    bytes += chunk[..<count]
  }
}

/// What an open descriptor still gives, to its end.
public func readToEnd(_ fd: Int32, limit: Int = 16 << 20) throws(SystemError) -> [UInt8] {
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 4096)
  while true {
    let count = chunk.withUnsafeMutableBytes { clinux_read(fd, $0.baseAddress, $0.count) }
    try check("read", "descriptor \(fd)", count)
    if count == 0 { return bytes }
    guard bytes.count + count <= limit else { throw SystemError("read", "descriptor \(fd)", errno: EFBIG) }
    bytes += chunk[..<count]
  }
}

/// A file of the system, as `SystemText`: names in it may be any bytes.
public func readText(_ path: String, limit: Int = 16 << 20) throws(SystemError) -> String {
  systemText(try readFile(path, limit: limit))
}

/// Writes all of `bytes` to a blocking descriptor.
public func writeAll(_ fd: Int32, _ bytes: some Collection<UInt8>, _ object: String = "") throws(SystemError) {
  let array = Array(bytes)
  var offset = 0
  while offset < array.count {
    let count = array.withUnsafeBytes { bytes in
      let rest = UnsafeRawBufferPointer(rebasing: bytes[offset...])
      return clinux_write(fd, rest.baseAddress, rest.count)
    }
    try check("write", object, count)
    offset += count
  }
}

/// Makes these the contents of an open file, whatever it had. The C functions are `lseek`, `write` and `ftruncate`.
public func rewriteFile(_ fd: Int32, _ bytes: [UInt8], _ object: String) throws(SystemError) {
  try checkErrno("lseek", object) { lseek(fd, 0, SEEK_SET) }
  try writeAll(fd, bytes, object)
  try checkErrno("ftruncate", object) { ftruncate(fd, off_t(bytes.count)) }
}

/// An open file from its beginning.
public func readFromStart(_ fd: Int32, limit: Int) throws(SystemError) -> [UInt8] {
  try checkErrno("lseek", "descriptor \(fd)") { lseek(fd, 0, SEEK_SET) }
  return try readToEnd(fd, limit: limit)
}

/// Creates or truncates `path` and writes `text`.
public func writeFile(_ path: String, _ text: String, mode: UInt32 = 0o644) throws(SystemError) {
  try writeFile(path, Array(text.utf8), mode: mode)
}

public func writeFile(_ path: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws(SystemError) {
  let file = try openFile(path, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
  try writeAll(file.rawValue, bytes, path)
}

/// A copy of a regular file with its permissions (without set-uid and set-gid: the copy is ours) and its time of change.
/// - Throws: EFBIG where the file is larger than `limit`, EINVAL where it is no regular file.
public func copyFile(_ source: String, to target: String, limit: Int) throws(SystemError) {
  // O_NONBLOCK: should a pipe stand there by now, nobody waits for its writer.
  let file = try openFile(source, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
  let raw = file.rawValue
  var info = stat()
  try checkErrno("fstat", source) { fstat(raw, &info) }
  guard info.st_mode & S_IFMT == S_IFREG else { throw SystemError("copy", source, errno: EINVAL) }
  let bytes = try readFile("/proc/self/fd/\(raw)", limit: limit)
  let copy = try openFile(target, O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
  let made = copy.rawValue
  try writeAll(made, bytes, target)
  try checkErrno("fchmod", target) { fchmod(made, info.st_mode & 0o777) }
  let times = [info.st_atim, info.st_mtim]
  try checkErrno("futimens", target) { futimens(made, times) }
}

/// The corresponding C functions are `stat`, `chown` and `chmod`. An owner that we may not give, or that our user namespace
/// does not have, is left out.
public func copyOwnerAndMode(_ source: String, to target: String) throws(SystemError) {
  var info = stat()
  try checkErrno("stat", source) { source.withSystemCString { stat($0, &info) } }
  do throws(SystemError) {
    try checkErrno("chown", target) { target.withSystemCString { chown($0, info.st_uid, info.st_gid) } }
  } catch  where error.errno == EPERM || error.errno == EINVAL {}
  try changeMode(target, info.st_mode & 0o7777)
}

public enum FileKind: Sendable { case file, directory, symbolicLink, characterDevice, blockDevice, socket, pipe, other }

/// What stands at a path; nil where nothing does (or it cannot be looked at). The C function is `stat` or `lstat`.
public func fileKind(_ path: String, followLinks: Bool = true) -> FileKind? {
  var info = stat()
  guard path.withSystemCString({ followLinks ? stat($0, &info) : lstat($0, &info) }) == 0 else { return nil }
  return FileKind(mode: info.st_mode)
}

/// Which file stands at a path, and when it was changed: as long as that is the same, so is what is in it, as glibc has it for
/// resolv.conf (resolv/file_change_detection.c).
public struct FileStamp: Equatable, Sendable {
  private let numbers: [Int64]

  /// nil where nothing stands there. The C function is `stat`.
  public init?(_ path: String) {
    var info = stat()
    guard path.withSystemCString({ stat($0, &info) }) == 0 else { return nil }
    numbers = [
      Int64(truncatingIfNeeded: info.st_dev), Int64(truncatingIfNeeded: info.st_ino), Int64(info.st_size),
      Int64(info.st_mtim.tv_sec), Int64(info.st_mtim.tv_nsec), Int64(info.st_ctim.tv_sec), Int64(info.st_ctim.tv_nsec),
    ]
  }
}

extension FileKind {
  init(mode: mode_t) {
    switch mode & S_IFMT {
    case S_IFREG: self = .file
    case S_IFDIR: self = .directory
    case S_IFLNK: self = .symbolicLink
    case S_IFCHR: self = .characterDevice
    case S_IFBLK: self = .blockDevice
    case S_IFSOCK: self = .socket
    case S_IFIFO: self = .pipe
    default: self = .other
    }
  }
}

/// The corresponding C function is `readlink`.
public func readLink(_ path: String) throws(SystemError) -> String {
  var buffer = [CChar](repeating: 0, count: 4096)
  let count = try checkErrno("readlink", path) { path.withSystemCString { readlink($0, &buffer, buffer.count) } }
  return systemText(buffer[..<count].map { UInt8(bitPattern: $0) })
}

/// A directory and its missing parents; those that exist are left alone.
public func makeDirectories(_ path: String, mode: UInt32 = 0o755) throws(SystemError) {
  var current = path.hasPrefix("/") ? "" : "."
  for part in path.split(separator: "/") {
    current += "/" + part
    if current.withSystemCString({ mkdir($0, mode) }) < 0, errno != EEXIST {
      let code = errno
      if fileKind(current) != .directory { throw SystemError("mkdir", current, errno: code) }
    }
  }
}

/// What new files and directories are not allowed to whom. The C function is `umask`.
public func setCreationMask(_ mask: UInt32) { _ = umask(mask) }

/// The names in a directory, without `.` and `..`, sorted. The C function is `readdir`.
public func directoryEntries(_ path: String) throws(SystemError) -> [String] {
  guard let directory = path.withSystemCString({ opendir($0) }) else {
    throw SystemError("opendir", path, errno: errno)
  }
  defer { closedir(directory) }
  var names: [String] = []
  while let entry = readdir(directory) {
    let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
      pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(systemCString: $0) }
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names.sorted()
}

/// Whether anybody may execute the file. The C function is `stat`.
public func isExecutable(_ path: String) -> Bool {
  var info = stat()
  return path.withSystemCString({ stat($0, &info) }) == 0 && info.st_mode & 0o111 != 0
}

/// The group of what is at `path`. The C function is `stat`.
public func fileGroup(_ path: String) -> UInt32? {
  var info = stat()
  return path.withSystemCString({ stat($0, &info) }) == 0 ? info.st_gid : nil
}

/// Locks one byte of an open file for as long as the file is open here. The C function is `fcntl(F_OFD_SETLK)`.
/// - Returns: false where somebody else has it.
public func lockByte(_ fd: Int32, at offset: Int64) throws(SystemError) -> Bool {
  try check("fcntl", "F_OFD_SETLK", clinux_lock_byte(fd, offset)) == 1
}

/// The C function is `chown`; nil leaves the one that is there.
public func changeOwner(_ path: String, user: UInt32?, group: UInt32?) throws(SystemError) {
  try checkErrno("chown", path) { path.withSystemCString { chown($0, user ?? .max, group ?? .max) } }
}

/// Who owns what stands at a path, and its permission bits; nil where nothing does. The C function is `stat` or `lstat`.
public func fileOwner(_ path: String, followLinks: Bool = true) -> (user: UInt32, mode: UInt32)? {
  var info = stat()
  guard path.withSystemCString({ followLinks ? stat($0, &info) : lstat($0, &info) }) == 0 else { return nil }
  return (info.st_uid, info.st_mode & 0o7777)
}

/// Length in bytes of what stands at a path, and whether we may read it; nil where nothing does. No link is followed. The
/// C functions are `lstat` and `access`.
public func fileSize(_ path: String) -> (bytes: Int, isReadable: Bool)? {
  var info = stat()
  guard path.withSystemCString({ lstat($0, &info) }) == 0 else { return nil }
  return (Int(info.st_size), path.withSystemCString { access($0, R_OK) } == 0)
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

/// The corresponding C function is `rename`.
public func renameFile(_ path: String, to target: String) throws(SystemError) {
  try checkErrno("rename", path) { rename(path, target) }
}

/// Each of the two gets the other's name, in one step. The C function is `renameat2(RENAME_EXCHANGE)`.
public func exchangeFiles(_ path: String, _ other: String) throws(SystemError) {
  try checkErrno("renameat2", "\(path) and \(other)") {
    path.withSystemCString { path in
      other.withSystemCString { renameat2(AT_FDCWD, path, AT_FDCWD, $0, UInt32(RENAME_EXCHANGE)) }
    }
  }
}

/// Whether an open file has this name. The C functions are `fstat` and `stat`.
public func isFile(_ fd: Int32, at path: String) -> Bool {
  var (own, named) = (stat(), stat())
  guard fstat(fd, &own) == 0, path.withSystemCString({ stat($0, &named) }) == 0 else { return false }
  return own.st_dev == named.st_dev && own.st_ino == named.st_ino
}

/// Locks a file against every other descriptor that asks, until it is closed. The C function is `flock(LOCK_EX)`.
/// - Returns: false where another holds it and `wait` is false.
public func lockFile(_ fd: Int32, wait: Bool) throws(SystemError) -> Bool {
  let result = clinux_flock(fd, wait)
  if result == -EAGAIN { return false }
  try check("flock", "", result)
  return true
}

/// The C function is `realpath`; nil where nothing is.
public func realPath(_ path: String) -> String? {
  guard let real = path.withSystemCString({ realpath($0, nil) }) else { return nil }
  defer { free(real) }
  return String(systemCString: real)
}

@discardableResult public func removeFile(_ path: String) -> Bool { path.withSystemCString { unlink($0) } == 0 }
@discardableResult public func removeDirectory(_ path: String) -> Bool { path.withSystemCString { rmdir($0) } == 0 }
