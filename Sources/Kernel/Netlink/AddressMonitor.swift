import CLinux
import Inet
import LinuxSystem

/// Tells that the addresses of the network namespace in which it was opened have changed (rtnetlink(7)).
///
/// It does not look at what a message says: any of them, and the kernel's word that some were lost (ENOBUFS), means that the
/// addresses are to be listed again. So no order of messages, and no address that two links have, can lead to a wrong list.
public struct AddressMonitor: ~Copyable {
  private let file: FileReference
  private var socket: RouteSocket
  private var scratch = [UInt8](repeating: 0, count: 8192)

  /// From here on no change is missed.
  public init() throws(NetlinkError) {
    let file = try Self.listen(UInt32(RTMGRP_IPV4_IFADDR) | UInt32(RTMGRP_IPV6_IFADDR))
    self.init(file, try RouteSocket())
  }

  private init(_ file: FileReference, _ socket: consuming RouteSocket) {
    self.file = file
    self.socket = socket
  }

  private static func listen(_ groups: UInt32) throws(NetlinkError) -> FileReference {
    let socket = try NetlinkSocket(NETLINK_ROUTE, groups: groups)
    do throws(SystemError) {
      let file = try socket.duplicate()
      try file.descriptor.setNonblocking()
      return file
    } catch {
      throw NetlinkError("listen for addresses", error)
    }
  }

  /// What becomes readable when addresses change.
  public var descriptor: Int32 { file.rawValue }

  /// Whether addresses may have changed since the last call; one system call where they have not.
  public mutating func hasChanged() -> Bool {
    var changed = false
    while true {
      let result = scratch.withUnsafeMutableBytes { clinux_read(file.rawValue, $0.baseAddress, $0.count) }
      if result == -Int(EINTR) { continue }
      if result == -Int(EAGAIN) || result == -Int(EWOULDBLOCK) { return changed }
      changed = true
      // The end or an error that stays; ENOBUFS is told once.
      if result <= 0, result != -Int(ENOBUFS) { return changed }
    }
  }

  /// The machine's own addresses. With an IPv6 address that has a network behind it goes the anycast address of its
  /// routers, which a machine that forwards has too (RFC 4291 section 2.6.1, addrconf_join_anycast of net/ipv6/addrconf.c).
  public mutating func addresses() throws(NetlinkError) -> Set<IPAddress> {
    var all: Set<IPAddress> = []
    for found in try socket.addresses() {
      all.insert(found.prefix.address)
      if case .v6 = found.prefix.address, found.prefix.length < 127 { all.insert(found.prefix.network) }
    }
    return all
  }
}
