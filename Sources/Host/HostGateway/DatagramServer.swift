import EventLoop
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Wire

// Theory of operation.
//
//   stream of a boot ▶ open: policy, budget, a socket connected to the destination ▶ datagrams out and in ▶ idle, or closed
//                    ▶ numbers from 2^31 on: clients of published ports (`PublishedDatagrams`)
//
// A flow is a socket of this process's user, so it needs no right, and the kernel keeps its port, its path's MTU and its errors
// (IP_RECVERR). A flow nobody uses for `idle` ends.

/// Flows of datagrams of the program, and its pings.
final class DatagramServer: ChannelServer {
  private let loop: EventLoop
  private let policy: HostPolicy
  private let counters: HostCounters
  private let budget: Budget
  private let complaints: ComplaintLog
  private let log: (String) -> Void
  /// Clients of published ports.
  fileprivate let published: PublishedDatagrams
  /// One for each boot: a newer one takes the place of an older one, whose proxy has been started again.
  private var streams: [BootID: DatagramStream] = [:]
  private var saidNoPing = false
  /// No flow begins any more.
  var isDraining = false
  fileprivate let idle: UInt64

  /// - Parameter idle: how long a flow of UDP is kept that nobody uses.
  init(
    loop: EventLoop, policy: HostPolicy, published: PublishedDatagrams, counters: HostCounters, budget: Budget,
    complaints: ComplaintLog, idle: Duration, log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.published = published
    self.idle = idle.nanoseconds / 1_000_000_000
    self.policy = policy
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.log = log
  }

  func serve(_ admitted: AdmittedStream) throws {
    admitted.answer(.ok, parameters: published.isEmpty ? [] : DatagramMessage.publishing)
    let boot = admitted.boot
    let old = streams.removeValue(forKey: boot)
    let made = try DatagramStream(admitted, loop: loop, server: self, limit: budget.limits.datagramBytes) {
      [unowned self] closed in
      if streams[boot] === closed { streams[boot] = nil }
    }
    streams[boot] = made
    old?.close()
  }

  /// A socket for a flow, or why there is none.
  fileprivate func open(_ flow: DatagramFlow, of peer: PeerKey) -> Result<(FlowSocket, Budget.Lease), FlowRefusal> {
    let transport: FlowTransport = flow.kind == .udp ? .udp : .icmp
    if case .deny(let reason) = policy.egress(to: flow.destination, transport) {
      let shown = transport == .udp ? "\(flow.destination) (UDP" : "\(flow.destination.address)"
      let name = flow.name.map { transport == .udp ? ", \($0)" : " (\($0))" } ?? ""
      let sentence = "packets to \(shown)\(name)\(transport == .udp ? ")" : "") denied: \(reason)"
      complaints.say(.deniedConnections, sentence)
      counters.denied(sentence, isHost: true)
      return .failure(FlowRefusal(status: .denied))
    }
    guard !isDraining else { return .failure(FlowRefusal(status: .refused)) }
    counters.used.add(FirstUses.Use(flow.destination, flow.name, transport))
    guard let lease = budget.lease(.flows, for: peer) else {
      budget.refused(.flows, peer)
      return .failure(FlowRefusal(status: .noResources))
    }
    do throws(SystemError) {
      let socket = try flow.kind == .udp ? FlowSocket.datagrams(flow.destination) : .echo(flow.destination.address)
      return .success((socket, lease))
    } catch {
      let status = Status(errno: error.errno)
      if flow.kind == .echo, status == .denied, !saidNoPing {
        saidNoPing = true
        log("ping is not carried: net.ipv4.ping_group_range has no group of this process: \(error)")
      } else if status == .noResources || status == .failed {
        complaints.say(.failedConnections, "packets to \(flow.destination): \(error)")
      }
      return .failure(FlowRefusal(status: flow.kind == .echo && status == .denied ? .hostUnreachable : status))
    }
  }

  fileprivate func broken(_ error: WireError) {
    complaints.say(.brokenStreams, "a datagrams stream: the enclave broke the protocol: \(error)")
  }

  fileprivate func count(fromEnclave: Int = 0, toEnclave: Int = 0) {
    counters.traffic.bytesFromEnclave &+= UInt64(fromEnclave)
    counters.traffic.bytesToEnclave &+= UInt64(toEnclave)
  }
}

private struct FlowRefusal: Error { var status: Status }

/// All flows of one enclave.
private final class DatagramStream: EventSource, ArrivalStream {
  /// How often flows are looked at that nobody uses, in seconds; more often where they are kept for less.
  private static let sweep: UInt64 = 15
  /// In seconds. An echo's answer comes soon or never.
  private static let echoIdle: UInt64 = 60

  private let loop: EventLoop
  private let peer: PeerKey
  private unowned let server: DatagramServer
  private var messages: MessageStream?
  private var flows: [UInt32: HostFlow] = [:]
  private var isSweeping = false
  fileprivate let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)

  init(
    _ admitted: AdmittedStream, loop: EventLoop, server: DatagramServer, limit: Int,
    closed: @escaping (DatagramStream) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.server = server
    peer = admitted.peer
    super.init()
    messages = try MessageStream(
      loop: loop, socket: admitted.stream, early: admitted.early, outputLimit: limit
    ) { [unowned self] stream, bytes in
      do throws(WireError) {
        try received(try DatagramMessage(bytes))
      } catch {
        self.server.broken(error)
        stream.close()
      }
    } closed: { [unowned self] _ in
      for flow in flows.values { flow.close() }
      flows = [:]
      messages = nil
      self.server.published.closed(self)
      closed(self)
    }
    server.published.opened(self)
  }

  deinit { buffer.deallocate() }

  func close() { messages?.close() }

  func send(_ message: [UInt8]) { messages?.send(message) }

  private func received(_ message: DatagramMessage) throws(WireError) {
    switch message {
    case .datagram(let number, let mayFragment, let payload) where number >= DatagramMessage.firstArrival:
      server.published.answer(number, payload, mayFragment: mayFragment)
    case .close(let number) where number >= DatagramMessage.firstArrival: server.published.ended(number)
    case .listening(let ports): server.published.listening(on: ports, from: self)
    case .open(let number, let flow):
      // A number that is used twice is the enclave's own confusion; the older flow is over then.
      flows.removeValue(forKey: number)?.close()
      open(number, flow)
    case .datagram(let number, let mayFragment, let payload):
      // What was refused, or has just ended: the enclave hears of that.
      guard let flow = flows[number] else { return }
      server.count(fromEnclave: payload.count)
      flow.send(payload, mayFragment: mayFragment)
    case .close(let number): flows.removeValue(forKey: number)?.close()
    case .failed, .arrival: throw .badValue(what: "kind of datagrams message")
    }
  }

  private func open(_ number: UInt32, _ flow: DatagramFlow) {
    switch server.open(flow, of: peer) {
    case .failure(let refusal): refuse(number, refusal.status)
    case .success((let socket, let lease)):
      do throws(SystemError) {
        flows[number] = try HostFlow(number, socket, lease, loop: loop, stream: self)
        scheduleSweep()
      } catch {
        refuse(number, .noResources)
      }
    }
  }

  private func refuse(_ number: UInt32, _ status: Status) {
    tell(number, status)
    messages?.send(DatagramMessage.close(number).encoded())
  }

  fileprivate func tell(_ number: UInt32, _ status: Status, mtu: UInt32 = 0) {
    messages?.send(DatagramMessage.failed(number, status, mtu: UInt16(clamping: mtu)).encoded())
  }

  fileprivate func deliver(_ number: UInt32, _ payload: UnsafeRawBufferPointer) {
    server.count(toEnclave: payload.count)
    messages?.send(DatagramMessage.encode(number, mayFragment: false, payload))
  }

  private func scheduleSweep() {
    guard !isSweeping else { return }
    isSweeping = true
    let pause = Int64(min(Self.sweep, max(server.idle / 4, 1)))
    loop.schedule(after: .seconds(pause), TimerSource { [weak self] in self?.sweep() })
  }

  private func sweep() {
    isSweeping = false
    let now = monotonicNanoseconds() / 1_000_000_000
    for (number, flow) in flows where now &- flow.used > (flow.isEcho ? Self.echoIdle : server.idle) {
      flow.close()
      flows[number] = nil
      messages?.send(DatagramMessage.close(number).encoded())
    }
    if !flows.isEmpty { scheduleSweep() }
  }
}

/// One flow's socket.
private final class HostFlow: EventSource {
  /// Datagrams before others have their turn.
  private static let turn = 32

  private let number: UInt32
  private let socket: FlowSocket
  private let lease: Budget.Lease
  private let loop: EventLoop
  private unowned let stream: DatagramStream
  private var registration: Registration?
  private var mayFragment: Bool?
  /// Seconds of a clock that never goes back.
  private(set) var used = monotonicNanoseconds() / 1_000_000_000

  init(
    _ number: UInt32, _ socket: FlowSocket, _ lease: Budget.Lease, loop: EventLoop, stream: DatagramStream
  ) throws(SystemError) {
    self.number = number
    self.socket = socket
    self.lease = lease
    self.loop = loop
    self.stream = stream
    super.init()
    registration = try loop.add(socket.file.rawValue, [.readable], self)
  }

  var isEcho: Bool { socket.isEcho }

  func close() {
    if let registration { loop.remove(registration) }
    registration = nil
  }

  private func touch() { used = monotonicNanoseconds() / 1_000_000_000 }

  func send(_ payload: ArraySlice<UInt8>, mayFragment: Bool) {
    touch()
    if self.mayFragment != mayFragment {
      self.mayFragment = mayFragment
      socket.setFragments(mayFragment)
    }
    guard isEcho else { return payload.withUnsafeBytes { sent(sendDatagram(socket.file.rawValue, $0), $0) } }
    guard payload.count >= 2 else { return }
    // Type, code, checksum and identifier of a request; the kernel fills in the last two (net/ipv4/ping.c).
    let message = [socket.is6 ? 128 : 8, 0, 0, 0, 0, 0] + payload
    message.withUnsafeBytes { sent(sendDatagram(socket.file.rawValue, $0), $0) }
  }

  /// An error that was waiting is given to the send in place of its own outcome (ip(7)), and the datagram goes out then.
  private func sent(_ result: IOResult, _ bytes: UnsafeRawBufferPointer) {
    guard case .failed(let code) = result else { return }
    if !readErrors() { report(code, 0) }
    // One's own answer to "too long" is final.
    guard !Status(errno: code).isFinal else { return }
    if case .failed(let again) = sendDatagram(socket.file.rawValue, bytes) {
      if !readErrors() { report(again, 0) }
    }
  }

  override func ready(_ events: EventSet, tag: Int) {
    if events.contains(.error) { readErrors() }
    // What is delivered may end the stream, and this flow with it.
    for _ in 0..<Self.turn where registration != nil {
      switch readBytes(socket.file.rawValue, stream.buffer) {
      case .bytes(let count):
        touch()
        let bytes = UnsafeRawBufferPointer(rebasing: stream.buffer[..<count])
        guard isEcho else {
          stream.deliver(number, bytes)
          continue
        }
        // ICMP's echo reply, ICMPv6's.
        guard count >= 8, bytes[0] == (socket.is6 ? 129 : 0) else { continue }
        stream.deliver(number, UnsafeRawBufferPointer(rebasing: bytes[6...]))
      case .wouldBlock: return
      case .failed(let code):
        if !readErrors() { return report(code, 0) }
      }
    }
  }

  /// - Returns: whether there was any.
  @discardableResult
  private func readErrors() -> Bool {
    var any = false
    while let (code, mtu) = socket.nextError() {
      any = true
      if code != 0 { report(code, mtu) }
    }
    return any
  }

  private func report(_ code: Int32, _ mtu: UInt32) {
    guard code == FlowSocket.tooLong else { return stream.tell(number, Status(errno: code)) }
    stream.tell(number, .failed, mtu: mtu > 0 ? mtu : socket.pathMTU)
  }
}

extension Status {
  /// Whether sending once more would not help.
  fileprivate var isFinal: Bool { self == .failed || self == .denied || self == .noResources }
}
