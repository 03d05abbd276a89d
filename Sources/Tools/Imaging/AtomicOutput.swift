import CLinux
import LinuxSystem

/// A file that appears under its name only when it is whole: until then it has no name at all, so that not even a
/// SIGKILL leaves anything behind (on a file system without O_TMPFILE it has a temporary one).
final class AtomicOutput {
  let path: String
  private let file: FileReference
  private var temporaryName: String?
  private var buffer: [UInt8] = []
  /// Bytes handed over so far.
  private(set) var count = 0
  private static let bufferSize = 1 << 18

  /// - Throws: when the directory cannot be written to, or `path` is a directory.
  init(path: String) throws(ImageError) {
    if let kind = fileKind(path), kind != .file {
      throw .malformed(file: path, "is not a regular file; it is not replaced")
    }
    self.path = path
    let slash = path.lastIndex(of: "/")
    let directory = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    let raw = clinux_open(directory, O_RDWR | unnamedFile, 0o666)
    if raw >= 0 {
      file = FileReference(OwnedFileDescriptor(raw))
    } else if [EOPNOTSUPP, EISDIR, EINVAL].contains(-raw) {
      let name = AtomicOutput.temporary(path)
      let named = clinux_open(name, O_RDWR | O_CREAT | O_EXCL, 0o666)
      _ = try system { () throws(SystemError) in try check("create", name, named) }
      file = FileReference(OwnedFileDescriptor(named))
      temporaryName = name
    } else {
      throw .system(SystemError("create", path, errno: -raw))
    }
    buffer.reserveCapacity(AtomicOutput.bufferSize)
  }

  deinit { if let temporaryName { unlink(temporaryName) } }

  func append(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    count += bytes.count
    if buffer.count + bytes.count > AtomicOutput.bufferSize { try flush() }
    if bytes.count >= AtomicOutput.bufferSize { try writeAll(file.rawValue, bytes, path) } else { buffer += bytes }
  }

  private func flush() throws(ImageError) {
    try FileContent.bytes(buffer).forEachChunk { (chunk) throws(ImageError) in
      try writeAll(file.rawValue, chunk, path)
    }
    buffer.removeAll(keepingCapacity: true)
  }

  /// Writes over the file's beginning. The corresponding C function is `pwrite`.
  func overwriteStart(with bytes: [UInt8]) throws(ImageError) {
    try flush()
    var done = 0
    while done < bytes.count {
      done += try system { () throws(SystemError) in
        try checkErrno("pwrite", path) {
          bytes.withUnsafeBytes {
            pwrite(file.rawValue, $0.baseAddress.map { $0 + done }, $0.count - done, off_t(done))
          }
        }
      }
    }
  }

  /// Puts the whole file in its place, in one step, over what may be there. The C functions: `linkat`, `rename`.
  func commit() throws(ImageError) {
    try flush()
    if temporaryName == nil {
      let name = AtomicOutput.temporary(path)
      // linkat cannot replace: first a name of its own, then the step over the old file.
      _ = try system { () throws(SystemError) in
        try checkErrno("link", path) {
          linkat(AT_FDCWD, "/proc/self/fd/\(file.rawValue)", AT_FDCWD, name, AT_SYMLINK_FOLLOW)
        }
      }
      temporaryName = name
    }
    guard let name = temporaryName else { return }
    _ = try system { () throws(SystemError) in try checkErrno("rename", path) { rename(name, path) } }
    temporaryName = nil
  }

  private static func temporary(_ path: String) -> String { "\(path).\(getpid()).\(UInt32.random(in: .min ... .max))" }
}
