import BootPlanning
import LinuxSystem

/// The machine's file systems that belong into an overlay of it.
public enum MountTable {
  /// Types that hold files of their own on something lasting; everything else under a machine's root is either made
  /// anew inside (proc, sysfs, tmpfs) or not the enclave's business.
  private static let types: Set<Substring> = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "overlay",
  ]
  /// What an enclave has of its own.
  static let own = ["/proc", "/sys", "/dev", "/run", "/tmp"]

  private static func isOwn(_ path: String) -> Bool {
    own.contains { path == $0 || path.hasPrefix($0 + "/") }
  }

  public struct Mount: Equatable, Sendable {
    public var path: String
    public var type: String
  }

  /// The mounts in a text of proc(5)'s mountinfo form; of several at one place the topmost.
  public static func mounts(mountinfo: String) -> [Mount] {
    var result: [Mount] = []
    for line in mountinfo.split(whereSeparator: \.isNewline) {
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), dash >= 5, fields.count > dash + 1 else { continue }
      let path = unescaped(fields[4])
      result.removeAll { $0.path == path }
      result.append(Mount(path: path, type: String(fields[dash + 1])))
    }
    return result
  }

  /// For root: an overlay of "/" and of every other file system on something lasting.
  /// - Parameter isDirectory: a file can be a mount point too, and not of an overlay.
  public static func pieces(_ mounts: [Mount], isDirectory: (String) -> Bool) -> [RootPiece] {
    whole("/", mounts, isDirectory: isDirectory)
  }

  /// The same of a single directory, which may be on any file system.
  static func whole(_ path: String, _ mounts: [Mount], isDirectory: (String) -> Bool) -> [RootPiece] {
    let start = path == "/" ? path : path + "/"
    let others = mounts.filter { mount in
      mount.path != path && mount.path.hasPrefix(start) && types.contains(Substring(mount.type)) && !isOwn(mount.path)
        && isDirectory(mount.path)
    }
    return [.overlay(path)] + others.map(\.path).sorted { $0.utf8.count < $1.utf8.count }.map { .overlay($0) }
  }

  /// What stands in a directory.
  public struct Entry: Equatable, Sendable {
    public var name: String
    public var kind: FileKind
    public var link: String
    public var mode: UInt32
    /// In bytes; nil for what may not be read.
    public var size: Int?

    public init(_ name: String, _ kind: FileKind, link: String = "", mode: UInt32 = 0o755, size: Int? = 0) {
      self.name = name
      self.kind = kind
      self.link = link
      self.mode = mode
      self.size = size
    }
  }

  /// All copies of a root together, in bytes.
  public static let copyLimit = 32 << 20

  /// For a user namespace, where a directory with mounts below it cannot be an overlay's lower one (they are locked:
  /// clone_private_mount in fs/namespace.c): overlays of everything that has none. Files beside such a mount are copied,
  /// and shown read-only where the copies would be large. Sockets, pipes and devices beside it are left out: they would
  /// be the machine's own.
  public static func pieces(_ mounts: [Mount], entries: (String) -> [Entry]) -> [RootPiece] {
    var budget = copyLimit
    return pieces(mounts, below: "", &budget, entries)
  }

  /// The same of a single directory, which may be on any file system.
  static func whole(
    _ path: String, _ found: Entry, _ mounts: [Mount], _ budget: inout Int, entries: (String) -> [Entry]
  ) -> [RootPiece] {
    guard mounts.contains(where: { $0.path.hasPrefix(path + "/") }) else { return [.overlay(path)] }
    return [.directory(path, mode: found.mode)] + pieces(mounts, below: path, &budget, entries)
  }

  private static func pieces(
    _ mounts: [Mount], below directory: String, _ budget: inout Int, _ entries: (String) -> [Entry]
  ) -> [RootPiece] {
    entries(directory.isEmpty ? "/" : directory).flatMap { entry -> [RootPiece] in
      let path = directory + "/" + entry.name
      guard !isOwn(path) else { return [] }
      switch entry.kind {
      case .symbolicLink: return [.link(path, to: entry.link)]
      case .file:
        guard let size = entry.size, size <= min(budget, RootPiece.copyLimit) else {
          return [.file(path, copied: false)]
        }
        budget -= size
        return [.file(path, copied: true)]
      case .directory:
        if mounts.contains(where: { $0.path.hasPrefix(path + "/") }) {
          return [.directory(path, mode: entry.mode)] + pieces(mounts, below: path, &budget, entries)
        }
        if let mount = mounts.first(where: { $0.path == path }), !types.contains(Substring(mount.type)) {
          return [.directory(path, mode: entry.mode)]
        }
        return [.overlay(path)]
      default: return []
      }
    }
  }

  /// The machine's own directory listing, for `pieces`; what cannot be read is left out.
  public static func entries(of directory: String) -> [Entry] {
    ((try? directoryEntries(directory)) ?? []).compactMap { name in
      entry(at: directory == "/" ? "/" + name : directory + "/" + name, name)
    }
  }

  /// What stands at a path of the machine.
  static func entry(at path: String, _ name: String = "") -> Entry? {
    guard let kind = fileKind(path, followLinks: false), let size = fileSize(path) else { return nil }
    return Entry(
      name, kind, link: kind == .symbolicLink ? (try? readLink(path)) ?? "" : "",
      mode: fileOwner(path, followLinks: false)?.mode ?? 0o755, size: size.isReadable ? size.bytes : nil)
  }

  /// Spaces, tabs, newlines and backslashes stand as \040 and so on.
  private static func unescaped(_ field: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(field.utf8)[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3)
      if byte == UInt8(ascii: "\\"), digits.count == 3,
        let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
      {
        bytes.append(code)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
