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
// The enclave has the host's own address, and a share of its ports. Two things of the host are changed: a ruleset, and the
// range from which its own connections take their ports. Both are written down before they are made (`HostState`).

/// The host's side of raw mode with a shared address, for one enclave; there can be one in a network namespace.
public final class SharedAddressGateway: RawGateway {
  /// The first queue of nfnetlink_queue, for datagrams; those for TCP follow.
  static let firstQueue: UInt16 = 7766
  /// Hundreds of rules would be looked at for every packet.
  private static let keptLimit = 256

  private let ports: PortRanges
  private let published: [Publication]
  private let firewall: PacketFilter?
  private let log: @Sendable (String) -> Void
  private let note: @Sendable (String) -> Void
  private let destinations = LockedDestinations(Destinations())
  private var reach: PacketReach
  private var wanted: Destinations?
  private var state: HostState
  private var first: FileReference?
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
    self.firewall = firewall
    self.log = log
    tally = try QueueTally(pipe: makePipe())
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
    state = try HostState()
    first = try state.enter { former in
      // Of another kind, whose traces are removed instead.
      if let former, former != SharedRuleset.name { throw SystemError("open", former, errno: EEXIST) }
      return (try Self.openFirst(), name: SharedRuleset.name)
    }
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

  private static func openFirst() throws -> FileReference {
    do throws(NetlinkError) {
      return try CaptureSocket.open([
        .init(firstQueue, takesSuperPackets: false), .init(firstQueue + 1, takesSuperPackets: true),
      ])
    } catch {
      if let missing = CaptureSocket.missing(error) {
        throw RawGatewayError(sentence: "capture = \"nfqueue\": \(missing) (\(error))")
      }
      guard error.errno == EPERM else { throw error }
      // The same error for a missing right and for somebody else's queue.
      if CaptureSocket.isBound(firstQueue) {
        throw RawGatewayError(
          sentence: "another enclave shares this machine's address already, or another program has packet queue "
            + "\(firstQueue) (\(error))")
      }
      throw RawGatewayError(
        sentence:
          "raw mode joins the enclave to this machine's network, which needs root or CAP_NET_ADMIN here (\(error))")
    }
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
    guard wanted.queues <= 16 else {
      throw RawGatewayError(sentence: "the enclave wants \(wanted.queues) queues, expected at most 16 (network.queues)")
    }
    guard shape == nil, let first, let range = ports.rest.widest else {
      throw RawGatewayError(
        sentence: "the enclave has come back with other addresses or queues; start its host side anew")
    }
    try startWorkers(first, wanted, asked)
    try state.usePorts(range)
    let kept = connections(asked)
    func rules(whole: Bool) -> Ruleset {
      SharedRuleset.make(
        addresses: asked, ports: ports, firstQueue: Self.firstQueue, queues: Int(wanted.queues), kept: kept,
        whole: whole)
    }
    do {
      do {
        backend = try PacketFilter.install(rules(whole: true), with: firewall)
      } catch is NoPacketFilter {
        backend = try PacketFilter.install(rules(whole: false), with: firewall)
        if wanted.address6 != nil {
          log("raw mode: without nft_socket or xt_socket in this kernel, fragments of IPv6 do not reach the enclave")
        }
      }
    } catch let error as NoPacketFilter {
      throw RawGatewayError(
        sentence: "capture = \"nfqueue\" needs nft_queue (CONFIG_NFT_QUEUE) or xt_NFQUEUE "
          + "(CONFIG_NETFILTER_XT_TARGET_NFQUEUE): \(error)")
    }
    note(
      "raw mode: ports \(ports) of \(asked.map(\.description).joined(separator: ", ")) on \(link) are the enclave's, "
        + "rules in \(backend?.description ?? "")")
    self.first = nil
    shape = wanted
  }

  /// Those of the host's connections that go on, and a word on programs that will wait in vain.
  private func connections(_ asked: [IPAddress]) -> [HostConnection] {
    let texts = ["tcp", "tcp6"].compactMap { try? readText("/proc/thread-self/net/\($0)", limit: 16 << 20) }
    let listening = Set(
      texts.flatMap { HostConnection.listeners($0) }.filter {
        ($0.local.address == .v4(.any) || $0.local.address == .v6(.any) || asked.contains($0.local.address))
          && ports.contains($0.local.port)
      }.map(\.local.port)
    )
    if !listening.isEmpty {
      log(
        "raw mode: programs of this machine listen on ports that are the enclave's now: "
          + PortRanges(listening.map { $0...$0 }).description)
    }
    let kept = texts.flatMap { HostConnection.parse($0) }.filter {
      asked.contains($0.local.address) && !asked.contains($0.remote.address) && ports.contains($0.local.port)
    }
    if kept.count > Self.keptLimit {
      log("raw mode: of this machine's \(kept.count) connections from the enclave's ports \(Self.keptLimit) go on")
    }
    return Array(kept.prefix(Self.keptLimit))
  }

  private func startWorkers(_ first: FileReference, _ wanted: HostTunnel.Shape, _ asked: [IPAddress]) throws {
    var four: IPv4Address?
    var six: IPv6Address?
    for address in asked {
      switch address {
      case .v4(let address): four = address
      case .v6(let address): six = address
      }
    }
    let share = PortSet(ranges: ports.ranges)
    func openPorts(_ transport: PortTransport) -> PortSet {
      PortSet(published.filter { $0.transport == transport }.map(\.port))
    }
    let decision = SharedCapture(
      address4: four, address6: six, ports: share, published: openPorts(.tcp), publishedDatagrams: openPorts(.udp))
    let packetGuard = PacketGuard(.host, address4: four, address6: six, shared: share)
    for index in 0..<Int(wanted.queues) {
      let capture =
        try index == 0
        ? first
        : CaptureSocket.open([
          .init(Self.firstQueue &+ 1 &+ UInt16(clamping: index), takesSuperPackets: true)
        ])
      let sockets = try SharedDevice.Sockets(link: link, v4: four != nil, v6: six != nil)
      workers.append(
        try PacketWorker(queue: index, packetGuard, destinations, log: log, answer: tally.answer) {
          [mtu = Int(linkMTU)] in
          SharedDevice(capture: capture, sockets: sockets, decision: decision, mtu: mtu)
        })
    }
  }

  /// What we do in software, whatever our kernel knows.
  private static let features: TunOffload = [.checksum, .tcp]

  public func serve(_ stream: FileReference, _ request: PacketsRequest, answer: (PacketsAnswer) -> Void) throws {
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
  public func change(_ wanted: Destinations, names: @escaping @Sendable (IPAddress) -> [DomainName]) {
    guard wanted != self.wanted else { return }
    self.wanted = wanted
    destinations.current = reach.value(wanted, names)
    for worker in workers { worker.change() }
  }

  public func report() { for worker in workers { worker.report() } }

  public var currentShape: HostTunnel.Shape? { shape }

  public func count(in loop: EventLoop, _ completion: @escaping ([QueueCount]) -> Void) {
    tally.ask(workers, in: loop, completion)
  }

  /// Verdicts on packets need CAP_NET_ADMIN, each of them.
  public func handOver() -> PrivilegedPart? { nil }

  /// Removes the rules and, where no other enclave is left, restores the settings.
  public func close() {
    guard !closed else { return }
    closed = true
    state.leave()
    for worker in workers { worker.stop() }
    workers = []
    first = nil
  }
}
