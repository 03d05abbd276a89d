import EventLoop
import Inet
import LinuxSystem
import Packets
import Policy
import Relaying
import Wire

// Theory of operation.
//
//   the host's message about a client ▶ policy ▶ `ArrivalTable` ▶ its datagrams:
//     ▶ packets from the client's own address, on the interface ▶ the program's socket ▶ its answer is a packet to the client,
//       which `DatagramRelay` shows here first ▶ message
//     ▶ or, where the program is at loopback alone or there is no interface, over a socket at loopback, one for each client
//
// The host says when a client has gone. It refuses clients while no program takes datagrams: `ListeningWatch` looks, and looks
// at once when the kernel has answered "port unreachable".

/// Carries datagrams of clients of published ports to the program, TCP mode.
final class ArrivalRelay {
  private let loop: EventLoop
  private let channel: DatagramChannel
  /// nil where the kernel has no TUN device.
  private let link: PacketLink?
  private let policy: Policy
  private var table: ArrivalTable
  private var sockets: [UInt32: LoopbackClient] = [:]
  private var reach: [UInt16: DatagramReach] = [:]
  private var told: Set<UInt16>?
  /// The host publishes ports, and wants to know who takes datagrams.
  private(set) var isPublishing = false
  /// A look at who takes datagrams is due.
  var look: () -> Void = {}
  fileprivate let packet = UnsafeMutableRawBufferPointer.allocate(byteCount: PacketGuard.frameLimit, alignment: 16)

  init(_ channel: DatagramChannel, _ link: PacketLink?, _ policy: Policy, loop: EventLoop) {
    self.channel = channel
    self.link = link
    self.policy = policy
    self.loop = loop
    table = ArrivalTable(prefix6: link?.prefix6 ?? AgreedAddresses.packets6)
    channel.arrived = { [unowned self] message throws(WireError) in try received(message) }
    channel.isPublishing = { [unowned self] in
      isPublishing = true
      told = nil
      look()
    }
    channel.ended = { [unowned self] in
      isPublishing = false
      table.removeAll()
      for socket in sockets.values { socket.close() }
      sockets = [:]
    }
  }

  deinit { packet.deallocate() }

  /// The enclave's own addresses, at which clients are seen with theirs.
  var addresses: [IPAddress] {
    link.map { [$0.address(like: .v4(.any)), $0.address(like: .v6(.any))] } ?? []
  }

  /// - Returns: whether it is something else than before.
  func found(_ reach: [UInt16: DatagramReach]) -> Bool {
    self.reach = reach
    let ports = Set(reach.keys)
    guard isPublishing, ports != told else { return false }
    told = ports
    channel.send(DatagramMessage.listening(ports).encoded())
    return true
  }

  // MARK: from the host

  private func received(_ message: DatagramMessage) throws(WireError) {
    switch message {
    case .arrival(let number, let arrival): open(number, arrival)
    case .datagram(let number, _, let payload):
      // An end and a message of the host may cross each other.
      guard let client = table[number] else { return }
      payload.withUnsafeBytes { bytes in
        if let socket = sockets[number] { return socket.send(bytes) }
        guard let link else { return }
        let own = IPEndpoint(link.address(like: client.shown.address), client.port)
        let length = DatagramPacket.udp(from: client.shown, to: own, bytes, into: packet)
        link.write(UnsafeRawBufferPointer(rebasing: packet[..<length]))
      }
    case .failed(let number, let status, let mtu):
      if let client = table[number], sockets[number] == nil {
        link?.tell(.udp, of: client.port, to: client.shown, status, mtu: mtu)
      }
    case .close(let number): close(number)
    case .open, .listening: throw .badValue(what: "kind of datagrams message")
    }
  }

  private func open(_ number: UInt32, _ arrival: DatagramArrival) {
    close(number)
    guard case .allow = policy.ingress(port: arrival.port),
      let client = table.open(number, port: arrival.port, client: arrival.client)
    else { return end(number) }
    guard let loopback = loopback(for: client) else { return }
    do throws(SystemError) {
      sockets[number] = try LoopbackClient(number, IPEndpoint(loopback, client.port), loop: loop, relay: self)
    } catch {
      end(number)
    }
  }

  /// nil: the program is reached with the client's own address.
  private func loopback(for client: ArrivalTable.Client) -> IPAddress? {
    let found = reach[client.port] ?? []
    let is4 = client.shown.address.bitCount == 32
    // One that nobody has found yet: the kernel will tell.
    if link != nil, found.isEmpty || found.contains(is4 ? .own4 : .own6) { return nil }
    let hasFour = found.isEmpty || found.contains(.loopback4)
    let hasSix = found.contains(.loopback6)
    return is4 ? hasFour || !hasSix ? .v4(.loopback) : .v6(.loopback) : hasSix ? .v6(.loopback) : .v4(.loopback)
  }

  private func close(_ number: UInt32) {
    table.close(number)
    sockets.removeValue(forKey: number)?.close()
  }

  private func end(_ number: UInt32) {
    close(number)
    channel.send(DatagramMessage.close(number).encoded())
  }

  // MARK: from the program

  /// - Returns: false where the packet is no answer to a client.
  func take(_ frame: UnsafeRawBufferPointer, _ packet: FlowPacket, mayFragment: Bool) -> Bool {
    guard !table.isEmpty else { return false }
    switch packet.kind {
    case .udp:
      let shown = IPEndpoint(packet.remote, packet.remotePort)
      guard let number = table.number(port: packet.localPort, shown: shown) else { return false }
      if packet.isWholeDatagram(frame) { channel.send(number, packet, frame, mayFragment: mayFragment) }
      return true
    case .icmpError:
      guard let quoted = FlowPacket(quotedIn: packet, frame), quoted.kind == .udp,
        table.number(port: quoted.localPort, shown: IPEndpoint(quoted.remote, quoted.remotePort)) != nil
      else { return false }
      look()
      return true
    case .tcp, .echo, .echoReply, .icmp, .fragment, .other: return false
    }
  }

  fileprivate func answered(_ number: UInt32, _ payload: UnsafeRawBufferPointer) {
    channel.send(DatagramMessage.encode(number, mayFragment: true, payload))
  }

  fileprivate func refused() { look() }
}

/// A client whose datagrams come to the program from a port at loopback.
private final class LoopbackClient: EventSource {
  /// Datagrams before others have their turn.
  private static let turn = 32

  private let number: UInt32
  private let socket: FlowSocket
  private let loop: EventLoop
  private unowned let relay: ArrivalRelay
  private var registration: Registration?

  init(_ number: UInt32, _ program: IPEndpoint, loop: EventLoop, relay: ArrivalRelay) throws(SystemError) {
    self.number = number
    self.loop = loop
    self.relay = relay
    socket = try FlowSocket.datagrams(program)
    super.init()
    registration = try loop.add(socket.file.rawValue, [.readable], self)
  }

  func close() {
    if let registration { loop.remove(registration) }
    registration = nil
  }

  func send(_ bytes: UnsafeRawBufferPointer) {
    guard case .failed = sendDatagram(socket.file.rawValue, bytes) else { return }
    readErrors()
    // An error of an earlier one is given to a send in place of its own outcome (ip(7)).
    _ = sendDatagram(socket.file.rawValue, bytes)
  }

  override func ready(_ events: EventSet, tag: Int) {
    if events.contains(.error) { readErrors() }
    for _ in 0..<Self.turn where registration != nil {
      switch readBytes(socket.file.rawValue, relay.packet) {
      case .bytes(let count): relay.answered(number, UnsafeRawBufferPointer(rebasing: relay.packet[..<count]))
      case .wouldBlock: return
      case .failed: return readErrors()
      }
    }
  }

  private func readErrors() {
    var any = false
    while let (code, _) = socket.nextError() { any = any || code != 0 }
    if any { relay.refused() }
  }
}
