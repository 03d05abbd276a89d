import BootPlanning
import CLinux
import LinuxSystem

/// What a local enclave sees of the machine's files without being able to change it.
enum MachineFiles {
  /// The file's copy; where there is none, the file itself, read-only.
  static func show(_ source: String, at target: String, copied: Bool) throws(SystemError) {
    if copied {
      do throws(SystemError) {
        try copyFile(source, to: target, limit: RootPiece.copyLimit)
        return
      } catch  where error.errno == ENOENT {
        return
      } catch {
        // It has grown, or may not be read any more.
      }
    }
    let file: OwnedFileDescriptor
    do throws(SystemError) {
      file = try openFile(source, O_PATH | O_NOFOLLOW)
    } catch  where error.errno == ENOENT {
      return
    }
    _ = try openFile(target, O_WRONLY | O_CREAT, mode: 0o644)
    // Through the descriptor, so that a link that has been put there meanwhile leads nowhere.
    try mountFileSystem("/proc/self/fd/\(file.rawValue)", target, type: nil, flags: [.bind])
    try makeMountReadOnly(target)
  }

  /// The exceptions become mounts of their own, which the recursive bind takes along and the remount leaves as they are.
  static func protect(_ path: String, but exceptions: [String]) throws(SystemError) {
    guard fileKind(path) != nil else { return }
    for exception in exceptions.map({ "\(path)/\($0)" }) where fileKind(exception) != nil {
      try mountFileSystem(exception, exception, type: nil, flags: [.bind])
    }
    try mountFileSystem(path, path, type: nil, flags: [.bind, .recursive])
    try makeMountReadOnly(path)
  }

  static func mask(_ path: String) throws(SystemError) {
    switch fileKind(path) {
    case nil: return
    case .directory?:
      try mountFileSystem(
        "tmpfs", path, type: "tmpfs", flags: [.readOnly, .noSetUID, .noDevices, .noExecution], data: "mode=755")
    default: try mountFileSystem("/dev/null", path, type: nil, flags: [.bind])
    }
  }
}
