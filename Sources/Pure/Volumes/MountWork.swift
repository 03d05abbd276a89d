import EnclaveConfig
import Inet
import Roles

// What the process of one mount is handed by PID 1. It is the configuration's mount, in the words of mount(2), and where
// names are asked for.

/// A mount as its process carries it out.
public struct MountWork: Equatable, Sendable {
  /// As mount(2) gets them.
  public var type: String
  public var source: String
  public var target: String
  /// Of mount(2); see `MountOptions.Flag`.
  public var flags: UInt32
  public var data: [String]
  /// nil where nothing of it is on a network.
  public var server: Server?
  /// How long the end waits for what has not been written yet, in milliseconds.
  public var unmountMilliseconds: UInt32

  public struct Server: Equatable, Sendable {
    public var host: NFSSource.Server
    public var port: UInt16
    /// The newest first.
    public var versions: [String]
  }

  public init(_ mount: MountSettings) {
    switch mount.kind {
    case .nfs(let source):
      type = "nfs4"
      server = Server(host: source.server, port: mount.options.port, versions: mount.options.versions)
    case .tmpfs: type = "tmpfs"
    case .bind: type = "bind"
    case .overlay: type = "overlay"
    }
    source = mount.source
    target = mount.target
    flags = mount.options.flags
    data = mount.options.data
    let (seconds, rest) = mount.unmountTimeout.components
    let milliseconds = seconds * 1000 + rest / 1_000_000_000_000_000
    unmountMilliseconds = UInt32(clamping: milliseconds)
  }

  /// What the kernel's NFS client is told. It resolves no names, so the address is part of it (fs/nfs/fs_context.c).
  /// - Parameter version: one of the server's.
  public func data(for server: Server, at address: IPAddress, version: String) -> String {
    data.reduce(into: "vers=\(version),addr=\(address),port=\(server.port)") { $0 += "," + $1 }
  }

  /// The same for every other file system.
  public var plainData: String { data.reduce(into: "") { $0 += ($0.isEmpty ? "" : ",") + $1 } }

  // MARK: the document

  private static let role = "mount"
  /// All that there may be of options.
  private static let dataLimit = 1 << 18
  private static let types = ["nfs4", "tmpfs", "bind", "overlay"]

  public var document: [UInt8] {
    var writer = RoleWriter()
    writer.put("type", text: type)
    writer.put("source", text: source)
    writer.put("target", text: target)
    writer.put("flags", numbers: [flags])
    writer.put("data", text: plainData)
    writer.put("unmount", numbers: [unmountMilliseconds])
    if let server {
      switch server.host {
      case .name(let name): writer.put("name", text: name.description)
      case .address(let address): writer.put("address", text: address.description)
      }
      writer.put("port", numbers: [UInt32(server.port)])
      writer.put("versions", text: server.versions.reduce(into: "") { $0 += ($0.isEmpty ? "" : ",") + $1 })
    }
    return writer.bytes
  }

  /// - Throws: a sentence that names the field.
  public init(document: [UInt8]) throws(RoleError) {
    var reader = try RoleReader(document, role: Self.role)
    type = try reader.text("type")
    guard Self.types.contains(type) else { throw RoleError(Self.role, "\"type\" is \"\(type)\", which is none") }
    source = try reader.text("source")
    target = try reader.text("target")
    flags = try reader.number("flags", in: 0...UInt32.max)
    data = try reader.text("data", limit: Self.dataLimit).split(separator: ",").map(String.init)
    unmountMilliseconds = try reader.number("unmount", in: 0...UInt32.max)
    if type == "nfs4" {
      let host: NFSSource.Server
      if reader.has("name") {
        let text = try reader.text("name")
        guard let name = try? DomainName(text: text) else {
          throw RoleError(Self.role, "\"name\" is \"\(text)\", which is no name")
        }
        host = .name(name)
      } else {
        let text = try reader.text("address")
        guard let address = IPAddress(text) else {
          throw RoleError(Self.role, "\"address\" is \"\(text)\", which is none")
        }
        host = .address(address)
      }
      let port = try reader.number("port", in: 1...65535)
      let versions = try reader.text("versions").split(separator: ",").map(String.init)
      guard !versions.isEmpty, versions.allSatisfy({ MountOptions.nfsVersions.contains($0) }) else {
        throw RoleError(Self.role, "\"versions\" has something that is none")
      }
      server = Server(host: host, port: UInt16(port), versions: versions)
    }
    try reader.finish()
  }
}
