import BootPlanning
import CLinux
import Inet
import LinuxSystem
import Netlink

/// The enclave's TUN device. It outlives this descriptor, so that the queues can be opened one by one afterwards.
enum EnclaveTunnel {
  static func create(_ plan: TunnelPlan) throws {
    guard let address = plan.address, let address6 = plan.address6 else {
      throw MissingFeature(sentence: "the host has not been asked for the addresses of \(TunnelPlan.link)")
    }
    let name = TunnelPlan.link
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
    try socket.addAddress(address, link: link)
    try socket.addRoute(Route(.ip, link: link, preferredSource: address.address), replace: true)
    guard IPv6Support.probe() == .available else { return }
    try socket.addAddress(address6, link: link)
    try socket.addRoute(Route(.ip6, link: link, preferredSource: address6.address), replace: true)
  }
}
