/// Something in a file tree. A reference, so that two names can be one file (hard links).
public final class FileNode {
  public enum Kind {
    case directory
    case file(FileContent)
    case symbolicLink([UInt8])
    case characterDevice(major: UInt32, minor: UInt32)
    case blockDevice(major: UInt32, minor: UInt32)
    case fifo
  }

  struct Child {
    var node: FileNode
    /// The layer that put it here (or last said what it is): a whiteout removes only what lower layers put.
    var layer: Int
  }

  public let kind: Kind
  /// Mode bits 0o7777.
  public var permissions: UInt32
  public var owner: UInt32
  public var group: UInt32
  var children: [[UInt8]: Child] = [:]

  public init(_ kind: Kind, permissions: UInt32, owner: UInt32 = 0, group: UInt32 = 0) {
    self.kind = kind
    self.permissions = permissions & 0o7777
    self.owner = owner
    self.group = group
  }

  public var isDirectory: Bool { if case .directory = kind { true } else { false } }
}

/// A whole file system in memory, contents by reference. Every look-up is confined to it as chroot(2) would: an absolute
/// symbolic link begins at its root, and `..` of the root is the root.
public final class FileTree {
  /// Linux's PATH_MAX less the NUL, and room for the place the tree gets in a ramdisk (`rootfs/`).
  static let longestPath = 4095 - 16
  /// As many links as Linux follows in one look-up (MAXSYMLINKS).
  static let mostLinks = 40

  public let root: FileNode

  public init() { root = FileNode(.directory, permissions: 0o755) }

  typealias Step = (name: [UInt8], node: FileNode)

  /// What stands at a path, or nil. Intermediate links are followed, the last component's only if asked for.
  public func lookup(_ path: String, followLast: Bool = true) -> FileNode? {
    lookup(FileTree.components(Array(path.utf8)), followLast: followLast)
  }

  func lookup(_ components: [[UInt8]], followLast: Bool) -> FileNode? {
    guard let walk = try? walk(components, create: nil, followLast: followLast) else { return nil }
    return walk.last?.node ?? root
  }

  /// Puts a node at a path whose parents are made where they are missing, as 0755 of root.
  /// - Throws: when a parent is no directory, or the path is too long.
  func insert(_ components: [[UInt8]], _ node: FileNode, layer: Int = 0) throws(ImageError) {
    guard let name = components.last else {
      guard node.isDirectory else { throw .refused("/: only a directory can be the root of a tree") }
      return adopt(node, into: root)
    }
    guard let parents = try walk(Array(components.dropLast()), create: layer, followLast: true) else {
      throw .refused("/\(FileTree.joined(components)): one of its parent directories is not a directory")
    }
    let length = parents.reduce(name.count) { $0 + $1.name.count + 1 }
    guard length <= FileTree.longestPath else {
      throw .refused(
        "/\(FileTree.joined(components).prefix(80))…: a path of \(length) bytes; Linux takes \(FileTree.longestPath)")
    }
    let parent = parents.last?.node ?? root
    if node.isDirectory, let present = parent.children[name]?.node, present.isDirectory {
      adopt(node, into: present)
      parent.children[name] = FileNode.Child(node: present, layer: layer)
    } else {
      parent.children[name] = FileNode.Child(node: node, layer: layer)
    }
  }

  public func insert(_ path: String, _ node: FileNode) throws(ImageError) {
    try insert(FileTree.components(Array(path.utf8)), node)
  }

  private func adopt(_ node: FileNode, into present: FileNode) {
    present.permissions = node.permissions
    present.owner = node.owner
    present.group = node.group
    for (name, child) in node.children { present.children[name] = child }
  }

  /// The nodes from below the root to the path's end; nil when there is nothing, or something that is no directory in
  /// the way. With `create`, missing directories are made, as of that layer.
  private func walk(
    _ components: [[UInt8]], create layer: Int?, followLast: Bool
  ) throws(ImageError) -> [Step]? {
    var stack: [Step] = []
    var pending = Array(components.reversed())
    var links = 0
    while let name = pending.popLast() {
      if name == [UInt8(ascii: ".")] { continue }
      if name == [UInt8(ascii: "."), UInt8(ascii: ".")] {
        _ = stack.popLast()
        continue
      }
      let here = stack.last?.node ?? root
      guard here.isDirectory else { return nil }
      guard let child = here.children[name]?.node else {
        guard let layer else { return nil }
        guard stack.count < FileTree.longestPath / 2 else {
          throw .refused("a path of more than \(stack.count) directories")
        }
        let made = FileNode(.directory, permissions: 0o755)
        here.children[name] = FileNode.Child(node: made, layer: layer)
        stack.append((name, made))
        continue
      }
      guard case .symbolicLink(let target) = child.kind, followLast || !pending.isEmpty else {
        stack.append((name, child))
        continue
      }
      links += 1
      guard links <= FileTree.mostLinks else { return nil }
      if target.first == UInt8(ascii: "/") { stack.removeAll() }
      pending += FileTree.components(target).reversed()
    }
    if layer != nil, let last = stack.last, !last.node.isDirectory { return nil }
    return stack
  }

  /// Everything but the root, sorted by the bytes of its path; a directory stands before what is in it.
  public func entries() -> [(path: [UInt8], node: FileNode)] {
    var all: [(path: [UInt8], node: FileNode)] = []
    var pending: [(path: [UInt8], node: FileNode)] = [([], root)]
    while let (path, node) = pending.popLast() {
      for (name, child) in node.children {
        let entry = (path: path.isEmpty ? name : path + [UInt8(ascii: "/")] + name, node: child.node)
        all.append(entry)
        if child.node.isDirectory { pending.append(entry) }
      }
    }
    return all.sorted { $0.path.lexicographicallyPrecedes($1.path) }
  }

  /// The parts of a path, without empty ones and single dots.
  static func components(_ path: some Sequence<UInt8>) -> [[UInt8]] {
    path.split(separator: UInt8(ascii: "/")).map(Array.init).filter { $0 != [UInt8(ascii: ".")] }
  }

  static func joined(_ components: [[UInt8]]) -> String { text(components.joined(separator: [UInt8(ascii: "/")])) }
}
