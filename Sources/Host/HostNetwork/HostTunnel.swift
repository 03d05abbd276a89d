import CLinux
import EventLoop
import Inet
import LinuxSystem
import Netfilter
import Netlink
import PacketRelaying
import Packets
import Policy
import Wire

// Theory of operation.
//
//   enclave's stream, one a queue ▶ PacketQueue in its own thread: source checked ▶ TUN ▶ kernel: forward, masquerade
//   network ▶ kernel: DNAT of published ports, forward ▶ TUN ▶ PacketQueue ▶ stream
//
// The kernel does all of the networking; what is ours is the link, a ruleset of the link's name, and forwarding. Each
// of the three is written down before it is made (`HostState`) and gone at the end. The link is gone with the process.

/// The host's side of raw mode, for one enclave.
public final class HostTunnel {
  /// What the enclave asked for.
  public struct Shape: Equatable, Sendable {
    public var address4: IPPrefix?
    public var address6: IPPrefix?
    public var mtu: UInt16
    public var queues: UInt8

    public init(address4: IPPrefix?, address6: IPPrefix?, mtu: UInt16, queues: UInt8) {
      self.address4 = address4
      self.address6 = address6
      self.mtu = mtu
      self.queues = queues
    }
  }

  /// Ranges in which an enclave may have its address, unless the operator says otherwise.
  public static let defaultRanges = AgreedAddresses.links

  private let ranges: [IPPrefix]
  private let published: [Publication]
  private let firewall: PacketFilter?
  private let mtu: UInt16?
  private let hostPorts: PortRanges
  private let destinations = SharedDestinations(Destinations())
  /// What the enclave was given when it asked.
  private var assigned: AddressAnswer?
  /// What has been chosen for it.
  private var chosen: (v4: IPPrefix?, v6: IPPrefix?)?
  private let log: @Sendable (String) -> Void
  private let note: @Sendable (String) -> Void
  private var state: HostState
  private var first: TunQueue?
  /// The first queue's descriptor, for the device's settings.
  private var control: FileHandle?
  private var shape: Shape?
  private var workers: [PacketWorker] = []
  private var features = TunOffload()
  private var closed = false
  private let tally: QueueTally
  /// What the rules are made with; nil before there are any.
  public private(set) var backend: PacketFilter?
  /// The link's name.
  public let link: String
  /// Where the enclave's queries come, once it has come itself.
  public private(set) var nameServerSockets: (datagram: FileHandle, stream: FileHandle)?

  /// Makes the link, so that a missing right is found before anything is started, and takes over what a killed gateway left.
  /// - Parameters:
  ///   - ranges: an enclave with an address outside is refused.
  ///   - firewall: what the rules are made with; nil for the first that takes them.
  ///   - mtu: for enclaves that ask for their addresses, where they would have a larger one, in bytes; nil for no wish.
  ///   - hostPorts: TCP and UDP ports of this machine that are open to the enclave.
  ///   - log: takes sentences for the operator; called in any thread.
  ///   - note: takes those that nobody needs to act on.
  public init(
    ranges: [IPPrefix] = defaultRanges, published: [Publication], firewall: PacketFilter? = nil,
    mtu: UInt16? = nil, hostPorts: PortRanges = PortRanges([]), log: @escaping @Sendable (String) -> Void,
    note: @escaping @Sendable (String) -> Void = { _ in }
  ) throws {
    self.hostPorts = hostPorts
    self.note = note
    self.ranges = ranges
    self.published = published
    self.firewall = firewall
    self.mtu = mtu
    tally = try QueueTally(pipe: makePipe())
    self.log = log
    do {
      state = try HostState()
      let queue = try state.enter { former in
        // Of the other kind, which has no link.
        if former == SharedRuleset.name { throw SystemError("open", SharedRuleset.name, errno: EEXIST) }
        let queue = try TunQueue(former ?? "tombolo%d")
        return (queue, name: queue.deviceName)
      }
      first = queue
      link = queue.deviceName
    } catch let error as SystemError where error.errno == EPERM || error.errno == EACCES {
      throw HostTunnelError(
        sentence:
          "raw mode joins the enclave to this machine's network, which needs root or CAP_NET_ADMIN here (\(error))")
    } catch let error as SystemError where error.call.contains("tun") && [ENOENT, ENXIO, ENODEV].contains(error.errno) {
      throw HostTunnelError(
        sentence: "raw mode needs TUN devices (modprobe tun; CONFIG_TUN), which this kernel lacks (\(error))")
    }
  }

  deinit { close() }

  /// Addresses for the enclave in networks in which this machine has nothing, the same every time: the first from the
  /// link's number on. The link gets the host's at once, so that no other gateway chooses the same.
  /// - Returns: nil for IPv6 where this kernel has none.
  public func chooseAddresses() throws -> (v4: IPPrefix?, v6: IPPrefix?) {
    if let chosen { return chosen }
    let made = try state.exclusively {
      var socket = try RouteSocket()
      let index = try socket.linkIndex(named: link)
      let taken = try Self.taken(&socket, but: index)
      let number = UInt32(link.drop { !$0.isNumber }) ?? 0
      let hasIPv6 = IPv6Support.probe() == .available
      let made = (
        v4: FreeNetwork.first4(from: number, taken: taken),
        v6: hasIPv6 ? FreeNetwork.first6(from: number, taken: taken) : nil
      )
      guard made.v4 != nil, made.v6 != nil || !hasIPv6 else {
        throw HostTunnelError(
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

  /// Gives an enclave that asks the addresses that no other enclave of this host has, the same every time.
  public func assign(_ request: AddressRequest) throws -> AddressAnswer {
    let suggested = try chooseAddresses()
    let answer = AddressAnswer(
      address4: request.wants4 ? suggested.v4 : nil, address6: request.wants6 ? suggested.v6 : nil,
      mtu: mtu.map { min($0, request.mtu) } ?? 0)
    assigned = answer
    return answer
  }

  /// Sets up addresses, forwarding, rules and queues. Doing it again with the same shape does nothing.
  public func configure(_ wanted: Shape) throws {
    guard wanted != shape else { return }
    for (given, found) in [(assigned?.address4, wanted.address4), (assigned?.address6, wanted.address6)] {
      guard let given, let found, given != found else { continue }
      throw HostTunnelError(sentence: "the enclave was given the address \(given) and has come with \(found)")
    }
    for address in [wanted.address4, wanted.address6].compactMap({ $0 })
    where !ranges.contains(where: { $0.contains(address.address) && $0.length <= address.length }) {
      throw HostTunnelError(
        sentence: "the enclave's address \(address) is outside \(ranges.map(\.description).joined(separator: ", "))")
    }
    guard shape == nil, let first else {
      throw HostTunnelError(
        sentence: "the enclave has come back with other addresses or queues; start its host side anew")
    }
    let hasIPv6 = IPv6Support.probe() == .available
    try? writeFile("/proc/sys/net/ipv6/conf/\(link)/addr_gen_mode", "1")
    // For clients on 127.0.0.1. PacketGuard sees to it that the enclave itself gets nothing to 127.0.0.0/8.
    try writeFile("/proc/sys/net/ipv4/conf/\(link)/route_localnet", "1")
    var socket = try RouteSocket()
    try socket.setLink(named: link, up: true, mtu: UInt32(wanted.mtu))
    let index = try socket.linkIndex(named: link)
    let v6 = hasIPv6 ? wanted.address6 : nil
    try socket.addAddress(IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32), link: index)
    try addAddresses([wanted.address4, v6].compactMap { $0 }, &socket, index)
    var rules = HostRuleset(link: link, published: published, hostPorts: hostPorts)
    if case .v4(let address) = wanted.address4?.address { rules.enclave4 = address }
    if case .v6(let address) = v6?.address { rules.enclave6 = address }
    let (four, six) = (rules.enclave4, rules.enclave6)
    rules.nameServer = try listenForNames()
    try state.enableForwarding(ipv6: v6 != nil) { before in
      rules.forwarding = before
      backend = try PacketFilter.install(rules.ruleset(), with: firewall)
    }
    note("raw mode: link \(link), rules in \(backend?.description ?? "")")
    try startWorkers(first, wanted, PacketGuard(.host, address4: four, address6: six))
    control = first.file
    self.first = nil
    shape = wanted
  }

  private func addAddresses(_ addresses: [IPPrefix], _ socket: inout RouteSocket, _ index: UInt32) throws {
    try state.exclusively {
      let taken = try Self.taken(&socket, but: index)
      for address in addresses {
        if let other = FreeNetwork.conflict(address, taken) {
          throw HostTunnelError(
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
  private func listenForNames() throws(SystemError) -> (address: IPv4Address, udp: UInt16, tcp: UInt16)? {
    let place = IPEndpoint(.v4(AgreedAddresses.nameServer), 0)
    let datagram = FileHandle(try bindDatagram(place, link: link))
    let stream = FileHandle(try listenStream(place, link: link))
    guard let udp = localEndpoint(datagram.rawValue), let tcp = localEndpoint(stream.rawValue) else { return nil }
    nameServerSockets = (datagram, stream)
    return (AgreedAddresses.nameServer, udp.port, tcp.port)
  }

  private func startWorkers(_ first: TunQueue, _ wanted: Shape, _ packetGuard: PacketGuard) throws(SystemError) {
    features = try setTunOffload(first.file.rawValue, .all)
    for index in 0..<Int(wanted.queues) {
      let tun = index == 0 ? first.file : try TunQueue(link).file
      workers.append(
        try PacketWorker(queue: index, packetGuard, destinations, log: log, answer: tally.answer) { TunDevice(tun) })
    }
  }

  /// The machine's own addresses are the business of the rules, which know connections and translate published ports.
  public func change(_ wanted: Destinations) {
    var wanted = wanted
    wanted.own = []
    // The host's address on every link, where its name server is; the rules say which ports are open.
    wanted.allowed.append(DestinationRule(IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32)))
    guard wanted != destinations.current else { return }
    destinations.current = wanted
    for worker in workers { worker.change() }
  }

  /// Sets up what the enclave asks for, or throws where it is not what it was.
  public func configure(_ request: PacketsRequest) throws {
    try configure(
      Shape(address4: request.address4, address6: request.address6, mtu: request.mtu, queues: request.queues))
  }

  /// Takes a stream whose hello has been read: answers it, and gives it to its queue.
  /// - Throws: where it must be refused; nothing has been answered then.
  public func serve(_ stream: FileHandle, _ request: PacketsRequest, answer: (PacketsAnswer) -> Void) throws {
    guard workers.indices.contains(Int(request.queue)) else {
      throw HostTunnelError(sentence: "there is no such queue")
    }
    // What the enclave's kernel cannot take, ours must not leave undone; the setting is the whole device's.
    if let control {
      _ = try setTunOffload(control.rawValue, features.intersection(TunOffload(rawValue: request.features)))
    }
    workers[Int(request.queue)].serve(stream, request, features: features, log: log, answer: answer)
  }

  /// Has every queue's counters written to the log.
  public func report() { for worker in workers { worker.report() } }

  /// What the enclave asked for; nil before it has come.
  public var currentShape: Shape? { shape }

  /// Asks every queue for its counters.
  /// - Parameter completion: called in `loop`; queues whose thread did not answer within 1 s are missing.
  public func count(in loop: EventLoop, _ completion: @escaping ([QueueCount]) -> Void) {
    tally.ask(workers, in: loop, completion)
  }

  /// Removes the rules and, where no other enclave is left, restores the settings; the link goes with the process.
  public func close() {
    guard !closed else { return }
    closed = true
    for worker in workers { worker.stop() }
    workers = []
    control = nil
    first = nil
    nameServerSockets = nil
    state.leave()
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

/// Why raw mode cannot be had.
public struct HostTunnelError: Error, CustomStringConvertible {
  public var sentence: String
  public var description: String { sentence }
}
