import CLinux
import Glibc
import Inet

/// A connected socket of one flow of datagrams, or of one ping.
public struct FlowSocket: Sendable {
  public let file: FileReference
  public let isEcho: Bool
  public let is6: Bool

  /// What a datagram is that the path does not take: EMSGSIZE.
  public static let tooLong = EMSGSIZE

  /// UDP. Errors of the network are its own (IP_RECVERR of ip(7)). The C functions are `socket` and `connect`.
  public static func datagrams(_ endpoint: IPEndpoint) throws(SystemError) -> FlowSocket {
    try FlowSocket(try makeSocket(SocketAddress.ip(endpoint).family, .datagram), endpoint, isEcho: false)
  }

  /// A ping socket (icmp(7)): it sends and receives one message of ICMP a datagram, with an identifier of its own.
  /// - Throws: EACCES, EPERM where net.ipv4.ping_group_range has none of our groups.
  public static func echo(_ address: IPAddress) throws(SystemError) -> FlowSocket {
    let endpoint = IPEndpoint(address, 0)
    let family = SocketAddress.ip(endpoint).family
    let type = Int32(CLINUX_SOCK_DGRAM) | Int32(CLINUX_SOCK_CLOEXEC | CLINUX_SOCK_NONBLOCK)
    let icmp = Int32(family == AF_INET ? IPPROTO_ICMP : IPPROTO_ICMPV6)
    let made = OwnedFileDescriptor(try checkErrno("socket", "ICMP") { socket(family, type, icmp) })
    return try FlowSocket(made, endpoint, isEcho: true)
  }

  private init(_ made: consuming OwnedFileDescriptor, _ endpoint: IPEndpoint, isEcho: Bool) throws(SystemError) {
    file = FileReference(made)
    self.isEcho = isEcho
    if case .v6 = endpoint.address { is6 = true } else { is6 = false }
    let raw = file.rawValue
    let level = Int32(is6 ? IPPROTO_IPV6 : IPPROTO_IP)
    try check("setsockopt", "IP_RECVERR", clinux_set_option(raw, level, is6 ? IPV6_RECVERR : IP_RECVERR, 1))
    let address = SocketAddress.ip(endpoint)
    try check("connect", address.description, try address.withStorage { clinux_connect(raw, $0, $1) })
  }

  /// Whether what is longer than the path takes may be sent in pieces, or is an error (IP_MTU_DISCOVER of ip(7)).
  public func setFragments(_ on: Bool) {
    // IP_PMTUDISC_WANT, IP_PMTUDISC_DO.
    _ = clinux_set_option(
      file.rawValue, Int32(is6 ? IPPROTO_IPV6 : IPPROTO_IP), is6 ? IPV6_MTU_DISCOVER : IP_MTU_DISCOVER, on ? 1 : 2)
  }

  /// The next error of the network, or nil. The C function is `recvmsg(MSG_ERRQUEUE)`.
  public func nextError() -> (errno: Int32, mtu: UInt32)? {
    var mtu: UInt32 = 0
    let code = clinux_receive_error(file.rawValue, &mtu, nil)
    return code >= 0 ? (code, mtu) : nil
  }

  /// Of the path, in bytes; 0 where it is not known.
  public var pathMTU: UInt32 { UInt32(clamping: clinux_path_mtu(file.rawValue, is6)) }
}

/// Sends one datagram to the connected peer. The C function is `send`.
public func sendDatagram(_ fd: Int32, _ bytes: UnsafeRawBufferPointer) -> IOResult {
  IOResult(clinux_sendto(fd, bytes.baseAddress, bytes.count, nil, 0))
}
