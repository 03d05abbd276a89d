import CLinux
import Inet
import LinuxSystem
import Netfilter
import Netlink
import PacketRelaying

// What of raw mode needs rights: the link, its addresses, forwarding, the rules, the queues' descriptors; and the undoing. It
// takes few words and gives descriptors, so that it can be in another process than packets are (`LinkAccess`). Each of
// the three things that change on the machine is written down before it is made (`HostState`) and gone at the end. The link
// is gone when nobody has its queues open any more.

/// The machine's side of one enclave's link.
final class HostLink {
  /// What packets go through, once it has been set up.
  struct Opened {
    var queues: [FileReference]
    /// Where the enclave's queries come.
    var names: (datagram: FileReference, stream: FileReference)
    var backend: PacketFilter
  }

  private let ranges: [IPPrefix]
  private let published: [Publication]
  private let firewall: PacketFilter?
  private let hostPorts: PortRanges
  private var state: HostState
  /// Until it is handed on.
  private var first: TunQueue?
  private var chosen: (v4: IPPrefix?, v6: IPPrefix?)?
  private var isConfigured = false
  private var isOver = false
  let name: String

  /// Makes the link, so that a missing right is found before anything is started, and takes over what a killed gateway left.
  /// - Parameters:
  ///   - ranges: an enclave with an address outside is refused.
  ///   - firewall: what the rules are made with; nil for the first that takes them.
  ///   - hostPorts: TCP and UDP ports of this machine that are open to the enclave.
  init(
    ranges: [IPPrefix], published: [Publication], firewall: PacketFilter?, hostPorts: PortRanges
  ) throws {
    self.ranges = ranges
    self.published = published
    self.firewall = firewall
    self.hostPorts = hostPorts
    do {
      state = try HostState()
      let queue = try state.enter { former in
        // Of the other kind, which has no link.
        if former == SharedRuleset.name { throw SystemError("open", SharedRuleset.name, errno: EEXIST) }
        let queue = try TunQueue(former ?? "tombolo%d")
        return (queue, name: queue.deviceName)
      }
      first = queue
      name = queue.deviceName
    } catch let error as SystemError where error.errno == EPERM || error.errno == EACCES {
      throw RawGatewayError(
        sentence:
          "raw mode joins the enclave to this machine's network, which needs root or CAP_NET_ADMIN here (\(error))")
    } catch let error as SystemError where error.call.contains("tun") && [ENOENT, ENXIO, ENODEV].contains(error.errno) {
      throw RawGatewayError(
        sentence: "raw mode needs TUN devices (modprobe tun; CONFIG_TUN), which this kernel lacks (\(error))")
    }
  }

  /// Addresses for the enclave in networks of which this machine has nothing, the same every time: the first from the
  /// link's number on. The link gets the host's at once, so that no other gateway chooses the same.
  /// - Returns: nil for IPv6 where this kernel has none.
  func chooseAddresses() throws -> (v4: IPPrefix?, v6: IPPrefix?) {
    if let chosen { return chosen }
    let made = try state.exclusively {
      var socket = try RouteSocket()
      let index = try socket.linkIndex(named: name)
      let taken = try Self.taken(&socket, but: index)
      let number = UInt32(name.drop { !$0.isNumber }) ?? 0
      let hasIPv6 = IPv6Support.probe() == .available
      let made = (
        v4: FreeNetwork.first4(from: number, taken: taken),
        v6: hasIPv6 ? FreeNetwork.first6(from: number, taken: taken) : nil
      )
      guard made.v4 != nil, made.v6 != nil || !hasIPv6 else {
        throw RawGatewayError(
          sentence: "this machine has addresses or routes in every network of "
            + "\(AgreedAddresses.links4) or \(AgreedAddresses.links6); "
            + "name others as network.address and network.address6")
      }
      for address in [made.v4, made.v6].compactMap({ $0 }) {
        if let own = Self.hostAddress(beside: address) { try socket.addAddress(own, link: index) }
      }
      return made
    }
    chosen = made
    return made
  }

  private static func taken(_ socket: inout RouteSocket, but link: UInt32) throws -> [IPPrefix] {
    try socket.addresses().filter { $0.link != link }.map(\.prefix) + socket.destinations(but: link)
  }

  private func addAddresses(_ addresses: [IPPrefix], _ socket: inout RouteSocket, _ index: UInt32) throws {
    try state.exclusively {
      let taken = try Self.taken(&socket, but: index)
      for address in addresses {
        if let other = FreeNetwork.conflict(address, taken) {
          throw RawGatewayError(
            sentence:
              "the enclave's address \(address) is in a network that this machine has already: it has an address "
              + "or a route in \(other); name another as network.address\(address.address.bytes.count == 4 ? "" : "6"), or "
              + "\"host\" to be given a free one")
        }
        if let own = Self.hostAddress(beside: address) { try socket.addAddress(own, link: index) }
      }
    }
  }

  /// The sockets of the link's name server, at ports of the kernel's choice: port 53 may be published, and then it is taken.
  private func listenForNames() throws(SystemError) -> (datagram: FileReference, stream: FileReference) {
    let place = IPEndpoint(.v4(AgreedAddresses.nameServer), 0)
    return (
      FileReference(try bindDatagram(place, link: name)), FileReference(try listenStream(place, link: name))
    )
  }

  /// What another process needs to go on with it.
  var held: [FileReference] { state.held + (first.map { [$0.file] } ?? []) }

  /// Another process goes on with it: nothing is undone here any more.
  func abandon() {
    isOver = true
    state.abandon()
    first = nil
  }

  /// Takes away the rules and, where no other enclave is left, restores the settings.
  func close() {
    guard !isOver else { return }
    isOver = true
    first = nil
    state.leave()
  }

  deinit { close() }

  /// Sets up addresses, forwarding, rules and queues; once.
  func configure(_ wanted: HostTunnel.Shape) throws -> Opened {
    for address in [wanted.address4, wanted.address6].compactMap({ $0 })
    where !ranges.contains(where: { $0.contains(address.address) && $0.length <= address.length }) {
      throw RawGatewayError(
        sentence: "the enclave's address \(address) is outside \(ranges.map(\.description).joined(separator: ", "))")
    }
    guard !isConfigured, let first else {
      throw RawGatewayError(
        sentence: "the enclave has come back with other addresses or queues; start its host side anew")
    }
    let hasIPv6 = IPv6Support.probe() == .available
    try? writeFile("/proc/sys/net/ipv6/conf/\(name)/addr_gen_mode", "1")
    // For clients on 127.0.0.1. PacketGuard sees to it that the enclave itself gets nothing to 127.0.0.0/8.
    try writeFile("/proc/sys/net/ipv4/conf/\(name)/route_localnet", "1")
    var socket = try RouteSocket()
    try socket.setLink(named: name, up: true, mtu: UInt32(wanted.mtu))
    let index = try socket.linkIndex(named: name)
    let v6 = hasIPv6 ? wanted.address6 : nil
    try socket.addAddress(IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32), link: index)
    try addAddresses([wanted.address4, v6].compactMap { $0 }, &socket, index)
    var rules = HostRuleset(link: name, published: published, hostPorts: hostPorts)
    if case .v4(let address) = wanted.address4?.address { rules.enclave4 = address }
    if case .v6(let address) = v6?.address { rules.enclave6 = address }
    let names = try listenForNames()
    guard let udp = localEndpoint(names.datagram.rawValue), let tcp = localEndpoint(names.stream.rawValue) else {
      throw SystemError("getsockname", errno: EBADF)
    }
    rules.nameServer = (AgreedAddresses.nameServer, udp.port, tcp.port)
    var backend: PacketFilter?
    try state.enableForwarding(ipv6: v6 != nil) { before in
      rules.forwarding = before
      backend = try PacketFilter.install(rules.ruleset(), with: firewall)
    }
    guard let backend else { throw SystemError("forwarding", name, errno: ENODEV) }
    var queues = [first.file]
    while queues.count < Int(wanted.queues) { queues.append(try TunQueue(name).file) }
    self.first = nil
    isConfigured = true
    return Opened(queues: queues, names: names, backend: backend)
  }

  /// The first address of the network that is not the enclave's.
  static func hostAddress(beside enclave: IPPrefix) -> IPPrefix? {
    var bytes = enclave.address.bytes
    for index in bytes.indices {
      let kept = min(max(Int(enclave.length) - index * 8, 0), 8)
      bytes[index] &= UInt8(truncatingIfNeeded: 0xff00 >> kept)
    }
    guard let last = bytes.indices.last else { return nil }
    bytes[last] |=
      bytes[last] | 1 == enclave.address.bytes[last] && bytes.dropLast() == enclave.address.bytes.dropLast() ? 2 : 1
    return IPAddress(bytes: bytes).flatMap { IPPrefix($0, enclave.length) }
  }
}
