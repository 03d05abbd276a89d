/// Puts the members of tar archives into a tree, one archive (layer) above the other.
///
/// Whiteouts as in the OCI image specification ("Layer Filesystem Changeset"): `.wh.name` removes what lower layers put
/// at `name`, `.wh..wh..opq` removes all that lower layers put into its directory; neither touches what its own layer
/// brings, wherever in the archive that stands. A member with `..` in its name is refused; links are followed inside
/// the tree only.
struct LayerApplier {
  private static let whiteout = Array(".wh.".utf8)
  private static let opaque = Array(".wh..wh..opq".utf8)

  let tree: FileTree
  /// False for a plain tar of a root file system, where `.wh.x` is a file like any other.
  let whiteouts: Bool
  private var layer = 0

  init(tree: FileTree, whiteouts: Bool) {
    self.tree = tree
    self.whiteouts = whiteouts
  }

  mutating func apply(_ source: FileSlice) throws(ImageError) {
    layer += 1
    var reader = TarReader(source)
    while let entry = try reader.next() {
      do {
        try apply(entry, source)
      } catch .refused(let what) {
        throw .malformed(file: source.name, what)
      }
    }
  }

  private func apply(_ entry: TarEntry, _ source: FileSlice) throws(ImageError) {
    let components = try checked(entry.path, "member")
    if whiteouts, let name = components.last, name.starts(with: LayerApplier.whiteout) {
      return try removeBelow(Array(components.dropLast()), name)
    }
    let kind: FileNode.Kind
    switch entry.kind {
    case .hardLink(let target):
      guard let node = tree.lookup(try checked(target, "hard link"), followLast: false) else {
        throw .refused("\(text(entry.path)) is a hard link to \(text(target)), which is not there")
      }
      guard !node.isDirectory else {
        throw .refused("\(text(entry.path)) is a hard link to \(text(target)), which is a directory")
      }
      return try tree.insert(components, node, layer: layer)
    case .file(let slice): kind = .file(.slice(slice))
    case .directory: kind = .directory
    case .symbolicLink(let target): kind = .symbolicLink(target)
    case .characterDevice(let major, let minor): kind = .characterDevice(major: major, minor: minor)
    case .blockDevice(let major, let minor): kind = .blockDevice(major: major, minor: minor)
    case .fifo: kind = .fifo
    }
    let node = FileNode(kind, permissions: entry.permissions, owner: entry.owner, group: entry.group)
    try tree.insert(components, node, layer: layer)
  }

  private func checked(_ path: [UInt8], _ what: String) throws(ImageError) -> [[UInt8]] {
    let components = FileTree.components(path)
    guard !components.contains(Array("..".utf8)) else {
      throw .refused("the \(what) \"\(text(path))\" has .. in its name and could leave the image; refused")
    }
    return components
  }

  private func removeBelow(_ directory: [[UInt8]], _ marker: [UInt8]) throws(ImageError) {
    guard let node = tree.lookup(directory, followLast: true), node.isDirectory else { return }
    if marker == LayerApplier.opaque {
      prune(node)
    } else if !marker.starts(with: Array(".wh..wh.".utf8)) {  // aufs' own records mean nothing here
      let name = Array(marker.dropFirst(LayerApplier.whiteout.count))
      guard let child = node.children[name] else { return }
      if child.node.isDirectory { prune(child.node) }
      if child.layer < layer, child.node.children.isEmpty { node.children[name] = nil }
    }
  }

  /// Removes what lower layers put below a directory; its depth is bounded by the longest path a tree takes.
  private func prune(_ node: FileNode) {
    for (name, child) in node.children {
      if child.node.isDirectory { prune(child.node) }
      if child.layer < layer, child.node.children.isEmpty { node.children[name] = nil }
    }
  }
}
