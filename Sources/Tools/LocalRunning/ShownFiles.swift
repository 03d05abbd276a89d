import BootPlanning
import LinuxSystem

// Theory of operation.
//
// What a local enclave sees of the machine's files is all of them, unless the command line says less: `--show` names what is
// there, `--hide` what is covered. Both take paths of the machine. A shown path is a piece of the root of its own, below
// directories that have nothing else; links on the way to it are there as links, and what they lead to is shown. Links of "/"
// itself are always there: `/bin` and `/lib` lead into `/usr` on most systems.

/// A path of `--show` or `--hide` that cannot be meant.
public struct ShownFilesError: Error, Equatable, CustomStringConvertible {
  public var description: String
}

/// `--show` and `--hide`, checked.
public struct ShownFiles: Equatable, Sendable {
  /// Absolute paths; empty: all that there is.
  public private(set) var shown: [String] = []
  /// Absolute paths, which are covered.
  public private(set) var hidden: [String] = []

  /// - Parameters:
  ///   - directory: where relative paths start.
  ///   - kind: what a path of the machine is, behind links; nil where there is nothing.
  public init(
    show: [String], hide: [String], directory: String, kind: (String) -> FileKind?
  ) throws(ShownFilesError) {
    for path in show { shown.append(try Self.check("--show", path, directory, kind, [.directory, .file])) }
    for path in hide { hidden.append(try Self.check("--hide", path, directory, kind, nil)) }
  }

  private static func check(
    _ option: String, _ path: String, _ directory: String, _ kind: (String) -> FileKind?, _ kinds: [FileKind]?
  ) throws(ShownFilesError) -> String {
    func refuse(_ what: String) -> ShownFilesError {
      ShownFilesError(description: "\(option): found \"\(path)\", \(what)")
    }
    let components = (path.hasPrefix("/") ? path : directory + "/" + path).split(separator: "/").filter { $0 != "." }
    guard !path.isEmpty, !components.contains("..") else { throw refuse("expected a path without \"..\"") }
    guard !components.isEmpty else { throw refuse("which is everything; expected something below it") }
    let absolute = components.reduce(into: "") { text, component in text += "/" + component }
    if let own = MountTable.own.first(where: { absolute == $0 || absolute.hasPrefix($0 + "/") }) {
      throw refuse("but \(own) is the enclave's own: nothing of this machine's is there")
    }
    guard let found = kind(absolute) else { throw refuse("which is not there") }
    guard kinds?.contains(found) ?? true else { throw refuse("expected a file or a directory") }
    return absolute
  }
}

/// The root that `--show` makes of the machine's files.
public enum ShownRoot {
  private static let linkLimit = 40

  /// - Parameters:
  ///   - links: those of "/".
  ///   - entry: what stands at a path of the machine, a link as a link; nil where there is nothing.
  ///   - whole: the pieces that show a directory with all that is below it.
  public static func pieces(
    _ shown: [String], links: [MountTable.Entry], entry: (String) -> MountTable.Entry?,
    whole: (String, MountTable.Entry) -> [RootPiece]
  ) throws(ShownFilesError) -> [RootPiece] {
    var links = links.filter { $0.kind == .symbolicLink }.map { (path: "/" + $0.name, target: $0.link) }
    var places: [(path: String, entry: MountTable.Entry)] = []
    for path in shown { places.append(try place(of: path, named: path, &links, linkLimit, entry)) }
    places.sort { ($0.path.utf8.count, $0.path) < ($1.path.utf8.count, $1.path) }
    var pieces: [RootPiece] = []
    var made: Set<String> = []
    var trees: [String] = []
    func isInTree(_ path: String) -> Bool { trees.contains { path.hasPrefix($0 + "/") } }
    func addParents(_ path: String) {
      var current = ""
      for component in path.split(separator: "/").dropLast() {
        current += "/" + component
        if made.insert(current).inserted { pieces.append(.directory(current, mode: entry(current)?.mode ?? 0o755)) }
      }
    }
    for (path, found) in places where !made.contains(path) && !isInTree(path) {
      addParents(path)
      made.insert(path)
      if found.kind == .directory {
        trees.append(path)
        pieces += whole(path, found)
      } else {
        pieces.append(.file(path, copied: found.size.map { $0 <= RootPiece.copyLimit } ?? false))
      }
    }
    for (path, target) in links where !isInTree(path) {
      addParents(path)
      if made.insert(path).inserted { pieces.append(.link(path, to: target)) }
    }
    // The enclave's own files come in there.
    addParents("/etc/hosts")
    return pieces
  }

  /// Where a path leads; the links on the way are added to `links`.
  private static func place(
    of path: String, named: String, _ links: inout [(path: String, target: String)], _ left: Int,
    _ entry: (String) -> MountTable.Entry?
  ) throws(ShownFilesError) -> (path: String, entry: MountTable.Entry) {
    func refuse(_ what: String) -> ShownFilesError { ShownFilesError(description: "--show: \"\(named)\" \(what)") }
    guard left > 0 else { throw refuse("leads through too many links") }
    var current = ""
    let components = path.split(separator: "/")
    for (index, component) in components.enumerated() {
      current += "/" + component
      if MountTable.own.contains(current) { throw refuse("leads to \(current), which is the enclave's own") }
      guard let found = entry(current) else { throw refuse("is not there: there is no \(current)") }
      if found.kind == .symbolicLink {
        links.append((current, found.link))
        let rest = components[(index + 1)...].reduce(into: "") { text, component in text += "/" + component }
        return try place(of: target(of: current, found.link) + rest, named: named, &links, left - 1, entry)
      }
      if index == components.count - 1 { return (current, found) }
      guard found.kind == .directory else { throw refuse("leads through \(current), which is no directory") }
    }
    throw refuse("leads to \"/\", which is everything")
  }

  /// Where a link leads, without "." and "..".
  private static func target(of link: String, _ text: String) -> String {
    var parts = text.hasPrefix("/") ? [] : Array(link.split(separator: "/").dropLast())
    for part in text.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return parts.reduce(into: "") { text, part in text += "/" + part }
  }
}
