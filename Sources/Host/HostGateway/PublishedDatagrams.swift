import EventLoop
import HostStatus
import Inet
import LinuxSystem
import Relaying
import Wire

// Theory of operation.
//
//   datagram of a client ▶ its flow, or a new one, by socket, address and port ▶ message to the enclave
//   the enclave's answer ▶ its flow ▶ from the address and port that the client has sent to
//
// One socket takes the datagrams of all clients of a port, so a flow costs no descriptor, and no order is lost. There is room for
// `limit` flows: whoever sends from forged addresses makes those end that were used least lately, first those that the program
// has not answered. That loses nothing: the next datagram of the same client begins another one, and the program sees the same
// address and port. A datagram makes no more than one, so nothing here makes an attack on somebody else larger.

/// Where the flows of clients go.
protocol ArrivalStream: AnyObject {
  func send(_ message: [UInt8])
}

/// Clients of published UDP ports, TCP mode.
final class PublishedDatagrams {
  private static let limit = 8192
  /// How many go when there are too many: so one datagram never costs a look at all of them.
  private static let crowd = 1024
  private static let sweep: Duration = .seconds(15)
  /// RFC 4787 section 4.3 has at least 2 minutes, better 5, in seconds.
  private static let idle: UInt64 = 300
  private static let unansweredIdle: UInt64 = 120
  /// How long what the enclave said last holds when it has gone: the proxy inside starts again in that time.
  private static let grace: Duration = .seconds(1)

  private struct Client: Hashable {
    var port: Int
    var endpoint: IPEndpoint
  }

  private struct Flow {
    var client: Client
    var peer: DatagramPeer
    /// Seconds of a clock that never goes back.
    var used: UInt64
    var isAnswered = false
  }

  private let loop: EventLoop
  private let counters: HostCounters
  private var ports: [PublishedSocket] = []
  private weak var stream: (any ArrivalStream)?
  private var flows: [UInt32: Flow] = [:]
  private var numbers: [Client: UInt32] = [:]
  private var next = DatagramMessage.firstArrival
  private var isSweeping = false
  private var isDraining = false

  /// - Parameters:
  ///   - published: sockets of `PublishedPort.open`, those of UDP; with their places among all that are published.
  init(
    loop: EventLoop, published: [(socket: FileReference, port: PublishedPort, place: Int)],
    inherited: InheritedSockets, counters: HostCounters,
    log: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.counters = counters
    let room = DatagramRoom()
    for (index, one) in published.enumerated() {
      ports.append(
        try PublishedSocket(
          loop: loop, one.socket, one.port, place: one.place, room: room,
          isShared: inherited.contains(one.socket), report: log
        ) { [unowned self] in
          received($0, index, $1)
        } failed: { [unowned self] in
          failed($0, $1, mtu: $2, index)
        })
    }
  }

  var isEmpty: Bool { ports.isEmpty }

  // MARK: the enclave

  /// The enclave has a stream, which takes the place of an older one.
  func opened(_ stream: any ArrivalStream) {
    self.stream = stream
    flows = [:]
    numbers = [:]
  }

  func closed(_ stream: any ArrivalStream) {
    guard self.stream === stream else { return }
    self.stream = nil
    flows = [:]
    numbers = [:]
    loop.schedule(
      after: Self.grace, TimerSource { [weak self] in if let self, self.stream == nil { listen(on: []) } })
  }

  func listening(on enclavePorts: Set<UInt16>, from stream: any ArrivalStream) {
    if self.stream === stream { listen(on: enclavePorts) }
  }

  /// Refuses clients from now on. Answers to what has come go out still.
  func drain() {
    for port in ports { port.end() }
    isDraining = true
  }

  private func listen(on enclavePorts: Set<UInt16>) {
    guard !isDraining else { return }
    for port in ports { port.setAccepting(enclavePorts.contains(port.published.enclavePort)) }
  }

  /// The program has answered.
  func answer(_ number: UInt32, _ payload: ArraySlice<UInt8>, mayFragment: Bool) {
    // Its end is on the way.
    guard var flow = flows[number] else { return }
    flow.used = Self.seconds()
    flow.isAnswered = true
    flows[number] = flow
    counters.traffic.bytesFromEnclave &+= UInt64(payload.count)
    ports[flow.client.port].send(Array(payload), to: flow.peer, mayFragment: mayFragment)
  }

  /// The enclave does not want it.
  func ended(_ number: UInt32) {
    if let flow = flows.removeValue(forKey: number) { numbers[flow.client] = nil }
  }

  // MARK: clients

  private static func seconds() -> UInt64 { monotonicNanoseconds() / 1_000_000_000 }

  private func received(_ bytes: [UInt8], _ port: Int, _ peer: DatagramPeer) {
    // Nobody can be answered at port 0.
    guard let stream, let endpoint = peer.endpoint, endpoint.port > 0 else { return }
    let client = Client(port: port, endpoint: endpoint)
    let number = numbers[client] ?? open(client, peer, stream)
    flows[number]?.used = Self.seconds()
    // The client may have turned to another address of this machine.
    flows[number]?.peer = peer
    counters.traffic.bytesToEnclave &+= UInt64(bytes.count)
    stream.send(bytes.withUnsafeBytes { DatagramMessage.encode(number, mayFragment: true, $0) })
  }

  private func open(_ client: Client, _ peer: DatagramPeer, _ stream: any ArrivalStream) -> UInt32 {
    if flows.count >= Self.limit { makeRoom(stream) }
    while flows[next] != nil { advance() }
    let number = next
    advance()
    flows[number] = Flow(client: client, peer: peer, used: Self.seconds())
    numbers[client] = number
    let arrival = DatagramArrival(port: ports[client.port].published.enclavePort, client: client.endpoint)
    stream.send(DatagramMessage.arrival(number, arrival).encoded())
    sweepLater()
    return number
  }

  private func advance() { next = max(next &+ 1, DatagramMessage.firstArrival) }

  private func end(_ number: UInt32, _ stream: any ArrivalStream) {
    ended(number)
    stream.send(DatagramMessage.close(number).encoded())
  }

  private func makeRoom(_ stream: any ArrivalStream) {
    let order = flows.sorted {
      ($0.value.isAnswered ? 1 : 0, $0.value.used) < ($1.value.isAnswered ? 1 : 0, $1.value.used)
    }
    for (number, _) in order.prefix(Self.crowd) { end(number, stream) }
  }

  private func sweepLater() {
    guard !isSweeping else { return }
    isSweeping = true
    loop.schedule(after: Self.sweep, TimerSource { [weak self] in self?.sweep() })
  }

  private func sweep() {
    isSweeping = false
    guard let stream else { return }
    let now = Self.seconds()
    for (number, flow) in flows where now &- flow.used > (flow.isAnswered ? Self.idle : Self.unansweredIdle) {
      end(number, stream)
    }
    if !flows.isEmpty { sweepLater() }
  }

  /// An answer did not arrive.
  private func failed(_ peer: DatagramPeer, _ code: Int32, mtu: UInt32, _ port: Int) {
    guard let stream, let endpoint = peer.endpoint else { return }
    let isLong = code == FlowSocket.tooLong
    let status = isLong ? .failed : Status(errno: code)
    func tell(_ number: UInt32) {
      stream.send(DatagramMessage.failed(number, status, mtu: isLong ? UInt16(clamping: mtu) : 0).encoded())
    }
    guard endpoint.port == 0 else {
      if let number = numbers[Client(port: port, endpoint: endpoint)] { tell(number) }
      return
    }
    // The kernel's own errors are about an address alone (ip_local_error), and so about all of its clients.
    for (number, flow) in flows where flow.client.port == port && flow.client.endpoint.address == endpoint.address {
      tell(number)
    }
  }

  func write(to status: inout HostStatus) {
    for port in ports where status.published.indices.contains(port.place) {
      status.published[port.place].listening = port.isAccepting == true
    }
  }
}

/// A published port's socket.
private final class PublishedSocket: EventSource {
  /// Calls of the kernel before other sources have their turn.
  private static let turn = 2
  private static let errorsAtATime = 64

  let published: PublishedPort
  let place: Int
  private let loop: EventLoop
  private let socket: DatagramPort
  /// All of them share it: what comes is looked at during the call.
  private let room: DatagramRoom
  private let report: (String) -> Void
  private let received: ([UInt8], DatagramPeer) -> Void
  private let failed: (DatagramPeer, Int32, UInt32) -> Void
  private var registration: Registration?
  private var answers = DatagramQueue()
  private var mayFragment: Bool?
  /// nil: datagrams wait in a socket that others hold too; it is not known yet whether they are to be refused.
  private(set) var isAccepting: Bool?
  private let isShared: Bool

  init(
    loop: EventLoop, _ file: FileReference, _ published: PublishedPort, place: Int, room: DatagramRoom,
    isShared: Bool, report: @escaping (String) -> Void, received: @escaping ([UInt8], DatagramPeer) -> Void,
    failed: @escaping (DatagramPeer, Int32, UInt32) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.published = published
    self.place = place
    self.room = room
    self.report = report
    self.received = received
    self.failed = failed
    self.isShared = isShared
    isAccepting = isShared ? nil : false
    socket = try DatagramPort(bound: file, at: published.listen, isShared: isShared)
    super.init()
  }

  /// Refuses clients from now on; datagrams at a shared socket wait for who serves it next.
  func end() {
    guard isShared else { return setAccepting(false) }
    if let registration { loop.remove(registration) }
    registration = nil
    isAccepting = nil
  }

  func setAccepting(_ on: Bool) {
    guard on != isAccepting else { return }
    // What is there already was sent to a program that took it.
    if !on { take() }
    do throws(SystemError) {
      try socket.setAccepting(on)
      isAccepting = on
      if on {
        registration = try loop.add(socket.file.rawValue, [.readable], self)
      } else {
        if let registration { loop.remove(registration) }
        registration = nil
      }
    } catch {
      report("-p \(published): \(error)")
    }
  }

  override func ready(_ events: EventSet, tag: Int) {
    if events.contains(.error) { readErrors() }
    take()
  }

  private func take() {
    for _ in 0..<Self.turn where registration != nil {
      let count = room.receive(socket.file.rawValue)
      for index in 0..<count {
        let (bytes, peer) = room[index]
        received(bytes, peer)
      }
      if count < DatagramRoom.capacity { return }
    }
  }

  /// Goes at the end of this turn.
  func send(_ bytes: [UInt8], to peer: DatagramPeer, mayFragment: Bool) {
    if self.mayFragment != mayFragment {
      flush()
      self.mayFragment = mayFragment
      socket.setFragments(mayFragment)
    }
    answers.append(bytes, to: peer)
    if answers.isFull { flush() } else { loop.enqueue(self) }
  }

  override func resume() { flush() }

  private func flush() {
    if !answers.isEmpty { answers.send(socket.file.rawValue) }
  }

  private func readErrors() {
    var last: (IPEndpoint, Int32)?
    for _ in 0..<Self.errorsAtATime {
      guard let (code, mtu, peer) = socket.nextError() else { return }
      // The same again says nothing new, and finding an address's clients is work.
      guard code != 0, peer.endpoint != last?.0 || code != last?.1 else { continue }
      last = peer.endpoint.map { ($0, code) }
      failed(peer, code, mtu)
    }
  }
}
