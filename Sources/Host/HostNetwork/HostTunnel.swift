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
// The kernel does all of the networking; what is ours is the link, a ruleset of the link's name, and forwarding. They are
// made and undone by `HostLink`, which may be in another process; packets pass here.

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

  private let access: LinkAccess<HostLink>
  private let mtu: UInt16?
  private let destinations = LockedDestinations(Destinations())
  private var reach: PacketReach
  private var wanted: Destinations?
  /// What the enclave was given when it asked.
  private var assigned: AddressAnswer?
  /// What has been chosen for it.
  private var chosen: (v4: IPPrefix?, v6: IPPrefix?)?
  private let log: @Sendable (String) -> Void
  private let note: @Sendable (String) -> Void
  private var queues: [FileReference] = []
  private var packetGuard: PacketGuard?
  private var shape: Shape?
  private var workers: [PacketWorker] = []
  private var features = TunOffload()
  private var closed = false
  private let tally: QueueTally
  /// What the rules are made with; nil before there are any.
  public private(set) var backend: PacketFilter?
  /// The link's name.
  public var link: String { access.name }
  /// Where the enclave's queries come, once it has come itself.
  public private(set) var nameServerSockets: (datagram: FileReference, stream: FileReference)?

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
    self.note = note
    self.mtu = mtu
    reach = PacketReach(published)
    self.log = log
    tally = try QueueTally(pipe: makePipe())
    access = LinkAccess(
      try HostLink(ranges: ranges, published: published, firewall: firewall, hostPorts: hostPorts))
  }

  deinit { close() }

  /// Addresses for the enclave in networks of which this machine has nothing, the same every time.
  public func chooseAddresses() throws -> (v4: IPPrefix?, v6: IPPrefix?) {
    if let chosen { return chosen }
    let made = try access.chooseAddresses()
    chosen = made
    return made
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
      throw RawGatewayError(sentence: "the enclave was given the address \(given) and has come with \(found)")
    }
    let opened = try access.configure(wanted)
    backend = opened.backend
    nameServerSockets = opened.names
    note("raw mode: link \(link), rules in \(opened.backend)")
    var four: IPv4Address?
    var six: IPv6Address?
    if case .v4(let address) = wanted.address4?.address { four = address }
    if IPv6Support.probe() == .available, case .v6(let address) = wanted.address6?.address { six = address }
    packetGuard = PacketGuard(.host, address4: four, address6: six)
    queues = opened.queues
    if let first = queues.first { features = try setTunOffload(first.rawValue, .all) }
    shape = wanted
  }

  /// Not before the enclave comes: by then this process has given up its rights, and each thread's are its own.
  private func startWorkers() throws(SystemError) {
    guard workers.isEmpty, let packetGuard else { return }
    for (index, tun) in queues.enumerated() {
      workers.append(
        try PacketWorker(queue: index, packetGuard, destinations, log: log, answer: tally.answer) { TunDevice(tun) })
    }
  }

  /// The machine's own addresses are the business of the rules, which know connections and translate published ports.
  public func change(
    _ wanted: Destinations, checksQUIC: Bool, names: @escaping @Sendable (IPAddress) -> [DomainName]
  ) {
    var wanted = wanted
    wanted.own = []
    // The host's address on every link, where its name server is; the rules say which ports are open.
    wanted.allowed.append(DestinationRule(IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32)))
    guard wanted != self.wanted else { return }
    self.wanted = wanted
    destinations.current = reach.value(wanted, checksQUIC: checksQUIC, names)
    for worker in workers { worker.change() }
  }

  /// Sets up what the enclave asks for, or throws where it is not what it was.
  public func configure(_ request: PacketsRequest) throws {
    try configure(
      Shape(address4: request.address4, address6: request.address6, mtu: request.mtu, queues: request.queues))
  }

  /// Takes a stream whose hello has been read: answers it, and gives it to its queue.
  /// - Throws: where it must be refused; nothing has been answered then.
  public func serve(_ stream: FileReference, _ request: PacketsRequest, answer: (PacketsAnswer) -> Void) throws {
    try startWorkers()
    guard workers.indices.contains(Int(request.queue)) else {
      throw RawGatewayError(sentence: "there is no such queue")
    }
    // What the enclave's kernel cannot take, ours must not leave undone; the setting is the whole device's.
    if let control = queues.first {
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
    queues = []
    nameServerSockets = nil
    access.close()
  }

  public func handOver() -> PrivilegedPart { access.handOver() }

}

/// Why raw mode cannot be had.
public struct RawGatewayError: Error, CustomStringConvertible {
  public var sentence: String
  public var description: String { sentence }
}
