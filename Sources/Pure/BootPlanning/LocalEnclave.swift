/// What `tombolo run` tells its `tombolo-init` beyond the configuration: where the local enclave's parts are.
public struct LocalEnclave: Equatable, Sendable {
  /// A directory to run in; nil for a throw-away overlay of the machine's own file system.
  public var rootfs: String?
  /// An empty directory for this enclave's mounts.
  public var stage: String
  /// The directory of Unix sockets that stands for vsock.
  public var transport: String
  /// What the root is made of, parents first: always without `rootfs`; with it where it cannot be written, and has not all
  /// that things are mounted on.
  public var pieces: [RootPiece]
  /// Paths that are covered: directories are empty, files too.
  public var hidden: [String] = []
  /// In a user namespace overlayfs keeps its marks in user.* attributes.
  public var hasUserNamespace: Bool
  /// Users and groups from 0 to below this exist; nil: all that there are.
  public var userCount: UInt32?
  /// For the enclave's resolv.conf.
  public var nameServer: String
  /// What the machine's own resolv.conf says besides.
  public var search: [String]
  public var resolverOptions: [String]

  public init(
    rootfs: String?, stage: String, transport: String, pieces: [RootPiece], hasUserNamespace: Bool,
    nameServer: String, search: [String] = [], resolverOptions: [String] = []
  ) {
    self.search = search
    self.resolverOptions = resolverOptions
    self.rootfs = rootfs
    self.stage = stage
    self.transport = transport
    self.pieces = pieces
    self.hasUserNamespace = hasUserNamespace
    self.nameServer = nameServer
  }
}

/// A part of the throw-away root: something of the machine's own file system, at the same path.
public enum RootPiece: Equatable, Sendable {
  /// A larger file is not copied, in bytes: the copy is in memory.
  public static let copyLimit = 1 << 20

  /// A directory whose files can be read and, in memory, written.
  case overlay(String)
  /// An empty directory that other pieces come into, with the mode of the machine's.
  case directory(String, mode: UInt32)
  case link(String, to: String)
  /// A single file, which no overlay can be made of: its copy, or where that would be large the file itself, read-only.
  case file(String, copied: Bool)
  /// Of a `--rootfs` that cannot be written: a directory of it with all that is mounted below, as it is.
  case tree(String)
  /// Anything else of it.
  case leaf(String)
  /// An empty file that it lacks.
  case empty(String)

  /// `kind path` with, for links, a NUL and the target, for directories a NUL and the mode: for `LocalDocument`.
  var encoded: String {
    switch self {
    case .overlay(let path): "o" + path
    case .directory(let path, let mode): "d" + path + "\u{0}" + "\(mode)"
    case .link(let path, let target): "l" + path + "\u{0}" + target
    case .file(let path, let copied): (copied ? "c" : "f") + path
    case .tree(let path): "t" + path
    case .leaf(let path): "b" + path
    case .empty(let path): "e" + path
    }
  }

  init?(encoded text: String) {
    let path = String(text.dropFirst())
    switch text.first {
    case "o": self = .overlay(path)
    case "c": self = .file(path, copied: true)
    case "f": self = .file(path, copied: false)
    case "t": self = .tree(path)
    case "b": self = .leaf(path)
    case "e": self = .empty(path)
    case "d", "l":
      let parts = path.split(separator: "\u{0}", maxSplits: 1).map(String.init)
      guard parts.count == 2 else { return nil }
      if text.first == "l" {
        self = .link(parts[0], to: parts[1])
      } else {
        guard let mode = Int(parts[1]).flatMap({ UInt32(exactly: $0) }), mode <= 0o7777 else { return nil }
        self = .directory(parts[0], mode: mode)
      }
    default: return nil
    }
  }
}
