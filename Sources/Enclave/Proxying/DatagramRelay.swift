import EventLoop
import Flows
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Packets
import Policy
import Relaying
import Wire

// Theory of operation.
//
//   packet ▶ fragments put together ▶ `FlowGate`: policy, QUIC's client hellos ▶ refused with ICMP, or
//          ▶ its flow, or a new one ▶ message on the one stream to the host ▶ the host's socket
//   message ▶ its flow ▶ packet: a datagram, an echo reply, or ICMP's error about the flow ▶ the enclave's kernel
//
// One stream (`DatagramChannel`) carries all flows, so that a flow's datagrams stay in order, and a flow costs no connection. The
// host says when a flow ends; what the program sends then begins a new one. When the stream is lost, all flows end. What the
// program answers to clients of its published ports is no flow of its own (`ArrivalRelay`).

/// Carries the program's datagrams and echo requests to the host, TCP mode.
final class DatagramRelay: PacketEngine {
  private struct Key: Hashable {
    var kind: DatagramFlow.Kind
    var remote: IPEndpoint
    /// A port, or an echo's identifier.
    var local: UInt16
  }

  /// More than any program has; each costs some 200 bytes.
  private static let flowLimit = 16384
  /// After a failure, for as long everything is answered "unreachable" at once, in nanoseconds.
  private static let pause: UInt64 = 1_000_000_000

  private unowned let link: PacketLink
  private let channel: DatagramChannel
  private let arrivals: ArrivalRelay?
  private let gate: FlowGate
  private let policy: Policy
  private let names: Locked<NameService>
  private let log: (String) -> Void
  /// Told of each new flow that is allowed: its destination, and the name that it is for.
  var onUse: ((IPEndpoint, FlowTransport, DomainName?) -> Void)?
  private var denials = DenialBudget()
  private var complaints = DenialBudget()
  private var assembly = FragmentAssembly()
  private var flows: [Key: UInt32] = [:]
  private var keys: [UInt32: Key] = [:]
  private var nextFlow: UInt32 = 0
  private var failed: UInt64?
  /// No flow begins any more.
  var isDraining = false
  private let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
  private let refusal = UnsafeMutableRawBufferPointer.allocate(byteCount: Refusal.frameLimit, alignment: 16)

  init(
    _ plan: ProxyPlan, _ names: Locked<NameService>, _ link: PacketLink, _ channel: DatagramChannel,
    _ arrivals: ArrivalRelay?, log: @escaping (String) -> Void
  ) {
    self.link = link
    self.channel = channel
    self.arrivals = arrivals
    self.names = names
    self.log = log
    let destinations = Destinations(plan.settings.egress)
    policy = Policy(destinations: destinations)
    // Queries are turned to the forwarder.
    let judge = FlowJudge(destinations, sni: plan.settings.sni, queries: .nobody, published: [])
    gate = FlowGate(
      SharedFlows(judge) { address in names.with { $0.names(of: address, now: monotonicNanoseconds() / 1_000_000_000) }
      })
    gate.tick()
    channel.received = { [unowned self] message throws(WireError) in try received(message) }
    channel.lost = { [unowned self] in lost($0, hadWaiting: $1) }
  }

  deinit {
    packet.deallocate()
    refusal.deallocate()
  }

  // MARK: from the program

  func settle() { gate.tick() }

  func take(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket) {
    guard packet.isFragment else {
      // Of IPv4 by its flag (RFC 791); IPv6 is never cut on its way.
      let start = PacketGuard.offloadHeaderLength
      return judge(frame, packet, mayFragment: frame[start] >> 4 == 4 && frame[start + 6] & 0x40 == 0)
    }
    assembly.add(frame)?.withUnsafeBytes { whole in
      if let packet = FlowPacket(whole, isLeaving: true), !packet.isFragment { judge(whole, packet, mayFragment: true) }
    }
  }

  private func judge(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket, mayFragment: Bool) {
    if let arrivals, arrivals.take(frame, packet, mayFragment: mayFragment) { return }
    switch gate.leaving(frame) {
    case .open, .pass: carry(frame, packet, mayFragment: mayFragment)
    case .release(let held):
      for earlier in held {
        earlier.withUnsafeBytes { bytes in
          if let packet = FlowPacket(bytes, isLeaving: true) { carry(bytes, packet, mayFragment: mayFragment) }
        }
      }
      carry(frame, packet, mayFragment: mayFragment)
    case .drop: break
    case .refuse(let denial), .end(let denial, _):
      if denial.isWorthALine, let more = denials.admit(at: monotonicNanoseconds()) {
        log("packets to \(denial)\(more)")
      }
      refuse(frame)
    }
  }

  private func refuse(_ frame: UnsafeRawBufferPointer) {
    guard let place = refusal.baseAddress else { return }
    let length = Refusal.answer(to: frame, copied: frame.count, place)
    link.write(UnsafeRawBufferPointer(rebasing: refusal[..<length]))
  }

  private func carry(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket, mayFragment: Bool) {
    let kind: DatagramFlow.Kind
    switch packet.kind {
    case .udp:
      guard packet.isWholeDatagram(frame), packet.remotePort != 0 else { return }
      kind = .udp
    case .echo: kind = .echo
    // The kernel's own answers, to flows that are over.
    case .echoReply, .icmpError: return
    case .tcp, .icmp, .fragment, .other: return refuse(frame)
    }
    let key = Key(kind: kind, remote: IPEndpoint(packet.remote, packet.remotePort), local: packet.localPort)
    if let failed {
      guard monotonicNanoseconds() &- failed > Self.pause else { return answer(key, .networkUnreachable) }
      self.failed = nil
    }
    if isDraining, flows[key] == nil { return answer(key, .refused) }
    guard let flow = flows[key] ?? open(key) else { return answer(key, .hostUnreachable) }
    guard kind == .echo else { return channel.send(flow, packet, frame, mayFragment: mayFragment) }
    // The sequence number too.
    let data = frame[(packet.payload.lowerBound - 2)..<packet.payload.upperBound]
    channel.send(DatagramMessage.encode(flow, mayFragment: mayFragment, UnsafeRawBufferPointer(rebasing: data)))
  }

  private func open(_ key: Key) -> UInt32? {
    guard flows.count < Self.flowLimit else {
      complain("there are \(flows.count) flows of datagrams, and no further one is carried")
      return nil
    }
    func advance() { nextFlow = (nextFlow &+ 1) % DatagramMessage.firstArrival }
    while keys[nextFlow] != nil { advance() }
    let flow = nextFlow
    advance()
    flows[key] = flow
    keys[flow] = key
    let transport: FlowTransport = key.kind == .udp ? .udp : .icmp
    let found = names.with { $0.names(of: key.remote.address, now: monotonicNanoseconds() / 1_000_000_000) }
    let name = policy.allowedName(at: key.remote, found, transport)
    onUse?(key.remote, transport, name)
    channel.send(DatagramMessage.open(flow, DatagramFlow(key.kind, key.remote, name: name)).encoded())
    return flow
  }

  private func forget(_ flow: UInt32) {
    if let key = keys.removeValue(forKey: flow) { flows[key] = nil }
  }

  // MARK: the stream

  /// Every flow is told, so that no program waits for answers that cannot come.
  private func lost(_ sentence: String, hadWaiting: Bool) {
    guard hadWaiting || !flows.isEmpty else { return }
    complain(sentence)
    failed = monotonicNanoseconds()
    let all = flows.keys
    flows = [:]
    keys = [:]
    for key in all { answer(key, .networkUnreachable) }
  }

  private func complain(_ sentence: String) {
    if complaints.admit(at: monotonicNanoseconds()) != nil { log("datagrams: \(sentence)") }
  }

  // MARK: to the program

  private func received(_ message: DatagramMessage) throws(WireError) {
    // An end and a message of the other side may cross each other.
    guard let key = keys[message.flow] else { return }
    switch message {
    case .datagram(_, _, let payload):
      let own = link.address(like: key.remote.address)
      let length = payload.withUnsafeBytes { bytes in
        switch key.kind {
        case .udp: DatagramPacket.udp(from: key.remote, to: IPEndpoint(own, key.local), bytes, into: packet)
        case .echo:
          bytes.count < 2
            ? 0
            : DatagramPacket.echo(
              isReply: true, from: key.remote.address, to: own, identifier: key.local, bytes, into: packet)
        }
      }
      link.write(UnsafeRawBufferPointer(rebasing: packet[..<length]))
    case .failed(_, let status, let mtu): answer(key, status, mtu: mtu)
    case .close(let flow): forget(flow)
    case .open, .listening, .arrival: throw .badValue(what: "kind of datagrams message")
    }
  }

  private func answer(_ key: Key, _ status: Status, mtu: UInt16 = 0) {
    link.tell(key.kind, of: key.local, to: key.remote, status, mtu: mtu)
  }
}
