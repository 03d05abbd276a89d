import LinuxSystem

/// Why a device could not be made, or why it ended.
public enum VhostVsockError: Error, Equatable, CustomStringConvertible, Sendable {
  /// A setting that cannot work: a path too long or taken, a reserved CID.
  case configuration(String)
  /// The guest's driver broke the rules of virtio or vsock: a descriptor outside its memory, a chain without end.
  case guest(String)
  /// The virtual machine monitor broke the rules of vhost-user.
  case frontEnd(String)
  /// A call on this machine failed.
  case system(SystemError)

  public var description: String {
    switch self {
    case .configuration(let text): return text
    case .guest(let text): return "the guest's vsock driver: \(text)"
    case .frontEnd(let text): return "the vhost-user connection: \(text)"
    case .system(let error): return error.description
    }
  }
}
