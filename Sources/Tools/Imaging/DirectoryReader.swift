import CLinux
import LinuxSystem
import SystemText

/// Reads a directory of this machine into a tree: owners and modes as they are, hard links kept, contents by reference.
///
/// Sockets are left out, and what is mounted inside it stays out, each with a warning. Extended attributes are not read:
/// an initramfs has no place for them.
public struct DirectoryReader {
  private let warn: (String) -> Void
  private var hardLinks: [FileIdentity: FileNode] = [:]
  private var device: dev_t = 0

  private struct FileIdentity: Hashable {
    var device: dev_t
    var inode: ino_t
  }

  private init(warn: @escaping (String) -> Void) { self.warn = warn }

  public static func read(_ path: String, warn: @escaping (String) -> Void) throws(ImageError) -> FileTree {
    var reader = DirectoryReader(warn: warn)
    var info = stat()
    _ = try system { () throws(SystemError) in try checkErrno("stat", path) { stat(path, &info) } }
    guard fileType(info.st_mode) == S_IFDIR else { throw .malformed(file: path, "is not a directory") }
    reader.device = info.st_dev
    let tree = FileTree()
    tree.root.permissions = info.st_mode & 0o7777
    tree.root.owner = info.st_uid
    tree.root.group = info.st_gid
    try reader.fill(tree.root, from: systemBytes(path))
    return tree
  }

  private mutating func fill(_ node: FileNode, from path: [UInt8]) throws(ImageError) {
    for name in try DirectoryReader.names(in: path) {
      let childPath = path + [UInt8(ascii: "/")] + name
      guard let child = try self.node(at: childPath) else { continue }
      node.children[name] = FileNode.Child(node: child, layer: 0)
    }
  }

  private mutating func node(at path: [UInt8]) throws(ImageError) -> FileNode? {
    var info = stat()
    let object = text(path)
    _ = try system { () throws(SystemError) in
      try checkErrno("lstat", object) { withCPath(path) { lstat($0, &info) } }
    }
    let identity = FileIdentity(device: info.st_dev, inode: info.st_ino)
    if let known = hardLinks[identity] { return known }
    guard let kind = try kind(of: path, info) else { return nil }
    let node = FileNode(kind, permissions: info.st_mode, owner: info.st_uid, group: info.st_gid)
    switch kind {
    case .directory where info.st_dev != device:
      warn("\(object): another file system is mounted here; its contents are left out")
    case .directory: try fill(node, from: path)
    case .file where info.st_nlink > 1: hardLinks[identity] = node
    default: break
    }
    return node
  }

  private func kind(of path: [UInt8], _ info: stat) throws(ImageError) -> FileNode.Kind? {
    let major = gnu_dev_major(info.st_rdev)
    let minor = gnu_dev_minor(info.st_rdev)
    switch fileType(info.st_mode) {
    case S_IFDIR: return .directory
    case S_IFREG: return .file(.path(path, count: Int(info.st_size)))
    case S_IFLNK: return .symbolicLink(try DirectoryReader.target(of: path))
    case S_IFCHR: return .characterDevice(major: major, minor: minor)
    case S_IFBLK: return .blockDevice(major: major, minor: minor)
    case S_IFIFO: return .fifo
    default:
      warn("\(text(path)): a socket; left out")
      return nil
    }
  }

  private static func target(of path: [UInt8]) throws(ImageError) -> [UInt8] {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = try system { () throws(SystemError) in
      try checkErrno("readlink", text(path)) { withCPath(path) { readlink($0, &buffer, buffer.count) } }
    }
    return buffer.prefix(count).map { UInt8(bitPattern: $0) }
  }

  /// The names as bytes, without `.` and `..`. The corresponding C function is `readdir`.
  private static func names(in path: [UInt8]) throws(ImageError) -> [[UInt8]] {
    guard let directory = withCPath(path, { opendir($0) }) else {
      throw .system(SystemError("opendir", text(path), errno: lastError()))
    }
    defer { closedir(directory) }
    var names: [[UInt8]] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
      if name != Array(".".utf8), name != Array("..".utf8) { names.append(name) }
    }
    return names
  }
}

/// The S_IFMT bits of a mode, in the type that the S_IF constants have.
func fileType(_ mode: mode_t) -> Int32 { Int32(truncatingIfNeeded: mode) & S_IFMT }

/// errno, which is a macro in C.
func lastError() -> Int32 { __errno_location().pointee }
