/// What `tombolo run` tells its `tombolo-init` beyond the configuration: where the local enclave's parts are.
public struct LocalEnclave: Equatable, Sendable {
  /// A directory to run in; nil for a throw-away overlay of the machine's own file system.
  public var rootfs: String?
  /// An empty directory for this enclave's mounts.
  public var stage: String
  /// The directory of Unix sockets that stands for vsock.
  public var transport: String
  /// Other file systems of the machine that belong into the overlay (their mount points), parents first.
  public var overlays: [String]
  /// In a user namespace overlayfs keeps its marks in user.* attributes.
  public var hasUserNamespace: Bool
  /// For the enclave's resolv.conf.
  public var nameServer: String

  public init(
    rootfs: String?, stage: String, transport: String, overlays: [String], hasUserNamespace: Bool,
    nameServer: String
  ) {
    self.rootfs = rootfs
    self.stage = stage
    self.transport = transport
    self.overlays = overlays
    self.hasUserNamespace = hasUserNamespace
    self.nameServer = nameServer
  }
}
