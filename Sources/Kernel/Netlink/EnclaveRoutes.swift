import CLinux
import Inet
import LinuxSystem
import Netfilter

/// The addresses and routes of an enclave in TCP mode, whose only link is `lo`.
///
/// A packet must have a route before the rules of OUTPUT can turn it to the proxy, so everything goes to `lo`:
/// - IPv4: `default dev lo src 127.0.0.1`. Without the source the handshake completes and no data flows.
/// - IPv6: `local default dev lo src ::1`. A unicast route through `lo` will not do: many kernels make it an unreachable
///   one (fib6_is_reject in net/ipv6/route.c). A local one says that every address is the machine's own; connections
///   are turned to the proxy all the same, because OUTPUT comes first. It stands in the table `main`, where other routes
///   can be more specific, and must be added only where the rules are: without them a connection to any address would
///   reach whatever listens inside.
public enum EnclaveRoutes {
  public static let addresses4: [IPPrefix] = [IPPrefix(.v4(.loopback), 8)].compactMap { $0 }
  public static let addresses6: [IPPrefix] = [.loopback6]
  /// Only with the routes: getaddrinfo(3) with AI_ADDRCONFIG asks for the addresses of a family only where the machine
  /// has one other than 127.0.0.1 and ::1.
  public static let routed4: [IPPrefix] = [IPPrefix(.v4(IPv4Address(127, 0, 1, 1)), 8)].compactMap { $0 }
  public static let routed6: [IPPrefix] = [IPPrefix(.v6(AgreedAddresses.loopback6), clamping: 128)]

  /// LOOPBACK_IFINDEX of include/net/flow.h: `lo` is the first link of every network namespace (loopback_net_init of
  /// drivers/net/loopback.c insists). Asking the kernel for it costs an emulated machine 5 ms.
  public static let loopback: UInt32 = 1

  public static func route4(loopback link: UInt32) -> Route {
    Route(.ip, link: link, preferredSource: .v4(.loopback))
  }

  public static func route6(loopback link: UInt32) -> Route {
    Route(.ip6, kind: .local, link: link, preferredSource: .v6(.loopback))
  }

  /// Brings `lo` up with its addresses and, when asked, the routes. Doing it twice is no error.
  public static func setUp(routes: Bool = true, ipv6: Bool) throws(NetlinkError) {
    var socket = try RouteSocket()
    let loopback = Self.loopback
    try socket.setLink(loopback, named: "lo", up: true)
    let routed = routes ? routed4 + (ipv6 ? routed6 : []) : []
    for address in addresses4 + (ipv6 ? addresses6 : []) + routed { try socket.addAddress(address, link: loopback) }
    guard routes else { return }
    try socket.addRoute(route4(loopback: loopback), replace: true)
    if ipv6 { try socket.addRoute(route6(loopback: loopback), replace: true) }
  }
}

/// What the running kernel can do of IPv6.
public enum IPv6Support: Equatable, Sendable {
  case available
  /// Compiled in or loaded, but switched off for `lo` (sysctl net.ipv6.conf.lo.disable_ipv6): addresses are refused.
  case disabled
  /// Not in the kernel, or `ipv6.disable=1` on its command line.
  case absent

  public static func probe() -> IPv6Support {
    let fd = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fd >= 0 else { return .absent }
    close(fd)
    // No /proc, no answer: then adding ::1 will tell.
    let switched = try? readText("/proc/sys/net/ipv6/conf/lo/disable_ipv6", limit: 16)
    return switched?.first == "1" ? .disabled : .available
  }
}
