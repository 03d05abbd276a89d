/// What `tombolo run` tells its `tombolo-init` beyond the configuration: where the local enclave's parts are.
public struct LocalEnclave: Equatable, Sendable {
  /// A directory to run in; nil for a throw-away overlay of the machine's own file system.
  public var rootfs: String?
  /// An empty directory for this enclave's mounts.
  public var stage: String
  /// The directory of Unix sockets that stands for vsock.
  public var transport: String
  /// What the throw-away root is made of, parents first.
  public var pieces: [RootPiece]
  /// In a user namespace overlayfs keeps its marks in user.* attributes.
  public var hasUserNamespace: Bool
  /// For the enclave's resolv.conf.
  public var nameServer: String

  public init(
    rootfs: String?, stage: String, transport: String, pieces: [RootPiece], hasUserNamespace: Bool,
    nameServer: String
  ) {
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
  /// A directory whose files can be read and, in memory, written.
  case overlay(String)
  /// An empty directory that other pieces come into.
  case directory(String)
  case link(String, to: String)
  /// A single file, as it is.
  case file(String)

  /// `kind path` with, for links, a NUL and the target: for `LocalDocument`.
  var encoded: String {
    switch self {
    case .overlay(let path): "o" + path
    case .directory(let path): "d" + path
    case .link(let path, let target): "l" + path + "\u{0}" + target
    case .file(let path): "f" + path
    }
  }

  init?(encoded text: String) {
    let path = String(text.dropFirst())
    switch text.first {
    case "o": self = .overlay(path)
    case "d": self = .directory(path)
    case "f": self = .file(path)
    case "l":
      let parts = path.split(separator: "\u{0}", maxSplits: 1)
      guard parts.count == 2 else { return nil }
      self = .link(String(parts[0]), to: String(parts[1]))
    default: return nil
    }
  }
}
