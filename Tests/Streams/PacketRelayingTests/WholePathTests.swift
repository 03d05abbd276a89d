import EventLoop
import Inet
import LinuxSystem
import PacketRelaying
import PacketTwins
import Packets
import Policy
import Testing

/// Both ends of the packet path, with their guards, between two devices in memory.
private final class WholePath {
  enum Way: CaseIterable { case twinStream, twinMemory, stream, memory }

  let loop: EventLoop
  let inside: DeviceTwin
  let outside: DeviceTwin
  private var queues: [PacketQueue] = []
  var enclave: PacketQueue { queues[0] }
  var host: PacketQueue { queues[1] }
  var losses: [(PacketGuard.Side, PacketQueue.Loss)] = []
  var denied: [String] = []
  var twins: (enclave: PathTwin, host: PathTwin)?

  /// - Parameters:
  ///   - looksInside: of both devices.
  ///   - outgoing: what the enclave's own side lets out; nil where it does not ask.
  init(
    _ way: Way, looksInside: Bool = false, outgoing: Destinations? = nil, outer: Destinations = WholePath.documentation,
    capacity: Int = 256
  ) throws {
    loop = try EventLoop()
    inside = try DeviceTwin(looksInside: looksInside)
    outside = try DeviceTwin(looksInside: looksInside)
    for (side, device) in [(PacketGuard.Side.enclave, inside), (.host, outside)] {
      let packetGuard = PacketGuard(side, address4: IPv4Address(10, 118, 0, 2), address6: nil, destinations: outer)
      queues.append(
        try PacketQueue(
          loop: loop, device: device, packetGuard: packetGuard,
          outgoing: side == .enclave ? outgoing.map { DestinationGuard($0) } : nil,
          denied: { [unowned self] in denied.append($0) }
        ) { [unowned self] in losses.append((side, $0)) })
    }
    try connect(way, capacity: capacity)
  }

  static let documentation = Destinations(
    allowed: ["192.0.2.0/24"].compactMap { IPPrefix($0) }.map { DestinationRule($0) })

  func connect(_ way: Way, capacity: Int = 256) throws {
    switch way {
    case .twinStream, .twinMemory:
      let made = try PathTwin.pair(way == .twinStream ? .stream : .memory, capacity: capacity)
      twins = made
      try enclave.attach(made.0)
      try host.attach(made.1)
    case .stream, .memory:
      let (near, far) = try makeSocketPair()
      try enclave.attach(near, way == .stream ? .frames() : .passing(PacketMemory()))
      try host.attach(far, way == .stream ? .frames() : .awaitingMemory)
    }
  }

  /// The loop holds the queues, and these the loop.
  deinit { loop.clear() }

  /// Runs until nothing moves any more.
  func settle() throws {
    var last = -1
    while true {
      let moved = [enclave, host].reduce(0) {
        $0 + Int($1.counters.packetsOut + $1.counters.packetsIn + $1.counters.drops + $1.counters.unsent)
      }
      if moved == last { return }
      last = moved
      for _ in 0..<4 {
        let stop = TimerSource { [loop] in loop.stop() }
        loop.schedule(after: .zero, stop)
        try loop.run()
      }
    }
  }
}

/// The whole packet path without a kernel's device: what is in a file of the product is what runs here, but for the two ends
/// of it, and in half of the cases the middle.
@Suite struct WholePathTests {
  /// Every packet comes out at the other end once, whole and in order, whatever the path is made of: a download of the
  /// program's would be broken otherwise.
  @Test(arguments: WholePath.Way.allCases, [false, true])
  fileprivate func carriesEveryPacket(_ way: WholePath.Way, looksInside: Bool) throws {
    let path = try WholePath(way, looksInside: looksInside)
    try path.settle()
    let out = (0..<700).map { numbered(.enclave, $0, 40 + $0 * 89 % 9000) }
    let back = (0..<700).map { numbered(.host, $0, 40 + $0 * 61 % 9000) }
    path.inside.put(out)
    path.outside.put(back)
    try path.settle()
    #expect(path.outside.takeWritten() == out)
    #expect(path.inside.takeWritten() == back)
    #expect(path.enclave.counters.packetsOut == 700 && path.host.counters.packetsIn == 700)
    #expect(path.host.counters.packetsOut == 700 && path.enclave.counters.packetsIn == 700)
    #expect(path.host.counters.drops == 0 && path.enclave.counters.drops == 0)
    #expect(path.host.counters.bytesIn == path.enclave.counters.bytesOut)
    #expect(path.inside.settled > 0 && path.outside.settled > 0)
  }

  /// The guard stands at both ends: a forged source leaves no enclave, and a packet for another address enters none. What is
  /// dropped is counted by its reason, and what is around it passes.
  @Test(arguments: WholePath.Way.allCases)
  fileprivate func theGuardsDropAndCount(_ way: WholePath.Way) throws {
    let path = try WholePath(way)
    try path.settle()
    var forged = numbered(.enclave, 1, 100)
    forged.replaceSubrange(22..<26, with: [10, 118, 0, 3])
    var foreign = numbered(.host, 1, 100)
    foreign.replaceSubrange(26..<30, with: [10, 118, 0, 3])
    let good = (numbered(.enclave, 2, 100), numbered(.host, 2, 100))
    path.inside.put([forged, good.0, Array(good.0.dropLast(30))])
    path.outside.put([foreign, good.1])
    try path.settle()
    #expect(path.outside.takeWritten() == [good.0])
    #expect(path.inside.takeWritten() == [good.1])
    #expect(path.host.counters.drops(.badSource) == 1 && path.host.counters.drops == 2)
    #expect(path.enclave.counters.drops == 1)
    #expect(path.losses.isEmpty)
  }

  /// A destination that is denied is answered at once at whichever end it is found: the program's connect fails, instead of
  /// waiting for two minutes.
  @Test(arguments: WholePath.Way.allCases, [true, false])
  fileprivate func aDeniedDestinationIsAnswered(_ way: WholePath.Way, inside: Bool) throws {
    let path = try WholePath(way, outgoing: inside ? Destinations() : nil, outer: Destinations())
    try path.settle()
    path.inside.put([numbered(.enclave, 1, 100)])
    try path.settle()
    let answers = path.inside.takeWritten()
    #expect(answers.count == 1)
    // ICMP (protocol 1) from the destination to the enclave: unreachable (type 3).
    let answer = try #require(answers.first)
    #expect(answer[19] == 1 && Array(answer[26..<30]) == [10, 118, 0, 2] && answer[30] == 3, "\(answer)")
    #expect(path.outside.written.isEmpty)
    #expect((inside ? path.enclave : path.host).counters.drops(.badDestination) == 1)
    #expect(path.denied.count == 1 && path.denied[0].contains("192.0.2.1"), "\(path.denied)")
  }

  /// A transport that stops holds packets back at the device, which the kernel's TCP sees as a slow network; and none of
  /// them is lost when it goes on.
  @Test(arguments: [WholePath.Way.twinStream, .twinMemory])
  fileprivate func backPressureReachesTheDevice(_ way: WholePath.Way) throws {
    let path = try WholePath(way, capacity: 16)
    let twins = try #require(path.twins)
    try path.settle()
    twins.enclave.held = true
    let packets = (0..<300).map { numbered(.enclave, $0, 1500) }
    path.inside.put(packets)
    try path.settle()
    #expect(path.inside.waitingCount == 300 - 16)
    #expect(path.outside.written.isEmpty)
    // The other direction goes on meanwhile.
    path.outside.put([numbered(.host, 1, 60)])
    try path.settle()
    #expect(path.inside.takeWritten().count == 1)
    twins.enclave.held = false
    try path.settle()
    #expect(path.outside.takeWritten() == packets)
  }

  /// A device that takes no more loses packets, as a full network does, and each of them is counted: nothing else stops.
  @Test(arguments: WholePath.Way.allCases)
  fileprivate func aFullDeviceIsCounted(_ way: WholePath.Way) throws {
    let path = try WholePath(way)
    try path.settle()
    path.outside.room = 5
    path.inside.put((0..<12).map { numbered(.enclave, $0, 200) })
    try path.settle()
    #expect(path.outside.takeWritten() == (0..<5).map { numbered(.enclave, $0, 200) })
    #expect(path.host.counters.drops(.notTaken) == 7)
    path.inside.put([numbered(.enclave, 99, 200)])
    try path.settle()
    #expect(path.outside.takeWritten() == [numbered(.enclave, 99, 200)])
  }

  /// A path that ends takes the queue with it no further than to the next path: what was under way arrives, what comes while
  /// there is none is thrown away and counted, and the next one works, of whatever kind it is.
  @Test(arguments: WholePath.Way.allCases)
  fileprivate func anotherPathFollows(_ next: WholePath.Way) throws {
    let path = try WholePath(.twinStream)
    try path.settle()
    let twins = try #require(path.twins)
    path.inside.put([numbered(.enclave, 1, 100)])
    twins.host.lose(.closed)
    twins.enclave.lose(.badFrame(0))
    try path.settle()
    #expect(path.losses.contains { $0 == (.enclave, .badFrame(0)) } && path.losses.contains { $0 == (.host, .closed) })
    #expect(!path.enclave.isAttached && !path.host.isAttached)
    path.inside.put((0..<7).map { numbered(.enclave, $0, 100) })
    try path.settle()
    #expect(path.enclave.counters.unsent >= 7)
    let seen = path.outside.takeWritten().count
    #expect(seen <= 1)
    try path.connect(next)
    try path.settle()
    path.inside.put([numbered(.enclave, 2, 3000)])
    path.outside.put([numbered(.host, 3, 3000)])
    try path.settle()
    #expect(path.outside.takeWritten() == [numbered(.enclave, 2, 3000)])
    #expect(path.inside.takeWritten() == [numbered(.host, 3, 3000)])
  }
}
