import CLinux
import Glibc
import Inet

/// A bound socket that this process was started with.
public struct InheritedSocket: Sendable {
  public let file: FileReference
  /// Where it is bound.
  public let address: SocketAddress
  public let kind: SocketKind
  /// It is for IPv4 as well.
  public let isDual: Bool

  /// Takes a descriptor; programs that this one executes do not get it.
  /// - Throws: ENOTSOCK, or EAFNOSUPPORT for what is neither a stream nor datagrams of IP, Unix or vsock.
  public init(taking fd: Int32) throws(SystemError) {
    let made = FileReference(OwnedFileDescriptor(try check("fcntl", "descriptor \(fd)", clinux_dup_cloexec(fd))))
    close(fd)
    try made.descriptor.setNonblocking()
    let raw = made.rawValue
    switch try check("getsockopt", "SO_TYPE", clinux_int_option(raw, SOL_SOCKET, SO_TYPE)) {
    case Int32(CLINUX_SOCK_STREAM): kind = .stream
    case Int32(CLINUX_SOCK_DGRAM): kind = .datagram
    default: throw SystemError("socket", "descriptor \(fd)", errno: EAFNOSUPPORT)
    }
    guard let address = Self.address(raw) else { throw SystemError("socket", "descriptor \(fd)", errno: EAFNOSUPPORT) }
    self.address = address
    file = made
    isDual = address.family == AF_INET6 && clinux_int_option(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY) == 0
  }

  /// The C function is `getsockname`.
  private static func address(_ fd: Int32) -> SocketAddress? {
    var storage = sockaddr_storage()
    guard clinux_local_address(fd, &storage) == 0 else { return nil }
    if let endpoint = IPEndpoint(&storage) { return .ip(endpoint) }
    return withUnsafeBytes(of: storage) { bytes in
      switch Int32(storage.ss_family) {
      case AF_UNIX:
        let path = bytes.dropFirst(2).prefix { $0 != 0 }
        return path.isEmpty ? nil : .unix(String(decoding: path, as: UTF8.self))
      case Int32(CLINUX_AF_VSOCK):
        // struct sockaddr_vm of linux/vm_sockets.h.
        return .vsock(
          cid: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self),
          port: bytes.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
      default: return nil
      }
    }
  }
}

/// Whether clients find somebody at this socket. The C function is `getsockopt(SO_ACCEPTCONN)`.
public func isListening(_ fd: Int32) -> Bool { clinux_int_option(fd, SOL_SOCKET, SO_ACCEPTCONN) == 1 }
