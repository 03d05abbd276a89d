import CLinux
import LinuxSystem

/// A listening Unix socket that removes its path when it ends.
final class UnixListener {
  let path: String
  let fd: Int32
  private let device: UInt64
  private let inode: UInt64

  /// - Parameter room: bytes that must fit after the path (the hybrid convention's `_PORT`).
  /// - Throws: `.configuration` where the path is too long or taken; a socket whose owner has died is replaced.
  init(path: String, room: Int = 0, backlog: Int32) throws(VhostVsockError) {
    let most = 107 - room
    let length = path.utf8.count
    guard length > 0, length <= most, !path.utf8.contains(0) else {
      if length == 0 { throw .configuration("the path of a socket is empty") }
      let why = room > 0 ? ", so that _PORT fits after it" : ""
      throw .configuration("\(path): \(length) bytes; the path of this Unix socket can have at most \(most)\(why)")
    }
    self.path = path
    var result = clinux_vhost_unix_listen(path, backlog)
    if result == -EADDRINUSE {
      guard fileKind(path, followLinks: false) == .socket else {
        throw .configuration("\(path): there is something that is not a socket")
      }
      let probe = clinux_vhost_unix_stream("")
      let answer = probe < 0 ? probe : clinux_vhost_unix_connect(probe, path)
      if probe >= 0 { _ = clinux_vhost_close(probe) }
      guard answer == -ECONNREFUSED else { throw .configuration("\(path): taken, another program listens there") }
      removeFile(path)
      result = clinux_vhost_unix_listen(path, backlog)
    }
    guard result >= 0 else { throw .system(SystemError("bind", path, errno: -result)) }
    fd = result
    var device: UInt64 = 0
    var inode: UInt64 = 0
    _ = clinux_vhost_file_identity(path, &device, &inode)
    self.device = device
    self.inode = inode
  }

  deinit {
    _ = clinux_vhost_close(fd)
    var device: UInt64 = 0
    var inode: UInt64 = 0
    // Somebody may have put another file there since.
    if clinux_vhost_file_identity(path, &device, &inode) == 0, device == self.device, inode == self.inode {
      removeFile(path)
    }
  }
}
