import CLinux
import Glibc
import Inet

// Theory of operation.
//
// In raw mode the kernel translates what comes for a published port, and no socket of ours sees it. A socket holds the
// port all the same, so that no other program takes it, and so that a port that is taken is found before anything starts.
//
// SO_REUSEADDR lets a TCP socket be bound where others are in TIME_WAIT. But as long as every owner of a port has it and
// none listens, any other socket with it may be bound there too; and the kernel remembers that of the port (`fastreuse` of
// struct inet_bind_bucket), also when the socket's option is switched off later. Listening takes that memory away
// (inet_csk_listen_start calls get_port again, which sets it anew; net/ipv4/inet_connection_sock.c). So the socket listens
// for a moment, behind a filter that drops every SYN, loses the option meanwhile, and is bound but closed after that:
// shutdown(2) of a listening socket keeps a port that was asked for (tcp_disconnect, SOCK_BINDPORT_LOCK).

/// Holds a TCP port without listening: nobody else can bind it, and a connection to it is refused.
/// - Throws: EADDRINUSE where somebody has it; connections in TIME_WAIT do not count.
public func reserveStream(_ address: SocketAddress) throws(SystemError) -> OwnedFileDescriptor {
  let holder = try makeHolder(address, .stream)
  let raw = holder.rawValue
  try check("setsockopt", "SO_REUSEADDR", clinux_set_option(raw, SOL_SOCKET, SO_REUSEADDR, 1))
  try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
  try checkErrno("listen", address.description) { listen(raw, 0) }
  try check("setsockopt", "SO_REUSEADDR", clinux_set_option(raw, SOL_SOCKET, SO_REUSEADDR, 0))
  try checkErrno("shutdown", address.description) { shutdown(raw, Int32(CLINUX_SHUT_WR) + 1) }
  return holder
}

/// Holds a UDP port: nobody else can bind it, and datagrams to the socket itself are dropped.
public func reserveDatagram(_ address: SocketAddress) throws(SystemError) -> OwnedFileDescriptor {
  let holder = try makeHolder(address, .datagram)
  let raw = holder.rawValue
  try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
  return holder
}

private func makeHolder(_ address: SocketAddress, _ kind: SocketKind) throws(SystemError) -> OwnedFileDescriptor {
  let holder = try makeSocket(address.family, kind)
  let raw = holder.rawValue
  if address.family == AF_INET6 { _ = clinux_set_option(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1) }
  try check("setsockopt SO_ATTACH_FILTER", address.description, clinux_receive_nothing(raw))
  return holder
}
