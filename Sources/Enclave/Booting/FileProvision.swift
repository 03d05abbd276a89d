import CLinux
import LinuxSystem

/// Makes a path read as a given text in whatever image the user brought.
enum FileProvision {
  private static let directory = "/run/tombolo/etc"
  private static let linkLimit = 8

  static func provide(_ path: String, _ text: String) throws(SystemError) {
    let real = try resolve(path)
    if fileKind(real) != nil {
      // A file of the image: covered, not changed, so that a read-only image works and nothing of ours stays in it.
      try makeDirectories(directory)
      let source = "\(directory)/\(path.split(separator: "/").last ?? "file")"
      try writeFile(source, text)
      try mountFileSystem(source, real, type: nil, flags: [.bind])
      return
    }
    // Nothing there, such as the target of linuxkit's /etc/resolv.conf → /run/resolvconf/resolv.conf.
    if let slash = real.lastIndex(of: "/"), slash != real.startIndex { try makeDirectories(String(real[..<slash])) }
    try writeFile(real, text)
  }

  /// Follows the links of the last component, also to where nothing is.
  private static func resolve(_ path: String) throws(SystemError) -> String {
    var current = path
    for _ in 0..<linkLimit {
      guard fileKind(current, followLinks: false) == .symbolicLink else { return current }
      let target = try readLink(current)
      if target.hasPrefix("/") {
        current = target
      } else {
        let parent = current.lastIndex(of: "/").map { String(current[..<$0]) } ?? ""
        current = parent + "/" + target
      }
    }
    throw SystemError("readlink", path, errno: ELOOP)
  }
}
