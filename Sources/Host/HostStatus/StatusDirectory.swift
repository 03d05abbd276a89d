import CLinux
import LinuxSystem

/// Where host sides can be asked: a directory with a Unix socket for each.
///
/// | who | directory |
/// |---|---|
/// | root | `/run/tombolo/status` |
/// | a service with `RuntimeDirectory=` (systemd.exec(5)) | `$RUNTIME_DIRECTORY` |
/// | others | `$XDG_RUNTIME_DIR/tombolo`, else `$TMPDIR` or `/tmp`, and in it `tombolo-status-UID` |
public enum StatusDirectory {
  private static let rootDirectory = "/run/tombolo/status"
  private static let suffix = ".sock"

  /// This process's own.
  static func own() -> String {
    let user = effectiveUserID()
    if user == 0 { return rootDirectory }
    func variable(_ name: String) -> String? {
      environmentVariable(name).flatMap { $0.hasPrefix("/") ? $0 : nil }
    }
    if let directory = variable("RUNTIME_DIRECTORY")?.split(separator: ":").first { return String(directory) }
    if let directory = variable("XDG_RUNTIME_DIR") { return "\(directory)/tombolo" }
    return "\(variable("TMPDIR") ?? "/tmp")/tombolo-status-\(user)"
  }

  /// Makes it, for us alone.
  /// - Throws: EPERM where something is there that is not ours alone: in /tmp anybody could have made it.
  public static func make() throws(SystemError) -> String {
    let path = own()
    if let slash = path.lastIndex(of: "/"), slash != path.startIndex { try makeDirectories(String(path[..<slash])) }
    if fileKind(path, followLinks: false) == nil { try makeDirectories(path, mode: 0o700) }
    guard isOurs(path) else { throw SystemError("mkdir", path, errno: EPERM) }
    return path
  }

  /// Follows a link only where systemd made it: a DynamicUser's directory is one, to /run/private.
  private static func isOurs(_ path: String) -> Bool {
    let linked = path == environmentVariable("RUNTIME_DIRECTORY")
    guard fileKind(path, followLinks: linked) == .directory, let owner = fileOwner(path, followLinks: linked) else {
      return false
    }
    return owner.user == effectiveUserID() && (linked || owner.mode & 0o077 == 0)
  }

  /// Directories in which those of `sockets` are.
  public static var all: [String] { [own()] + (effectiveUserID() == 0 ? ["/run"] : []) }

  /// Sockets of host sides that this user may ask; root also those of services and of users who are logged in.
  static func sockets() -> [String] {
    var directories = [own()]
    if effectiveUserID() == 0 {
      directories += entries("/run").filter { $0.hasPrefix("tombolo-host-") }.map { "/run/\($0)" }
      directories += entries("/run/user").map { "/run/user/\($0)/tombolo" }
    } else if !isOurs(directories[0]) {
      return []
    }
    return directories.flatMap { directory in
      entries(directory).filter { $0.hasSuffix(suffix) }.map { "\(directory)/\($0)" }
    }
  }

  private static func entries(_ path: String) -> [String] { (try? directoryEntries(path)) ?? [] }

  /// Whether a socket that nobody listens on may be removed: it is in a directory of ours.
  static func mayRemove(_ path: String) -> Bool { path.hasPrefix(own() + "/") && isOurs(own()) }

  /// A name that no other process has: process ids of containers repeat each other.
  static func socketName() -> (temporary: String, final: String) {
    let name = "\(processID())-\(String(randomUInt64(), radix: 36))"
    return (".\(name)", name + suffix)
  }
}
