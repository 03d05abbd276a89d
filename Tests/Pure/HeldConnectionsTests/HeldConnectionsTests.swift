import Foundation
import HeldConnections
import Inet
import Packets
import Testing

private let syn: UInt8 = 0x02
private let synAck: UInt8 = 0x12
private let ack: UInt8 = 0x10
private let fin: UInt8 = 0x11
private let rst: UInt8 = 0x04

/// More of them than in every run: $TOMBOLO_HOSTILE_PACKETS.
private let hostilePackets = ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_PACKETS"].flatMap { Int($0) }

/// A program that connects to a server, in either family.
private struct Pair {
  var program: IPEndpoint
  var server: IPEndpoint
  var listener: IPEndpoint

  init(v6: Bool, port: UInt16 = 40000, to: UInt16 = 443) {
    let addresses = v6 ? (program6, server6) : (program4, server4)
    program = IPEndpoint(addresses.0 ?? program4, port)
    server = IPEndpoint(addresses.1 ?? server4, to)
    listener = IPEndpoint(program.address, listenerPort)
  }

  func opening(sequence: Int = 1000) -> [UInt8] {
    frame(program, server, syn, sequence: sequence, options: [2, 4, 5, 0xb4, 1, 3, 3, 7])
  }
}

private func asked(_ verdict: HeldConnections.Verdict) throws -> HeldConnections.ID {
  guard case .ask(let id, _, _) = verdict else {
    Issue.record("not asked: \(verdict)")
    throw Missing()
  }
  return id
}

private struct Missing: Error {}

/// The virtual end that a frame for the listener comes from.
private func origin(_ frame: [UInt8]) -> IPEndpoint {
  let packet = Array(frame.dropFirst(PacketGuard.offloadHeaderLength))
  let v6 = packet[0] >> 4 == 6
  let transport = v6 ? 40 : 20
  let address = IPAddress(bytes: packet[(v6 ? 8 : 12)..<(v6 ? 24 : 16)])
  return IPEndpoint(address ?? program4, UInt16(packet[transport]) << 8 | UInt16(packet[transport + 1]))
}

/// Asks, answers "connected", and gives the virtual end.
private func open(_ table: inout HeldConnections, _ pair: Pair, now: UInt32 = 0) throws -> (
  id: HeldConnections.ID, virtual: IPEndpoint
) {
  let id = try asked(table.taking(pair.opening(), now: now))
  guard case .frame(let made) = table.answer(id, .connected, now: now) else { throw Missing() }
  return (id, origin(made))
}

@Suite struct HeldConnectionsTests {
  @Test(
    "a program's connect and its data arrive with the listener, and the answers seem to come from the server",
    arguments: [false, true])
  func wholeLife(v6: Bool) throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: v6)
    #expect(
      table.taking(pair.opening())
        == .ask(try asked(HeldConnectionsTests.first(pair)), from: pair.program, to: pair.server))
    let id = try asked(HeldConnectionsTests.first(pair))
    guard case .frame(let made) = table.answer(id, .connected, now: 0) else { throw Missing() }
    let virtual = origin(made)
    // The bytes are those that a kernel would have sent between these ends, checksums included.
    #expect(made == frame(virtual, pair.listener, syn, options: [2, 4, 5, 0xb4, 1, 3, 3, 7]))
    for isPartial in [false, true] {
      var answer = frame(pair.listener, virtual, synAck, sequence: 7, acknowledged: 1001, isPartial: isPartial)
      #expect(table.take(&answer) == .pass)
      #expect(answer == frame(pair.server, pair.program, synAck, sequence: 7, acknowledged: 1001, isPartial: isPartial))
      let bytes = (0..<301).map { UInt8(truncatingIfNeeded: $0) }
      var data = frame(
        pair.program, pair.server, ack, data: bytes, isPartial: isPartial, segmentSize: isPartial ? 100 : 0)
      #expect(table.take(&data) == .pass)
      #expect(
        data == frame(virtual, pair.listener, ack, data: bytes, isPartial: isPartial, segmentSize: isPartial ? 100 : 0))
    }
    let accepted = table.accepted(from: virtual)
    #expect(accepted?.id == id)
    #expect(accepted?.source == pair.program)
    #expect(accepted?.destination == pair.server)
    // Nobody gets the same connection twice.
    #expect(table.accepted(from: virtual) == nil)
    #expect(table.heldCount == 0)
  }

  private static func first(_ pair: Pair) -> HeldConnections.Verdict {
    var table = HeldConnections(settings())
    return table.taking(pair.opening())
  }

  @Test("a program is told why its connect failed", arguments: [false, true])
  func failures(v6: Bool) throws {
    let pair = Pair(v6: v6)
    var table = HeldConnections(settings())
    let opening = pair.opening()
    #expect(table.answer(try asked(table.taking(opening)), .refused, now: 0) == .reset(opening))
    #expect(table.answer(try asked(table.taking(opening)), .silence, now: 0) == .nothing)
    for reason in UnreachableAnswer.Reason.allCases {
      let id = try asked(table.taking(opening))
      let expected = opening.withUnsafeBytes { UnreachableAnswer.make($0, reason) }
      #expect(table.answer(id, .unreachable(reason), now: 0) == .frame(expected))
      // Once.
      #expect(table.answer(id, .unreachable(reason), now: 0) == .nothing)
      #expect(table.answer(id, .connected, now: 0) == .nothing)
    }
    #expect(table.heldCount == 0)
    #expect(table.entryCount == 1)
  }

  @Test("a SYN that is sent again asks nobody again, and the newest one goes on")
  func retransmission() throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: false)
    let id = try asked(table.taking(pair.opening()))
    #expect(table.taking(pair.opening(sequence: 5), now: 1) == .drop)
    #expect(table.heldCount == 1)
    guard case .frame(let made) = table.answer(id, .connected, now: 1) else { throw Missing() }
    #expect(made == frame(origin(made), pair.listener, syn, sequence: 5, options: [2, 4, 5, 0xb4, 1, 3, 3, 7]))
    // Behind the answer it is the listener's matter.
    #expect(table.taking(pair.opening(sequence: 5), now: 2) == .pass)
  }

  @Test("a program that gives up while the host connects ends the question after its last SYN")
  func givenUp() throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: true)
    let id = try asked(table.taking(pair.opening(), now: 100))
    #expect(table.taking(pair.opening(), now: 101) == .drop)
    #expect(table.taking(pair.opening(), now: 103) == .drop)
    #expect(table.tick(now: 113) == [])
    #expect(table.tick(now: 115) == [id])
    #expect(table.tick(now: 116) == [])
    #expect(table.heldCount == 0)
    #expect(table.answer(id, .connected, now: 117) == .nothing)
    _ = try asked(table.taking(pair.opening(), now: 118))
  }

  @Test("a kernel's SYNs, 1, 3, 7, 15, 31 and 63 s after the first, are waited for")
  func patience() throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: false)
    _ = try asked(table.taking(pair.opening(), now: 0))
    var due: [UInt32] = [1, 3, 7, 15, 31, 63, 127]
    for now in UInt32(0)..<127 {
      if due.first == now {
        due.removeFirst()
        #expect(table.taking(pair.opening(), now: now) == .drop)
      }
      #expect(table.tick(now: now) == [])
    }
  }

  @Test("a program that has closed its socket before the answer resets, and the host's connection ends")
  func resetBeforeAccept() throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: false)
    let (id, virtual) = try open(&table, pair)
    #expect(table.taking(frame(pair.listener, virtual, synAck)) == .pass)
    #expect(table.taking(frame(pair.program, pair.server, rst)) == .passAndCancel(id))
    // The next connect from the same port is another connection.
    let next = try asked(table.taking(pair.opening(sequence: 9)))
    #expect(next != id)
    table.closed(id)
    #expect(table.heldCount == 1)
  }

  @Test("a program that sends data and resets at once: the proxy gets both, as a server would")
  func resetBehindData() throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: false)
    let (id, virtual) = try open(&table, pair)
    #expect(table.taking(frame(pair.listener, virtual, synAck)) == .pass)
    #expect(table.taking(frame(pair.program, pair.server, ack, data: [1])) == .pass)
    #expect(table.taking(frame(pair.program, pair.server, rst)) == .pass)
    #expect(table.accepted(from: virtual)?.id == id)
  }

  @Test("what is accepted never, is given up")
  func neverAccepted() throws {
    var table = HeldConnections(settings())
    let (id, virtual) = try open(&table, Pair(v6: false))
    #expect(table.tick(now: 149) == [])
    #expect(table.tick(now: 150) == [id])
    #expect(table.accepted(from: virtual) == nil)
  }

  @Test("the same connection once more gets the same slot, and the kernel judges it", arguments: [false, true])
  func portReuse(v6: Bool) throws {
    var table = HeldConnections(settings())
    let pair = Pair(v6: v6)
    let (id, virtual) = try open(&table, pair)
    _ = table.accepted(from: virtual)
    #expect(table.taking(frame(pair.program, pair.server, fin)) == .pass)
    #expect(table.taking(frame(pair.listener, virtual, fin)) == .pass)
    table.closed(id)
    // TIME_WAIT answers what comes late.
    #expect(table.taking(frame(pair.program, pair.server, ack), now: 50) == .pass)
    let (next, again) = try open(&table, pair, now: 51)
    #expect(next != id)
    #expect(again == virtual)
    // Refused this time: the earlier one's last segments still find their way.
    _ = table.accepted(from: virtual)
    table.closed(next)
    let third = try asked(table.taking(pair.opening(), now: 60))
    #expect(table.answer(third, .refused, now: 60) == .reset(pair.opening()))
    #expect(table.taking(frame(pair.listener, virtual, ack), now: 61) == .pass)
    #expect(table.entryCount == 1)
  }

  @Test("slots rest before others get them, and are used again")
  func rest() throws {
    var table = HeldConnections(settings(ports: 5000...5003, count: 1))
    func pair(_ port: UInt16) -> Pair { Pair(v6: false, port: port) }
    for port in UInt16(1)...3 {
      let (id, virtual) = try open(&table, pair(port), now: UInt32(port))
      _ = table.accepted(from: virtual)
      #expect(table.taking(frame(pair(port).program, pair(port).server, rst), now: UInt32(port)) == .pass)
      table.closed(id)
    }
    // A fourth slot was never used; the next one has to be one that rested.
    #expect(try open(&table, pair(4), now: 5).virtual.port == 5003)
    #expect(try open(&table, pair(5), now: 64).virtual.port == 5000)
    #expect(table.taking(frame(pair(1).program, pair(1).server, ack), now: 64) == .reset)
    // None has rested: the one that ended first.
    #expect(try open(&table, pair(6), now: 64).virtual.port == 5001)
    #expect(try open(&table, pair(7), now: 64).virtual.port == 5002)
    // All are open.
    #expect(table.taking(pair(8).opening(), now: 64) == .drop)
    #expect(table.entryCount == 4)
  }

  @Test("a slot whose socket the proxy still has is nobody else's")
  func inUse() throws {
    var table = HeldConnections(settings(ports: 5000...5000, count: 1))
    let pair = Pair(v6: false)
    let (id, virtual) = try open(&table, pair)
    _ = table.accepted(from: virtual)
    #expect(table.taking(frame(pair.program, pair.server, rst)) == .pass)
    #expect(table.taking(Pair(v6: false, port: 3).opening(), now: 1000) == .drop)
    table.closed(id)
    _ = try asked(table.taking(Pair(v6: false, port: 3).opening(), now: 1000))
  }

  @Test("as many SYNs are held as the limit says")
  func heldLimit() throws {
    var table = HeldConnections(settings(held: 2))
    let first = try asked(table.taking(Pair(v6: false, port: 1).opening()))
    _ = try asked(table.taking(Pair(v6: false, port: 2).opening()))
    #expect(table.taking(Pair(v6: false, port: 3).opening()) == .drop)
    _ = table.answer(first, .refused, now: 0)
    _ = try asked(table.taking(Pair(v6: false, port: 3).opening()))
  }

  @Test("strangers are reset, resets are not answered")
  func strangers() {
    var table = HeldConnections(settings())
    for v6 in [false, true] {
      let pair = Pair(v6: v6)
      let virtual = IPEndpoint(v6 ? .v6(virtual6) : .v4(virtual4), 5000)
      #expect(table.taking(frame(pair.program, pair.server, ack)) == .reset)
      #expect(table.taking(frame(pair.program, pair.server, synAck)) == .reset)
      #expect(table.taking(frame(pair.program, pair.server, rst)) == .drop)
      #expect(table.taking(frame(pair.listener, virtual, ack)) == .reset)
      #expect(table.taking(frame(pair.listener, virtual, rst)) == .drop)
      // Nobody connects to a virtual address.
      #expect(table.taking(frame(pair.program, virtual, syn)) == .reset)
    }
  }

  @Test("without IPv6 addresses its connections are reset")
  func noIPv6() {
    var settings = settings()
    settings.listener6 = nil
    var table = HeldConnections(settings)
    #expect(table.taking(Pair(v6: true).opening()) == .reset)
  }

  @Test("random, cut and changed packets never trap, and what is kept is bounded")
  func hostile() {
    var table = HeldConnections(settings(ports: 2000...2009, count: 2, held: 8))
    var random = SystemRandomNumberGenerator()
    var ids: [HeldConnections.ID] = []
    let pairs = (0..<32).map { Pair(v6: $0 & 1 == 1, port: UInt16($0 / 2)) }
    var now: UInt32 = 0
    for round in 0..<(hostilePackets ?? 200_000) {
      guard let pair = pairs.randomElement(using: &random) else { continue }
      var made: [UInt8]
      switch round & 7 {
      case 0:
        made = (0..<Int.random(in: 0..<80, using: &random)).map { _ in .random(in: .min ... .max, using: &random) }
      case 1:
        let virtual = IPEndpoint(
          pair.program.address == program4 ? .v4(virtual4) : .v6(virtual6), .random(in: 1990...2020, using: &random))
        made = frame(pair.listener, virtual, .random(in: 0...0x1f, using: &random))
      case 2, 3: made = pair.opening()
      default: made = frame(pair.program, pair.server, .random(in: 0...0x1f, using: &random))
      }
      if round & 31 > 28, !made.isEmpty {
        made.removeLast(Int.random(in: 0..<made.count, using: &random))
        if let place = made.indices.randomElement(using: &random) {
          made[place] = .random(in: .min ... .max, using: &random)
        }
      }
      if case .ask(let id, _, _) = table.take(&made, now: now) { ids.append(id) }
      if round & 3 == 3, let place = ids.indices.randomElement(using: &random) {
        let id = ids.remove(at: place)
        switch round >> 2 & 3 {
        case 0: _ = table.answer(id, .refused, now: now)
        case 1: _ = table.answer(id, .unreachable(.host), now: now)
        default:
          if case .frame(let syn) = table.answer(id, .connected, now: now),
            let accepted = table.accepted(from: origin(syn)), round & 4 == 0
          {
            ids.append(accepted.id)
          }
        }
        if round & 64 != 0 { table.closed(id) }
      }
      if round & 1023 == 0 {
        now += 7
        _ = table.tick(now: now)
      }
      if ids.count > 4096 { ids.removeFirst(2048) }
    }
    #expect(table.entryCount <= 20)
    #expect(table.heldCount <= 8)
  }
}

@Suite struct OrphanProbeTests {
  @Test("the segment that asks a program's kernel is a whole one, from the server", arguments: [false, true])
  func bytes(v6: Bool) {
    let pair = Pair(v6: v6)
    var expected = frame(pair.server, pair.program, ack, sequence: 1)
    // Its own window; nothing else differs.
    let made = OrphanProbe.frame(from: pair.server, to: pair.program, sequence: 1)
    let transport = PacketGuard.offloadHeaderLength + (v6 ? 40 : 20)
    expected.replaceSubrange(transport + 14..<transport + 18, with: made[transport + 14..<transport + 18])
    expected.replaceSubrange(
      PacketGuard.offloadHeaderLength..<transport, with: made[PacketGuard.offloadHeaderLength..<transport])
    #expect(made == expected)
    let packet = Array(made[PacketGuard.offloadHeaderLength...])
    if !v6 { #expect(sum(Array(packet[..<20])) == 0xffff) }
    let tcp = Array(packet[(v6 ? 40 : 20)...])
    #expect(sum(pair.server.address.bytes + pair.program.address.bytes + big(6) + big(tcp.count) + tcp) == 0xffff)
    // What the program's kernel answers belongs to no entry, and the reset has the number that it waits for.
    var table = HeldConnections(settings())
    #expect(table.taking(frame(pair.program, pair.server, ack, sequence: 9, acknowledged: 77)) == .reset)
  }
}
