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
//   enclave's stream ▶ PacketQueue in its own thread: source and port checked ▶ cut to the MTU ▶ raw socket ▶ the host's
//   OUTPUT, as if the host had sent it
//   network ▶ the host's INPUT: by port to a queue ▶ PacketQueue ▶ stream; the packet itself is dropped
//
// The enclave has the host's own address, and a share of its ports. What of that needs rights is in other processes, once this
// one has given up its own: `SharedLink` changes the host and undoes that, and a keeper gives the verdicts (`VerdictKeeper`).
// The sockets of queues and the raw ones are opened before.

/// The host's side of raw mode with a shared address, for one enclave; there can be one in a network namespace.
public final class SharedAddressGateway: RawGateway {
  /// For TCP, each with a socket.
  static let queueLimit = 16

  private let ports: PortRanges
  private let published: [Publication]
  private let log: @Sendable (String) -> Void
  private let note: @Sendable (String) -> Void
  private let destinations = LockedDestinations(Destinations())
  private var reach: PacketReach
  private var wanted: Destinations?
  private let access: LinkAccess<SharedLink>
  /// A socket for each queue of TCP; the first has the queue of datagrams as well.
  private var captures: [FileReference]
  private var sockets: [SharedDevice.Sockets] = []
  private let verdicts: FileReference
  /// Until the keeper of verdicts has it.
  private var orders: FileReference?
  private var shape: HostTunnel.Shape?
  private var workers: [PacketWorker] = []
  private let tally: QueueTally
  private var closed = false
  public private(set) var backend: PacketFilter?
  /// The link that has the address.
  public let link: String
  public var nameServerSockets: (datagram: FileReference, stream: FileReference)? { nil }
  /// What there is to share: the addresses of the link of the default route, or of the first one that has any.
  public let addresses: (v4: IPPrefix?, v6: IPPrefix?)
  /// In bytes.
  public let linkMTU: UInt32

  /// Binds the first queues, so that a missing right is found before anything is started, and takes over what a killed
  /// gateway left.
  /// - Parameters:
  ///   - ports: the enclave's.
  ///   - wanted: the address to share; nil to find it.
  ///   - firewall: what the rules are made with; nil for the first that takes them.
  ///   - log: takes sentences for the operator; called in any thread.
  ///   - note: takes those that nobody needs to act on.
  public init(
    ports: PortRanges, sharing wanted: IPAddress? = nil, published: [Publication], firewall: PacketFilter? = nil,
    log: @escaping @Sendable (String) -> Void, note: @escaping @Sendable (String) -> Void = { _ in }
  ) throws {
    self.note = note
    reach = PacketReach(published)
    self.ports = ports
    self.published = published
    self.log = log
    tally = try QueueTally(pipe: makePipe())
    (orders, verdicts) = try makePipe()
    let found = try Self.find(wanted)
    link = found.link
    linkMTU = found.mtu
    addresses = (found.v4, found.v6)
    for publication in published {
      if let reason = Self.defect(publication, ports, addresses) {
        throw RawGatewayError(
          sentence:
            "-p \(publication.listen):\(publication.port)\(publication.transport == .udp ? "/udp" : ""): \(reason)")
      }
    }
    let link = try SharedLink(on: found.link, ports: ports, firewall: firewall, log: log)
    captures = link.takeSockets()
    access = LinkAccess(link)
  }

  deinit { close() }

  /// Nothing is translated here.
  private static func defect(
    _ publication: Publication, _ ports: PortRanges, _ own: (v4: IPPrefix?, v6: IPPrefix?)
  ) -> String? {
    guard publication.listen.port == publication.port else {
      return "with a shared address a port has the same number outside and inside"
    }
    guard ports.contains(publication.port) else {
      return "port \(publication.port) is the host's own; the enclave's are \(ports) (network.shared_ports)"
    }
    let address = publication.listen.address
    let isAny = address == .v4(.any) || address == .v6(.any)
    guard isAny || address == own.v4?.address || address == own.v6?.address else {
      let known = [own.v4, own.v6].compactMap { $0?.address.description }.joined(separator: ", ")
      return "\(address) is not the address that is shared: \(known)"
    }
    return nil
  }

  private static func find(_ wanted: IPAddress?) throws -> (link: String, mtu: UInt32, v4: IPPrefix?, v6: IPPrefix?) {
    var socket = try RouteSocket()
    let links = try socket.links().filter { $0.isUp && !$0.isLoopback && !$0.name.hasPrefix("tombolo") }
    let routes = try socket.routes().filter { $0.destination == nil && $0.kind == .unicast && $0.table == 254 }
    let all = try socket.addresses()
    func addresses(_ link: UInt32) -> [IPPrefix] {
      all.filter { $0.link == link }.map(\.prefix).filter(\.address.canBeOwn)
    }
    let byDefault = routes.sorted { $0.family == .ip && $1.family != .ip }.compactMap { route in
      links.first { $0.index == route.link }
    }
    for link in byDefault + links {
      let own = addresses(link.index)
      if let wanted, !own.contains(where: { $0.address == wanted }) { continue }
      func first(_ isFamily: (IPAddress) -> Bool) -> IPPrefix? {
        own.first { $0.address == wanted }.flatMap { isFamily($0.address) ? $0 : nil }
          ?? own.first { isFamily($0.address) }
      }
      let v4 = first { if case .v4 = $0 { true } else { false } }
      let v6 = first { if case .v6 = $0 { true } else { false } }
      if v4 != nil || v6 != nil { return (link.name, link.mtu, v4, v6) }
    }
    throw RawGatewayError(
      sentence: wanted.map { "\($0) is no address of a link of this machine that is up" }
        ?? "this machine has no address that an enclave could share: no link but lo that is up has one")
  }

  /// Gives an enclave that asks the host's own address.
  public func assign(_ request: AddressRequest) throws -> AddressAnswer {
    AddressAnswer(
      address4: request.wants4 ? addresses.v4 : nil, address6: request.wants6 ? addresses.v6 : nil,
      mtu: UInt32(request.mtu) > linkMTU ? UInt16(clamping: linkMTU) : 0)
  }

  public func configure(_ request: PacketsRequest) throws {
    try configure(
      .init(address4: request.address4, address6: request.address6, mtu: request.mtu, queues: request.queues))
  }

  /// Sets up ports, queues and rules. Doing it again with the same shape does nothing.
  public func configure(_ wanted: HostTunnel.Shape) throws {
    // An enclave does not know the lengths of the prefixes, nor need it.
    let asked = [wanted.address4?.address, wanted.address6?.address].compactMap { $0 }
    guard wanted != shape else { return }
    for address in asked where address != addresses.v4?.address && address != addresses.v6?.address {
      throw RawGatewayError(
        sentence: "the enclave's address \(address) is not the one that \(link) has and shares "
          + "(capture = \"nfqueue\" on both sides?)")
    }
    guard UInt32(wanted.mtu) <= linkMTU else {
      throw RawGatewayError(
        sentence: "the enclave's MTU of \(wanted.mtu) is larger than the \(linkMTU) of \(link) (network.mtu)")
    }
    guard wanted.queues <= Self.queueLimit else {
      throw RawGatewayError(
        sentence: "the enclave wants \(wanted.queues) queues, expected at most \(Self.queueLimit) (network.queues)")
    }
    guard shape == nil else {
      throw RawGatewayError(
        sentence: "the enclave has come back with other addresses or queues; start its host side anew")
    }
    try open(queues: Int(wanted.queues))
    let used = try access.configure(wanted)
    backend = used
    note(
      "raw mode: ports \(ports) of \(asked.map(\.description).joined(separator: ", ")) on \(link) are the enclave's, "
        + "rules in \(used)")
    shape = wanted
  }

  /// Opens what is still missing of the sockets of so many queues.
  private func open(queues: Int) throws {
    while captures.count < queues {
      captures.append(
        try CaptureSocket.open([
          .init(SharedLink.firstQueue &+ 1 &+ UInt16(clamping: captures.count), takesSuperPackets: true)
        ]))
    }
    while sockets.count < queues {
      sockets.append(try SharedDevice.Sockets(link: link, v4: addresses.v4 != nil, v6: addresses.v6 != nil))
    }
  }

  /// Not before the enclave comes: by then this process has given up its rights, and each thread's are its own.
  private func startWorkers(_ shape: HostTunnel.Shape) throws(SystemError) {
    guard workers.isEmpty else { return }
    var four: IPv4Address?
    var six: IPv6Address?
    if case .v4(let address) = shape.address4?.address { four = address }
    if case .v6(let address) = shape.address6?.address { six = address }
    let share = PortSet(ranges: ports.ranges)
    func openPorts(_ transport: PortTransport) -> PortSet {
      PortSet(published.filter { $0.transport == transport }.map(\.port))
    }
    let decision = SharedCapture(
      address4: four, address6: six, ports: share, published: openPorts(.tcp), publishedDatagrams: openPorts(.udp))
    let packetGuard = PacketGuard(.host, address4: four, address6: six, shared: share)
    for index in 0..<Int(shape.queues) {
      workers.append(
        try PacketWorker(queue: index, packetGuard, destinations, log: log, answer: tally.answer) {
          [verdicts, mtu = Int(linkMTU), capture = captures[index], sockets = sockets[index]] in
          SharedDevice(
            capture: capture, number: UInt8(clamping: index), verdicts: verdicts, sockets: sockets, decision: decision,
            mtu: mtu)
        })
    }
  }

  /// What we do in software, whatever our kernel knows.
  private static let features: TunOffload = [.checksum, .tcp]

  public func serve(_ stream: FileReference, _ request: PacketsRequest, answer: (PacketsAnswer) -> Void) throws {
    if let shape { try startWorkers(shape) }
    guard workers.indices.contains(Int(request.queue)) else {
      throw RawGatewayError(sentence: "there is no such queue")
    }
    guard TunOffload(rawValue: request.features).contains(.checksum) else {
      throw RawGatewayError(sentence: "the enclave's kernel takes no packets whose checksums are undone")
    }
    workers[Int(request.queue)].serve(stream, request, features: Self.features, log: log, answer: answer)
  }

  /// The machine's own addresses among them: the link's other ones are reached through `lo`, past the rules for the
  /// enclave's.
  public func change(
    _ wanted: Destinations, checksQUIC: Bool, names: @escaping @Sendable (IPAddress) -> [DomainName]
  ) {
    guard wanted != self.wanted else { return }
    self.wanted = wanted
    destinations.current = reach.value(wanted, checksQUIC: checksQUIC, names)
    for worker in workers { worker.change() }
  }

  public func report() { for worker in workers { worker.report() } }

  public var currentShape: HostTunnel.Shape? { shape }

  public func count(in loop: EventLoop, _ completion: @escaping ([QueueCount]) -> Void) {
    tally.ask(workers, in: loop, completion)
  }

  /// How many queues the enclave has is not known where it has not come yet: then there is a socket for as many as it may
  /// have.
  public func handOver() throws -> PrivilegedPart {
    if shape == nil { try open(queues: Self.queueLimit) }
    var part = access.handOver()
    if let orders {
      part.keeper = .init(
        held: captures + [orders],
        run: { [sockets = captures.map(\.rawValue)] in
          VerdictKeeper.run(pipe: orders.rawValue, sockets: sockets, onlyDrops: false)
        },
        orders: verdicts, end: { [verdicts] in VerdictRecord(.end).send(verdicts.rawValue) })
    }
    orders = nil
    return part
  }

  /// Removes the rules and, where no other enclave is left, restores the settings.
  public func close() {
    guard !closed else { return }
    closed = true
    access.close()
    for worker in workers { worker.stop() }
    workers = []
    captures = []
    sockets = []
    VerdictRecord(.end).send(verdicts.rawValue)
  }
}
