import BootPlanning
import CLinux
import LinuxSystem

/// What a `--rootfs` needs for something to be mounted in it; what was not there is removed again. Where nothing can be
/// made in it, it is shown as pieces in a directory in memory that has all that.
///
/// Nothing here follows a link out of the tree: after the end the program has had it in its hands.
struct RootDirectory {
  static let directories = ["proc", "sys", "dev", "run", "tmp", "etc"]
  static let files = ["resolv.conf", "hosts", "hostname"]

  private var made: [(directory: FileReference, name: String, isDirectory: Bool)] = []

  /// - Returns: the pieces to show; none for a tree that has everything now.
  mutating func prepare(_ path: String) throws -> [RootPiece] {
    let tree = try ForeignTree(path)
    let isComplete = try makeMissing(tree)
    try checkLinks(tree, path)
    if isComplete { return [] }
    restore()
    return Self.pieces { MountTable.entries(of: path + $0) }
  }

  /// - Returns: false where nothing can be made in the tree.
  private mutating func makeMissing(_ tree: ForeignTree) throws(SystemError) -> Bool {
    do throws(SystemError) {
      try make(tree)
      return true
    } catch {
      guard [EROFS, EACCES, EPERM].contains(error.errno) else { throw error }
      return false
    }
  }

  private mutating func make(_ tree: ForeignTree) throws(SystemError) {
    let root = FileReference(try tree.open("."))
    for name in Self.directories where entryKind(root.rawValue, name) == nil {
      try makeDirectoryEntry(root.rawValue, name)
      made.append((root, name, true))
    }
    // A link that leads to nothing is told of below.
    guard let found = try? tree.open("etc", O_PATH | O_DIRECTORY) else { return }
    let etc = FileReference(found)
    for name in Self.files where entryKind(etc.rawValue, name) == nil {
      try makeFileEntry(etc.rawValue, name)
      made.append((etc, name, false))
    }
  }

  private func checkLinks(_ tree: ForeignTree, _ path: String) throws(LocalRunError) {
    for name in Self.directories {
      let target = try? readLink("\(path)/\(name)")
      do throws(SystemError) {
        _ = try tree.open(name, O_PATH | O_DIRECTORY)
      } catch  where error.errno == ENOENT && target == nil {
        // Shown as a piece.
      } catch {
        throw LocalRunError(
          sentence: target.map {
            "--rootfs: \(path)/\(name) is a link to \($0), which is no directory within that tree (\(error))"
          } ?? "--rootfs: \(path)/\(name) cannot be mounted on (\(error))")
      }
    }
  }

  /// What a tree that cannot be written is shown as: its entries, as they are, beside what it lacks.
  static func pieces(entries: (String) -> [MountTable.Entry]) -> [RootPiece] {
    func shown(_ entry: MountTable.Entry, _ path: String) -> RootPiece {
      switch entry.kind {
      case .symbolicLink: .link(path, to: entry.link)
      case .directory: .tree(path)
      default: .leaf(path)
      }
    }
    let top = entries("")
    var pieces: [RootPiece] = []
    for entry in top where entry.name != "etc" {
      let isCovered = directories.contains(entry.name) && entry.kind == .directory
      pieces.append(isCovered ? .directory("/" + entry.name, mode: entry.mode) : shown(entry, "/" + entry.name))
    }
    for name in directories where name != "etc" && !top.contains(where: { $0.name == name }) {
      pieces.append(.directory("/" + name, mode: 0o755))
    }
    let etc = top.first { $0.name == "etc" }
    if let etc, etc.kind != .directory { return pieces + [shown(etc, "/etc")] }
    let inEtc = etc == nil ? [] : entries("/etc")
    let missing = files.filter { name in !inEtc.contains { $0.name == name } }
    if etc != nil, missing.isEmpty { return pieces + [.tree("/etc")] }
    return pieces + [.directory("/etc", mode: etc?.mode ?? 0o755)] + inEtc.map { shown($0, "/etc/" + $0.name) }
      + missing.map { .empty("/etc/" + $0) }
  }

  /// What `restore` needs open.
  var held: [FileReference] { made.map(\.directory) }

  mutating func restore() {
    // What the program has put something into stays.
    for (directory, name, isDirectory) in made.reversed() {
      guard let entry = entryKind(directory.rawValue, name) else { continue }
      if isDirectory || entry.kind == .file && entry.size == 0 {
        removeEntry(directory.rawValue, name, isDirectory: isDirectory)
      }
    }
    made = []
  }
}
