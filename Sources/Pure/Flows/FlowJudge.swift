import Inet
import Packets
import Policy
import QUIC
import TLS

// Theory of operation.
//
// Where there are rules, a packet can be judged only in the moment in which its flow begins: later the address may be another
// name's, and what is open goes on. So the first packet is judged, by its address and by the names for which the
// address was the answer, and its flow remembered (`FlowTable`):
//
//   leaving   SYN, first datagram, echo ▶ destination allowed? ▶ open, or refused at once
//             another packet of an open flow ▶ passes
//             a segment of no open flow ▶ judged as if it began one: the proxy may have been started again
//   entering  to a published port ▶ open, so that the program's answers pass; of the others nothing opens
//
// To ports of `sni` a connection is not open before its client's first bytes have been judged (`HelloReassembly`).
//
// Datagrams of QUIC's clients are looked at before their flow is open, and those that may begin a connection whenever they come
// (`QUICGate`).
//
// Nothing leaves that belongs to no flow and could carry data: TCP in fragments, ICMP's answers to what nobody asked.

/// Decides about flows, for all queues of an enclave.
public struct FlowJudge {
  public typealias Names = (IPAddress) -> [DomainName]

  /// Who may be asked for names by packets, besides what the rules say.
  public enum Queries: Sendable {
    case anybody
    /// Queries are turned to a forwarder before they are packets.
    case nobody
    case only(IPAddress)
  }

  /// How long a client may take for its hello, in seconds.
  static let helloTime: UInt32 = 10
  /// Connections of which the hello is awaited.
  private static let helloLimit = 1024
  /// Bytes of them all together.
  private static let helloBytesLimit = 8 << 20

  private struct Hello {
    var bytes: HelloReassembly
    /// When the connection began, these were the address's.
    var names: [DomainName]
    var destination: IPEndpoint
    /// The headers of the program's last segment.
    var last: [UInt8]
  }

  private var policy: Policy
  private let sni: SNISettings
  private let queries: Queries
  /// Which packets for the program `entering` has to see.
  public let watch: FlowWatch
  private var table: FlowTable
  private var hellos: [UInt64: Hello] = [:]
  private var helloBytes = 0
  /// nil where datagrams to port 443 are as all others.
  private var quic: QUICGate?
  /// What is new of what is used; nil where nobody asks.
  private var uses: FlowUses?

  /// - Parameters:
  ///   - published: TCP ports of the program that others may connect to.
  ///   - publishedDatagrams: UDP ports, as far as they are known.
  ///   - reportsUse: `takeUses` tells of destinations that are used.
  public init(
    _ destinations: Destinations, sni: SNISettings = SNISettings(), queries: Queries, published: [UInt16],
    publishedDatagrams: [UInt16] = [], reportsUse: Bool = false, limit: Int = 1 << 16
  ) {
    if reportsUse { uses = FlowUses() }
    self.queries = queries
    policy = Policy(destinations: destinations)
    self.sni = sni
    watch = FlowWatch(
      inspected: sni.check == .off ? [] : sni.ports, published: published, publishedDatagrams: publishedDatagrams,
      checksQUIC: sni.checksQUIC)
    if sni.checksQUIC { quic = QUICGate() }
    table = FlowTable(limit: limit)
  }

  /// From here on flows may go to these; what is open stays so.
  public mutating func change(_ destinations: Destinations) { policy.destinations = destinations }

  public var openFlows: Int { table.count }

  /// Sentences about destinations that are used for the first time since the last call.
  public mutating func takeUses() -> [String] { uses?.take() ?? [] }

  /// A flow of the program is open from here on.
  /// - Parameter name: that the client has asked its server for.
  private mutating func use(
    _ packet: FlowPacket, _ transport: FlowTransport, naming name: DomainName? = nil, _ names: [DomainName]
  ) {
    uses?.note(IPEndpoint(packet.remote, packet.remotePort), transport, naming: name, names, policy)
  }

  // MARK: leaving

  /// A packet of the program.
  /// - Parameters:
  ///   - frame: whole.
  ///   - now: seconds of a clock that never goes back.
  ///   - names: for which an address is the answer.
  public mutating func leaving(
    _ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, now: UInt32, _ names: Names
  ) -> FlowVerdict {
    switch packet.kind {
    case .tcp:
      // Nobody's kernel makes any of what it has made for a path; together they could be what no single one shows.
      if packet.isFragment { return .drop }
      return packet.opens
        ? opening(packet, mark, frame, now, names) : segment(packet, mark, frame, now, names)
    case .udp:
      if quic != nil, packet.remotePort == FlowWatch.quicPort { return quic(packet, mark, frame, now, names) }
      if table.use(mark, now: now) { return .open }
      return datagram(packet, mark, now, names)
    case .echo:
      if table.use(mark, now: now) { return .open }
      let found = names(packet.remote)
      if let denial = denial(of: packet, .icmp, found) { return .refuse(denial) }
      table.open(mark, .echo, now: now)
      use(packet, .icmp, found)
      return .open
    case .echoReply:
      return table.use(mark, now: now) ? .pass : unasked(packet, names)
    case .icmpError:
      // To the other end of what it quotes, and to nobody else: a quotation has room for data.
      if let about = FlowPacket(quotedIn: packet, frame), about.remote == packet.remote,
        table.isOpen(about.mark, now: now)
      {
        return .pass
      }
      return unasked(packet, names)
    case .icmp: return denial(of: packet, .icmp, names(packet.remote)).map { .refuse($0) } ?? .pass
    case .fragment where packet.number == 6: return .drop
    case .fragment: return denial(of: packet, .udp, names(packet.remote)).map { .refuse($0) } ?? .pass
    case .other: return denial(of: packet, .other, names(packet.remote)).map { .refuse($0) } ?? .pass
    }
  }

  private func denial(of packet: FlowPacket, _ transport: FlowTransport, _ names: [DomainName]) -> FlowDenial? {
    let hasPort = packet.kind == .tcp || packet.kind == .udp
    if hasPort, packet.remotePort == 53, !mayBeAsked(packet.remote) {
      return refusal(packet, transport, names.first, "rules by name need queries to go to Tombolo's own name server")
    }
    return policy.destinations.denial(
      of: packet.remote, port: hasPort ? packet.remotePort : nil, transport, names: names
    ).map {
      FlowDenial(
        destination: packet.remote, port: packet.remotePort, transport: hasPort ? transport : .other,
        name: names.first, reason: .destination($0))
    }
  }

  private func mayBeAsked(_ server: IPAddress) -> Bool {
    switch queries {
    case .anybody: true
    case .nobody: false
    case .only(let known): server.unmapped == known
    }
  }

  private func refusal(
    _ packet: FlowPacket, _ transport: FlowTransport, _ name: DomainName?, _ reason: String
  ) -> FlowDenial {
    FlowDenial(
      destination: packet.remote, port: packet.remotePort, transport: transport, name: name, reason: .other(reason))
  }

  /// An answer to what nobody has asked, to where the program may go anyway.
  private func unasked(_ packet: FlowPacket, _ names: Names) -> FlowVerdict {
    denial(of: packet, .icmp, names(packet.remote)) == nil ? .pass : .drop
  }

  // MARK: datagrams

  private mutating func datagram(
    _ packet: FlowPacket, _ mark: UInt64, _ now: UInt32, _ names: Names
  ) -> FlowVerdict {
    let found = names(packet.remote)
    if let denial = denial(of: packet, .udp, found) { return .refuse(denial) }
    table.open(mark, .datagrams, now: now)
    use(packet, .udp, found)
    return .open
  }

  private mutating func quic(
    _ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, _ now: UInt32, _ names: Names
  ) -> FlowVerdict {
    let found = names(packet.remote)
    if !table.use(mark, now: now), let denial = denial(of: packet, .udp, found) { return .refuse(denial) }
    guard packet.isWholeDatagram(frame) else {
      return .refuse(refusal(packet, .udp, found.first, "a datagram in pieces (egress.quic)"))
    }
    let endpoint = IPEndpoint(packet.remote, packet.remotePort)
    let policy = policy
    let requires = sni.check == .require
    var asked: DomainName?
    let verdict = quic?.judge(
      UnsafeRawBufferPointer(rebasing: frame[packet.payload]), each: packet.segmentSize > 0 ? packet.segmentSize : nil,
      frame: frame, to: endpoint, now: now
    ) { name in
      asked = name
      guard case .deny(let reason) = policy.egress(to: endpoint, .udp, naming: name, names: found, requires: requires)
      else { return nil }
      return reason
    }
    switch verdict {
    case .pass(let held):
      table.open(mark, .datagrams, now: now)
      if let asked { use(packet, .udp, naming: asked, found) }
      return held.isEmpty ? .open : .release(held)
    case .hold, .drop, nil: return .drop
    case .deny(let reason): return .refuse(refusal(packet, .udp, asked ?? found.first, "\(reason) (egress.quic)"))
    }
  }

  // MARK: connections

  private mutating func opening(
    _ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, _ now: UInt32, _ names: Names
  ) -> FlowVerdict {
    let found = names(packet.remote)
    if let denial = denial(of: packet, .tcp, found) { return .refuse(denial) }
    guard watch.inspected.contains(packet.remotePort) else {
      if !table.isOpen(mark, now: now) { table.open(mark, .half, now: now) }
      use(packet, .tcp, found)
      return .pass
    }
    // Data in a SYN (RFC 7413) is not looked at. Without an answer, the client sends it again without.
    guard packet.payload.isEmpty else { return .drop }
    if let known = hellos[mark], known.bytes.initial == packet.sequence { return .pass }
    forget(mark)
    guard makeRoom(now) else { return .drop }
    hellos[mark] = Hello(
      bytes: HelloReassembly(initial: packet.sequence, since: now), names: found,
      destination: IPEndpoint(packet.remote, packet.remotePort), last: Array(frame[..<packet.payload.lowerBound]))
    table.open(mark, .half, now: now)
    return .pass
  }

  private mutating func segment(
    _ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, _ now: UInt32, _ names: Names
  ) -> FlowVerdict {
    guard table.use(mark, now: now) else { return stray(packet, mark, now, names) }
    table.note(ends: packet.isEnd, resets: packet.isReset, isLeaving: true, mark)
    guard hellos[mark] != nil else { return mayBeRemembered(packet) ? .open : .pass }
    if packet.isReset {
      forget(mark)
      return packet.payload.isEmpty ? .pass : .drop
    }
    return inspect(packet, mark, frame, now)
  }

  /// Whether a queue may let what follows of the flow pass unseen for a moment. Not where hellos are looked at: the next
  /// connection may have the same ports.
  private func mayBeRemembered(_ packet: FlowPacket) -> Bool {
    packet.isPlain && !watch.inspected.contains(packet.remotePort)
  }

  /// A segment of a connection of which nothing is known.
  private mutating func stray(_ packet: FlowPacket, _ mark: UInt64, _ now: UInt32, _ names: Names) -> FlowVerdict {
    let found = names(packet.remote)
    if let denial = denial(of: packet, .tcp, found) { return packet.isReset ? .drop : .refuse(denial) }
    // A kernel's answer to a segment for a connection that is over.
    if packet.isReset { return packet.payload.isEmpty ? .pass : .drop }
    if watch.inspected.contains(packet.remotePort) {
      return .refuse(
        refusal(packet, .tcp, found.first, "its beginning was not seen, where a client names its server (egress.sni)"))
    }
    table.open(mark, .connection, now: now)
    use(packet, .tcp, found)
    return .pass
  }

  private mutating func inspect(
    _ packet: FlowPacket, _ mark: UInt64, _ frame: UnsafeRawBufferPointer, _ now: UInt32
  ) -> FlowVerdict {
    guard var hello = hellos.removeValue(forKey: mark) else { return .pass }
    helloBytes -= hello.bytes.bytes.count
    let expected = hello.bytes.expected
    func ended(_ name: DomainName?, _ reason: String) -> FlowVerdict {
      table.close(mark)
      return .end(refusal(packet, .tcp, name ?? hello.names.first, reason), sequence: expected)
    }
    if hello.bytes.isAwaited, now &- hello.bytes.since > Self.helloTime { return ended(nil, Self.noHello) }
    if packet.acknowledges { hello.last = Array(frame[..<packet.payload.lowerBound]) }
    let step = hello.bytes.take(
      packet.sequence, UnsafeRawBufferPointer(rebasing: frame[packet.payload]), isUrgent: packet.isUrgent,
      isLast: packet.isEnd)
    let verdict: FlowVerdict
    switch step {
    case .pass: verdict = .pass
    case .hold: verdict = .drop
    case .changed: return ended(nil, "bytes of its ClientHello came again as others (egress.sni)")
    case .judge(let reading):
      let name: DomainName?
      switch reading {
      case .hello(let found): name = found.serverName
      case .notTLS: name = nil
      case .malformed(let reason): return ended(nil, "a ClientHello that \(reason)")
      case .incomplete: return ended(nil, Self.noHello)
      }
      let endpoint = IPEndpoint(packet.remote, packet.remotePort)
      if case .deny(let reason) = policy.egress(
        to: endpoint, naming: name, names: hello.names, requires: sni.check == .require)
      {
        return ended(name, reason)
      }
      hello.bytes.accept()
      use(packet, .tcp, naming: name, hello.names)
      verdict = .pass
    }
    hellos[mark] = hello
    helloBytes += hello.bytes.bytes.count
    return verdict
  }

  private mutating func forget(_ mark: UInt64) {
    if let hello = hellos.removeValue(forKey: mark) { helloBytes -= hello.bytes.bytes.count }
  }

  /// Whether one more hello may be awaited. Those that nobody waits for any more go first; their connections with them.
  private mutating func makeRoom(_ now: UInt32) -> Bool {
    func isFull() -> Bool { hellos.count >= Self.helloLimit || helloBytes >= Self.helloBytesLimit }
    guard isFull() else { return true }
    for (mark, hello) in hellos where now &- hello.bytes.since > Self.helloTime {
      forget(mark)
      table.close(mark)
    }
    return !isFull()
  }

  private static let noHello = "no whole ClientHello came (egress.sni)"

  /// Connections whose client has had its time for a hello. They are open no more, and both ends are to be told.
  /// - Returns: for each the headers of the program's last segment and the verdict on it; and whether others are awaited.
  public mutating func overdue(now: UInt32) -> (ended: [(headers: [UInt8], verdict: FlowVerdict)], isWaiting: Bool) {
    var ended: [(headers: [UInt8], verdict: FlowVerdict)] = []
    var isWaiting = false
    for (mark, hello) in hellos where hello.bytes.isAwaited {
      guard now &- hello.bytes.since > Self.helloTime else {
        isWaiting = true
        continue
      }
      forget(mark)
      table.close(mark)
      let denial = FlowDenial(
        destination: hello.destination.address, port: hello.destination.port, transport: .tcp, name: hello.names.first,
        reason: .other(Self.noHello))
      ended.append((hello.last, .end(denial, sequence: hello.bytes.expected)))
    }
    return (ended, isWaiting)
  }

  // MARK: entering

  /// A packet for the program, which has passed `PacketGuard`.
  /// - Returns: whether what is plain of its flow need not be shown for a moment.
  public mutating func entering(_ packet: FlowPacket, _ mark: UInt64, now: UInt32) -> Bool {
    switch packet.kind {
    case .tcp: break
    case .udp:
      if table.use(mark, now: now) { return true }
      guard watch.publishedDatagrams.contains(packet.localPort) else { return false }
      table.open(mark, .datagrams, now: now)
      return true
    case .echo:
      // The answer to it may leave.
      if let answer = packet.answerMark { table.open(answer, .echo, now: now) }
      return false
    case .echoReply, .icmpError, .icmp, .fragment, .other: return false
    }
    if !table.use(mark, now: now) {
      guard watch.published.contains(packet.localPort) else { return false }
      // What a server sends that still knows of a connection which the program has left opens none.
      guard packet.opens || !watch.inspected.contains(packet.remotePort) else { return false }
      table.open(mark, .connection, now: now)
    }
    table.note(ends: packet.isEnd, resets: packet.isReset, isLeaving: false, mark)
    guard var hello = hellos[mark] else { return mayBeRemembered(packet) }
    if packet.isAnswerToSYN {
      hello.bytes.answered(packet.acknowledgement, now: now)
      hellos[mark] = hello
    } else if packet.acknowledges, hello.bytes.isOver(acknowledged: packet.acknowledgement) {
      forget(mark)
    }
    return false
  }
}

/// Which packets for the program tell something of flows; the rest need not be shown.
public struct FlowWatch: Sendable {
  /// Where HTTP/3 is, and all else that QUIC is used for.
  static let quicPort: UInt16 = 443

  /// TCP ports of others at which a client's first bytes are looked at.
  let inspected: PortSet
  /// TCP ports of the program that others may connect to.
  let published: PortSet
  /// The same for UDP.
  let publishedDatagrams: PortSet
  private let checksQUIC: Bool

  init(inspected: [UInt16], published: [UInt16], publishedDatagrams: [UInt16], checksQUIC: Bool) {
    self.inspected = PortSet(inspected)
    self.published = PortSet(published)
    self.publishedDatagrams = PortSet(publishedDatagrams)
    self.checksQUIC = checksQUIC
  }

  /// Whether more than the headers of one of the program's datagrams is looked at.
  public func reads(_ packet: FlowPacket) -> Bool {
    checksQUIC && packet.kind == .udp && packet.remotePort == Self.quicPort
  }

  /// Whether a packet for the program is one behind which a hello is awaited.
  public func beginsHello(_ packet: FlowPacket) -> Bool {
    packet.isAnswerToSYN && inspected.contains(packet.remotePort)
  }

  /// Whether a packet of an open flow may begin a connection in it, so that it has to be judged all the same: one of QUIC with
  /// a long header (RFC 9000 section 17.2).
  public func mayBegin(_ packet: FlowPacket, _ frame: UnsafeRawBufferPointer) -> Bool {
    guard reads(packet) else { return false }
    return packet.isFragment || packet.datagrams.contains { !$0.isEmpty && frame[$0.lowerBound] & 0x80 != 0 }
  }

  public func isWanted(_ packet: FlowPacket) -> Bool {
    switch packet.kind {
    case .tcp: !packet.isPlain || inspected.contains(packet.remotePort) || published.contains(packet.localPort)
    case .udp, .echo: true
    case .echoReply, .icmpError, .icmp, .fragment, .other: false
    }
  }
}
