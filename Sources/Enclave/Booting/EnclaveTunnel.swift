import BootPlanning
import CLinux
import Inet
import LinuxSystem
import Netlink

/// The enclave's TUN device. It outlives this descriptor, so that the queues can be opened one by one afterwards.
enum EnclaveTunnel {
  static func create(_ plan: TunnelPlan) throws {
    guard let address = plan.address, plan.address6 != nil || !plan.hasIPv6 else {
      throw MissingFeature(sentence: "the host has not been asked for the addresses of \(TunnelPlan.link)")
    }
    let name = TunnelPlan.link
    if plan.sharedPorts != nil { try probeCapture() }
    let queue: TunQueue
    do throws(SystemError) {
      try provideTunDevice()
      queue = try TunQueue(name)
      try queue.setPersistent(true)
    } catch {
      throw MissingFeature(
        sentence: "[network] mode = \"raw\" needs a TUN device (CONFIG_TUN, /dev/net/tun, CAP_NET_ADMIN): \(error)")
    }
    // No link-local address: the host would drop what is sent from it, router solicitations and group reports.
    // IN6_ADDR_GEN_MODE_NONE of linux/if_link.h. Where it cannot be set, they are dropped.
    try? writeFile("/proc/sys/net/ipv6/conf/\(name)/addr_gen_mode", "1")
    var socket = try RouteSocket()
    try socket.setLink(named: name, up: true, mtu: plan.mtu)
    let link = try socket.linkIndex(named: name)
    try socket.addAddress(plan.sharedPorts == nil ? address : single(address), link: link)
    try sharePorts(plan, &socket)
    try socket.addRoute(Route(.ip, link: link, preferredSource: address.address), replace: true)
    guard let address6 = plan.address6, plan.hasIPv6, IPv6Support.probe() == .available else { return }
    try socket.addAddress(plan.sharedPorts == nil ? address6 : single(address6), link: link)
    try socket.addRoute(Route(.ip6, link: link, preferredSource: address6.address), replace: true)
  }

  /// The interface of TCP mode, with the default routes.
  /// - Returns: its one queue, without which it is gone; nil where this kernel has no TUN device for us, which the log says.
  static func createLink(_ plan: PacketLinkPlan, _ log: (String) -> Void) throws -> FileReference? {
    let name = PacketLinkPlan.link
    let queue: TunQueue
    do throws(SystemError) {
      try provideTunDevice()
      queue = try TunQueue(name)
    } catch {
      log("there is no TUN device for us: \(error)")
      return nil
    }
    // As above: nothing is sent of the kernel's own accord.
    try? writeFile("/proc/sys/net/ipv6/conf/\(name)/addr_gen_mode", "1")
    var socket = try RouteSocket()
    try socket.setLink(named: name, up: true, mtu: PacketLinkPlan.mtu)
    let link = try socket.linkIndex(named: name)
    try socket.addAddress(plan.address, link: link)
    try socket.addRoute(Route(.ip, link: link, preferredSource: plan.address.address), replace: true)
    guard IPv6Support.probe() == .available else { return queue.file }
    try socket.addAddress(plan.address6, link: link)
    // It would stand beside the new one.
    try? socket.removeRoute(EnclaveRoutes.route6(loopback: EnclaveRoutes.loopback))
    try socket.addRoute(Route(.ip6, link: link, preferredSource: plan.address6.address), replace: true)
    return queue.file
  }

  /// An address without a network: its neighbours are the host's, and everything goes through the link.
  private static func single(_ prefix: IPPrefix) -> IPPrefix {
    IPPrefix(prefix.address, UInt8(prefix.address.bytes.count * 8)) ?? prefix
  }

  /// Binds a queue and lets go of it, so that what is missing is said in one sentence and not by a rule's error.
  private static func probeCapture() throws {
    do throws(NetlinkError) {
      _ = try CaptureSocket.open([.init(TunnelPlan.firstQueue, takesSuperPackets: true)])
    } catch {
      let what = CaptureSocket.missing(error) ?? "packet queues cannot be had"
      throw MissingFeature(sentence: "[network] capture = \"nfqueue\": \(what) (\(error))")
    }
  }

  /// The program's connections come from ports that the host leaves to us; the name server is ourselves.
  private static func sharePorts(_ plan: TunnelPlan, _ socket: inout RouteSocket) throws {
    guard let range = plan.sharedPorts?.widest else { return }
    try writeFile("/proc/sys/net/ipv4/ip_local_port_range", "\(range.lowerBound) \(range.upperBound)")
    let server = IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32)
    try socket.addAddress(server, link: try socket.linkIndex(named: "lo"))
  }
}
