import CLinux
import Glibc
import Inet

/// An address that a stream socket can be bound or connected to.
public enum SocketAddress: Hashable, Sendable, CustomStringConvertible {
  case ip(IPEndpoint)
  case unix(String)
  case vsock(cid: UInt32, port: UInt32)

  public var description: String {
    switch self {
    case .ip(let endpoint): endpoint.description
    case .unix(let path): path
    case .vsock(let cid, let port): "vsock \(cid):\(port)"
    }
  }

  public var family: Int32 {
    switch self {
    case .ip(let endpoint):
      switch endpoint.address {
      case .v4: AF_INET
      case .v6: AF_INET6
      }
    case .unix: AF_UNIX
    case .vsock: Int32(CLINUX_AF_VSOCK)
    }
  }

  func withStorage<R>(
    _ body: (UnsafePointer<sockaddr_storage>, socklen_t) -> R
  ) throws(SystemError) -> R {
    var storage = sockaddr_storage()
    let length: socklen_t
    switch self {
    case .ip(let endpoint):
      let bytes = endpoint.address.bytes
      length = clinux_inet_address(&storage, bytes, Int32(bytes.count), endpoint.port)
    case .unix(let path): length = path.withSystemCString { clinux_unix_address(&storage, $0) }
    case .vsock(let cid, let port): length = clinux_vsock_address(&storage, cid, port)
    }
    guard length > 0 else { throw SystemError("sockaddr", description, errno: ENAMETOOLONG) }
    return body(&storage, length)
  }
}

extension IPEndpoint {
  /// nil for another family than IPv4 and IPv6.
  init?(_ storage: inout sockaddr_storage) {
    var bytes = [UInt8](repeating: 0, count: 16)
    var port: UInt16 = 0
    let count = clinux_inet_address_parts(&storage, &bytes, &port)
    guard let address = IPAddress(bytes: bytes.prefix(Int(count))) else { return nil }
    self.init(address, port)
  }
}

public enum SocketKind: Sendable { case stream, datagram }

/// A non-blocking, close-on-exec socket. The C function is `socket`.
public func makeSocket(_ family: Int32, _ kind: SocketKind) throws(SystemError) -> OwnedFileDescriptor {
  let type = kind == .stream ? Int32(CLINUX_SOCK_STREAM) : Int32(CLINUX_SOCK_DGRAM)
  return OwnedFileDescriptor(
    try checkErrno("socket") { socket(family, type | Int32(CLINUX_SOCK_CLOEXEC | CLINUX_SOCK_NONBLOCK), 0) })
}

/// The longest backlog; the kernel clamps it to net.core.somaxconn.
let listenBacklog: Int32 = 4096

/// A listening socket. IP sockets reuse addresses in TIME_WAIT; IPv6 sockets take IPv6 alone.
public func listenStream(_ address: SocketAddress) throws(SystemError) -> OwnedFileDescriptor {
  let listener = try makeSocket(address.family, .stream)
  let raw = listener.rawValue
  if case .ip(let endpoint) = address {
    try check("setsockopt", "SO_REUSEADDR", clinux_set_option(raw, SOL_SOCKET, SO_REUSEADDR, 1))
    if case .v6 = endpoint.address { _ = clinux_set_option(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
  }
  try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
  try checkErrno("listen", address.description) { listen(raw, listenBacklog) }
  return listener
}

/// A bound datagram socket.
public func bindDatagram(_ endpoint: IPEndpoint) throws(SystemError) -> OwnedFileDescriptor {
  let address = SocketAddress.ip(endpoint)
  let made = try makeSocket(address.family, .datagram)
  let raw = made.rawValue
  try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
  return made
}

public enum ConnectProgress: Equatable, Sendable { case connected, inProgress }

/// As `listenStream`; a Unix socket that a dead process left behind is taken over, one that somebody listens on is not.
/// - Throws: EADDRINUSE for the latter.
public func takeOverStream(_ address: SocketAddress) throws(SystemError) -> OwnedFileDescriptor {
  guard case .unix(let path) = address, fileKind(path) == .socket else { return try listenStream(address) }
  let probe = try makeSocket(AF_UNIX, .stream)
  let result = try address.withStorage { clinux_connect(probe.rawValue, $0, $1) }
  guard result == -ECONNREFUSED else { throw SystemError("bind", path, errno: EADDRINUSE) }
  removeFile(path)
  return try listenStream(address)
}

/// Starts to connect a non-blocking socket. The C function is `connect`.
/// - Throws: among others EAGAIN where a Unix listener's backlog is full: try again a little later.
public func connectStream(_ fd: Int32, _ address: SocketAddress) throws(SystemError) -> ConnectProgress {
  let result = try address.withStorage { clinux_connect(fd, $0, $1) }
  if result == -EINPROGRESS { return .inProgress }
  try check("connect", address.description, result)
  return .connected
}

/// The outcome of a connect that was in progress: 0 or an errno. The C function is `getsockopt(SO_ERROR)`.
public func socketError(_ fd: Int32) -> Int32 { clinux_socket_error(fd) }

/// An accepted connection, or nil where none waits.
/// - Throws: errors of the listener such as EMFILE; errors of the connection alone (ECONNABORTED) give nil.
public func acceptStream(
  _ listener: Int32
) throws(SystemError) -> (descriptor: FileReference, peer: IPEndpoint?)? {
  var storage = sockaddr_storage()
  let result = clinux_accept(listener, &storage)
  guard result >= 0 else {
    switch -result {
    case EAGAIN, ECONNABORTED, EPROTO, ENETDOWN, EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, ENOPROTOOPT, EOPNOTSUPP:
      return nil
    default: throw SystemError("accept4", errno: -result)
    }
  }
  return (FileReference(OwnedFileDescriptor(result)), IPEndpoint(&storage))
}

/// Where a redirected connection was going before the redirect (linux/netfilter_ipv4.h, SO_ORIGINAL_DST).
public func originalDestination(_ fd: Int32, v6: Bool) throws(SystemError) -> IPEndpoint {
  var storage = sockaddr_storage()
  try check("getsockopt", "SO_ORIGINAL_DST", clinux_original_destination(fd, v6, &storage))
  guard let endpoint = IPEndpoint(&storage) else {
    throw SystemError("getsockopt", "SO_ORIGINAL_DST", errno: EAFNOSUPPORT)
  }
  return endpoint
}

/// The address a socket is bound to. The C function is `getsockname`.
public func localEndpoint(_ fd: Int32) -> IPEndpoint? {
  var storage = sockaddr_storage()
  guard clinux_local_address(fd, &storage) == 0 else { return nil }
  return IPEndpoint(&storage)
}

/// Whether the socket's other end is on this machine for sure, and can be passed descriptors (unix(7)).
public func isUnixSocket(_ fd: Int32) -> Bool {
  var storage = sockaddr_storage()
  return clinux_local_address(fd, &storage) == 0 && Int32(storage.ss_family) == AF_UNIX
}

/// Whether closing the socket sends a reset and throws unsent data away (linger of 0 s), or ends it in order.
public func setResetOnClose(_ fd: Int32, _ on: Bool) { _ = clinux_set_linger(fd, on, 0) }

/// What was written to a TCP socket and its peer has not acknowledged, in bytes, its FIN among them; a close with linger 0
/// throws that away. 0 for every other socket, whose data is with its peer at once. The C function is `ioctl(SIOCOUTQ)`.
public func unacknowledgedBytes(_ fd: Int32) -> Int { max(0, Int(clinux_unacknowledged(fd))) }

/// Whether this TCP socket sent data less than `milliseconds` ago, up to a tick of the kernel's clock (tcp(7), TCP_INFO:
/// tcpi_last_data_sent). False for every other socket.
public func sentData(within milliseconds: Int32, _ fd: Int32) -> Bool {
  (0..<milliseconds).contains(clinux_since_last_sent(fd))
}

/// The urgent byte of a TCP socket, where the next read would begin at it; nil otherwise. A read leaves it out. The C functions
/// are `ioctl(SIOCATMARK)` and `recv(MSG_OOB)`.
public func receiveUrgent(_ fd: Int32) -> UInt8? { UInt8(exactly: clinux_receive_urgent(fd)) }

/// Sends an urgent byte. The C function is `send(MSG_OOB)`.
public func sendUrgent(_ fd: Int32, _ byte: UInt8) -> IOResult { IOResult(clinux_send_urgent(fd, byte)) }

/// No waiting for more data before a small segment is sent (tcp(7) TCP_NODELAY).
public func setNoDelay(_ fd: Int32) { _ = clinux_set_option(fd, Int32(IPPROTO_TCP), TCP_NODELAY, 1) }

/// Asks a peer that says nothing for a minute whether it is still there, and after six questions without an answer, in two
/// minutes, takes the connection for lost (tcp(7): SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
public func setKeepAlive(_ fd: Int32) {
  _ = clinux_set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1)
  _ = clinux_set_option(fd, Int32(IPPROTO_TCP), TCP_KEEPIDLE, 60)
  _ = clinux_set_option(fd, Int32(IPPROTO_TCP), TCP_KEEPINTVL, 10)
  _ = clinux_set_option(fd, Int32(IPPROTO_TCP), TCP_KEEPCNT, 6)
}

/// The C function is `shutdown(SHUT_WR)`.
public func shutdownSending(_ fd: Int32) { _ = shutdown(fd, Int32(CLINUX_SHUT_WR)) }

/// A datagram and its sender.
public func receiveDatagram(
  _ fd: Int32, _ buffer: UnsafeMutableRawBufferPointer
) -> (result: IOResult, from: IPEndpoint?) {
  var storage = sockaddr_storage()
  let result = IOResult(clinux_recvfrom(fd, buffer.baseAddress, buffer.count, &storage))
  return (result, IPEndpoint(&storage))
}

/// Whether a Unix or vsock stream's other end has closed the direction to it: sending nothing is an error then, and changes
/// nothing otherwise. The C function is `send`.
public func takesNothing(_ fd: Int32) -> Bool {
  if case .failed = sendBytes(fd, UnsafeRawBufferPointer(start: nil, count: 0)) { true } else { false }
}

/// What can be read of a socket without taking it out. The corresponding C function is `recv` with MSG_PEEK.
public func peekBytes(_ fd: Int32, _ buffer: UnsafeMutableRawBufferPointer) -> IOResult {
  IOResult(clinux_peek(fd, buffer.baseAddress, buffer.count))
}

/// Sends one datagram, to `to` or to the connected peer; what the kernel cannot take now is lost, as UDP is.
@discardableResult
public func sendDatagram(_ fd: Int32, _ bytes: [UInt8], to: IPEndpoint?) -> IOResult {
  guard let to else {
    return bytes.withUnsafeBytes { IOResult(clinux_sendto(fd, $0.baseAddress, $0.count, nil, 0)) }
  }
  let result = try? SocketAddress.ip(to).withStorage { storage, length in
    bytes.withUnsafeBytes { IOResult(clinux_sendto(fd, $0.baseAddress, $0.count, storage, length)) }
  }
  return result ?? .failed(EINVAL)
}

/// Two connected stream sockets. The C function is `socketpair(AF_UNIX)`.
public func makeSocketPair() throws(SystemError) -> (FileReference, FileReference) {
  var pair: [Int32] = [-1, -1]
  try checkErrno("socketpair") { socketpair(AF_UNIX, Int32(CLINUX_SOCK_STREAM | CLINUX_SOCK_CLOEXEC), 0, &pair) }
  return (FileReference(OwnedFileDescriptor(pair[0])), FileReference(OwnedFileDescriptor(pair[1])))
}

/// Two connected sockets that keep the bounds of messages; one of 64 KiB fits (unix(7), net.core.wmem_default). Non-blocking,
/// wherever they are handed. The C function is `socketpair(AF_UNIX, SOCK_SEQPACKET)`.
public func makeMessagePair() throws(SystemError) -> (FileReference, FileReference) {
  var pair: [Int32] = [-1, -1]
  let kind = Int32(CLINUX_SOCK_SEQPACKET | CLINUX_SOCK_CLOEXEC | CLINUX_SOCK_NONBLOCK)
  try checkErrno("socketpair") { socketpair(AF_UNIX, kind, 0, &pair) }
  return (FileReference(OwnedFileDescriptor(pair[0])), FileReference(OwnedFileDescriptor(pair[1])))
}

/// A message with a descriptor, or without. The C function is `sendmsg` with SCM_RIGHTS.
public func sendMessage(_ fd: Int32, _ bytes: [UInt8], passing file: FileReference? = nil) -> IOResult {
  var passed = file?.rawValue ?? -1
  let result = bytes.withUnsafeBytes {
    clinux_send_with_descriptors(fd, $0.baseAddress, $0.count, &passed, file == nil ? 0 : 1)
  }
  return IOResult(result)
}

/// A message, and the descriptor that came with it; one with several is an error. The C function is `recvmsg`.
public func receiveMessage(_ fd: Int32, limit: Int) -> (result: IOResult, bytes: [UInt8], file: FileReference?) {
  withUnsafeTemporaryAllocation(byteCount: limit, alignment: 1) { buffer in
    var passed: Int32 = -1
    var count: Int32 = 0
    let result = IOResult(clinux_receive_with_descriptors(fd, buffer.baseAddress, buffer.count, &passed, 1, &count))
    let file = count == 1 ? FileReference(OwnedFileDescriptor(passed)) : nil
    guard case .bytes(let length) = result else { return (result, [], nil) }
    return (result, Array(buffer[..<length]), file)
  }
}

/// The C function is `pipe2(O_CLOEXEC)`.
public func makePipe() throws(SystemError) -> (reading: FileReference, writing: FileReference) {
  var pair: [Int32] = [-1, -1]
  try check("pipe2", "", clinux_pipe(&pair))
  return (FileReference(OwnedFileDescriptor(pair[0])), FileReference(OwnedFileDescriptor(pair[1])))
}

/// Whether something can be read, or has ended, within that time. The C function is `poll`.
public func waitReadable(_ fd: Int32, milliseconds: Int32) -> Bool { clinux_poll(fd, false, milliseconds) > 0 }

/// The same for writing; a connect that was in progress is over then.
public func waitWritable(_ fd: Int32, milliseconds: Int32) -> Bool { clinux_poll(fd, true, milliseconds) > 0 }

/// Ends both directions at once, also where others still hold the descriptor. The C function is `shutdown(SHUT_RDWR)`.
public func shutdownBoth(_ fd: Int32) { _ = shutdown(fd, Int32(CLINUX_SHUT_WR) + 1) }

/// A connected datagram socket: only its peer's datagrams are received, and its port is random.
public func connectDatagram(_ endpoint: IPEndpoint) throws(SystemError) -> OwnedFileDescriptor {
  let address = SocketAddress.ip(endpoint)
  let made = try makeSocket(address.family, .datagram)
  let raw = made.rawValue
  try check("connect", address.description, try address.withStorage { clinux_connect(raw, $0, $1) })
  return made
}

/// Which machine is at the other end of a vsock connection; nil for every other socket. The C function is `getpeername`.
public func peerCID(_ fd: Int32) -> UInt32? {
  let cid = clinux_peer_cid(fd)
  return cid == 0 ? nil : cid
}

/// The user at the other end of a Unix connection, as it was at connect(2). The C function is `getsockopt(SO_PEERCRED)`.
public func peerUserID(_ fd: Int32) -> UInt32? { UInt32(exactly: clinux_peer_user(fd)) }
