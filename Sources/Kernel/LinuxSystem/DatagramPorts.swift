import CLinux
import Glibc
import Inet

/// A bound socket of datagrams for many clients. It can refuse them all, and keep its port.
///
/// No unprivileged process can send ICMP's "port unreachable". The kernel does so where it finds no socket for a datagram, and
/// one that is bound to an interface is found only for what comes from there (compute_score in net/ipv4/udp.c). So a port that
/// refuses is bound to an interface that there is not, for which the kernel asks no right since 5.7; and nobody else can bind
/// the port, since it is taken (udp_lib_lport_inuse). Only CAP_NET_RAW may undo that with the same option, but disconnecting
/// does as well (__udp_disconnect), also what was never connected. A kernel before 5.7 lets an IPv4 port refuse that is
/// connected to itself; of IPv6 disconnecting would leave the peer.
public struct DatagramPort: Sendable {
  public let file: FileReference
  private let listen: IPEndpoint
  private let is6: Bool

  /// Refuses until it is told otherwise. Errors of the network are the socket's own (IP_RECVERR of ip(7)).
  /// - Throws: EADDRINUSE where another socket has the port.
  public init(_ listen: IPEndpoint) throws(SystemError) {
    let address = SocketAddress.ip(listen)
    let made = FileReference(try makeSocket(address.family, .datagram))
    let raw = made.rawValue
    let is6 = address.family == AF_INET6
    if is6 { try check("setsockopt", "IPV6_V6ONLY", clinux_set_option(raw, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1)) }
    try check("bind", address.description, try address.withStorage { clinux_bind(raw, $0, $1) })
    try self.init(bound: made, at: listen)
  }

  /// The same of a socket that is bound already.
  /// - Parameter isShared: it was served before, and clients' datagrams wait in it.
  public init(bound file: FileReference, at listen: IPEndpoint, isShared: Bool = false) throws(SystemError) {
    self.file = file
    self.listen = listen
    if case .v6 = listen.address { is6 = true } else { is6 = false }
    let raw = file.rawValue
    try check("setsockopt", "IP_PKTINFO", clinux_receive_local_addresses(raw, is6))
    let level = Int32(is6 ? IPPROTO_IPV6 : IPPROTO_IP)
    try check("setsockopt", "IP_RECVERR", clinux_set_option(raw, level, is6 ? IPV6_RECVERR : IP_RECVERR, 1))
    if !isShared { try setAccepting(false) }
  }

  /// - Parameter on: false: clients get "port unreachable".
  public func setAccepting(_ on: Bool) throws(SystemError) {
    let raw = file.rawValue
    guard !on else {
      try check("connect", "AF_UNSPEC", clinux_disconnect(raw))
      return
    }
    guard clinux_set_option(raw, SOL_SOCKET, Int32(CLINUX_SO_BINDTOIFINDEX), .max) < 0, !is6 else { return }
    let isAny = listen.address == .v4(.any)
    let own = SocketAddress.ip(IPEndpoint(isAny ? .v4(.loopback) : listen.address, listen.port))
    try check("connect", own.description, try own.withStorage { clinux_connect(raw, $0, $1) })
  }

  /// Whether what is longer than the path takes may be sent in pieces, or is an error (IP_MTU_DISCOVER of ip(7)).
  public func setFragments(_ on: Bool) {
    // IP_PMTUDISC_WANT, IP_PMTUDISC_DO.
    _ = clinux_set_option(
      file.rawValue, Int32(is6 ? IPPROTO_IPV6 : IPPROTO_IP), is6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, on ? 1 : 2)
  }

  /// The next error of the network, or nil: for whom the datagram was, and the path's MTU where it was too long for it.
  /// The C function is `recvmsg(MSG_ERRQUEUE)`.
  public func nextError() -> (errno: Int32, mtu: UInt32, peer: DatagramPeer)? {
    var mtu: UInt32 = 0
    var peer = clinux_peer()
    let code = clinux_receive_error(file.rawValue, &mtu, &peer)
    return code >= 0 ? (code, mtu, DatagramPeer(value: peer)) : nil
  }
}
