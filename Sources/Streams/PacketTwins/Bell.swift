import CLinux
import LinuxSystem

/// An eventfd: every `ring` is an edge for the loop that watches it, and nobody reads it (eventfd(2), epoll(7)).
final class Bell {
  let file: FileReference

  init() throws(SystemError) {
    file = FileReference(OwnedFileDescriptor(try check("eventfd", "", clinux_eventfd())))
  }

  func ring() {
    _ = withUnsafeBytes(of: 1 as UInt64) { clinux_write(file.rawValue, $0.baseAddress, $0.count) }
  }
}
