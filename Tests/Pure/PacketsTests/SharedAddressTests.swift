import Inet
import Packets
import Testing

private let own = "192.0.43.8"
private let other = "10.8.0.2"
private let own6 = "2001:db8::1"
private let other6 = "fd08::2"
private let share = PortSet(ranges: [80...80, 1024...61439])

/// A TCP segment with correct lengths and, of its checksum, the pseudo-header's sum, as a kernel leaves it.
private func segment(
  v6: Bool, port: UInt16 = 5000, to destination: UInt16 = 80, flags: UInt8 = 0x18, options: [UInt8] = [], data: [UInt8],
  reversed: Bool = false
) -> [UInt8] {
  let tcp =
    TestFrame.big(Int(port)) + TestFrame.big(Int(destination)) + [0, 0, 1, 0, 0, 0, 0, 9]
    + [UInt8((20 + options.count) / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0] + options + data
  let packet =
    v6
    ? TestFrame.v6(reversed ? other6 : own6, reversed ? own6 : other6, transport: 6, payload: tcp)
    : TestFrame.v4(reversed ? other : own, reversed ? own : other, transport: 6, payload: tcp)
  return packet
}

private func undone(_ packet: [UInt8], number: UInt8) -> [UInt8] {
  let v6 = packet[0] >> 4 == 6
  let transport = v6 ? 40 : 20
  var sum = pseudo(packet, number, packet.count - transport)
  while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
  var packet = packet
  let field = transport + (number == 6 ? 16 : 6)
  packet[field] = UInt8(sum >> 8 & 0xff)
  packet[field + 1] = UInt8(sum & 0xff)
  return packet
}

private func pseudo(_ packet: [UInt8], _ number: UInt8, _ length: Int) -> UInt32 {
  let addresses = packet[0] >> 4 == 6 ? packet[8..<40] : packet[12..<20]
  return words(Array(addresses)) + UInt32(number) + UInt32(length)
}

/// Slow and plain, unlike what it checks.
private func words(_ bytes: [UInt8]) -> UInt32 {
  var sum: UInt32 = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[index]) << 8 + (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
    sum = (sum & 0xffff) + (sum >> 16)
  }
  return sum
}

/// Whether the transport's checksum is right.
private func isChecked(_ packet: [UInt8], _ number: UInt8) -> Bool {
  let transport = packet[0] >> 4 == 6 ? 40 : 20
  var sum = words(Array(packet[transport...])) + pseudo(packet, number, packet.count - transport)
  while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
  return sum == 0xffff
}

private func pieces(_ frame: [UInt8], mtu: Int) throws -> [[UInt8]] {
  try frame.withUnsafeBytes { frame in
    var cursor = try PacketPieces(frame, mtu: mtu, identification: 0x1234_5678)
    var header = [UInt8](repeating: 0xee, count: PacketPieces.headerLimit)
    var all: [[UInt8]] = []
    while let (length, payload) = header.withUnsafeMutableBytes({ $0.baseAddress.flatMap { cursor.next($0) } }) {
      all.append(Array(header[..<length]) + Array(payload))
      try #require(all.count <= 70000)
    }
    return all
  }
}

/// What the host does by software on behalf of a card with offload: wrong here, and peers drop the enclave's packets.
@Suite struct PacketPiecesTests {
  @Test(arguments: [false, true]) func segmentsOfASuperPacket(v6: Bool) throws {
    let data = (0..<9_001).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    let options: [UInt8] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]
    // FIN, PSH, ACK, CWR.
    let packet = undone(segment(v6: v6, flags: 0x99, options: options, data: data), number: 6)
    let transport = v6 ? 40 : 20
    let size: UInt16 = v6 ? 1428 : 1448
    let frame = TestFrame(
      flags: 1, segmentation: v6 ? 4 : 1, headerLength: UInt16(transport + 32), segmentSize: size,
      checksumStart: UInt16(transport), checksumOffset: 16, packet: packet)
    #expect(
      PacketGuard(.host, address4: IPv4Address(own), address6: IPv6Address(own6), shared: share).defect(in: frame.bytes)
        == nil)
    let all = try pieces(frame.bytes, mtu: 1500)
    #expect(all.count == 7)
    var joined: [UInt8] = []
    for (index, piece) in all.enumerated() {
      let isLast = index == all.count - 1
      #expect(piece.count <= 1500)
      let length = Int(piece[v6 ? 4 : 2]) << 8 + Int(piece[v6 ? 5 : 3])
      #expect(length == piece.count - (v6 ? 40 : 0))
      #expect(isChecked(piece, 6), "segment \(index)")
      if !v6 {
        #expect(words(Array(piece[..<20])) == 0xffff)
        #expect(Int(piece[4]) << 8 + Int(piece[5]) == index)
      }
      let sequence = piece[transport + 4..<transport + 8].reduce(0) { $0 << 8 + Int($1) }
      #expect(sequence == 0x100 + index * Int(size))
      #expect(piece[transport + 13] == (isLast ? 0x19 : index == 0 ? 0x90 : 0x10))
      #expect(Array(piece[transport + 20..<transport + 32]) == options)
      joined += piece[(transport + 32)...]
    }
    #expect(joined == data)
  }

  @Test(arguments: [false, true]) func aWholePacketGetsItsChecksum(v6: Bool) throws {
    for count in [0, 1, 2, 7, 1000] {
      let packet = undone(segment(v6: v6, data: Array(repeating: 0xab, count: count)), number: 6)
      let frame = TestFrame(flags: 1, checksumStart: v6 ? 40 : 20, checksumOffset: 16, packet: packet)
      let all = try pieces(frame.bytes, mtu: 1500)
      #expect(all.count == 1)
      #expect(all[0].count == packet.count && isChecked(all[0], 6))
    }
    // One that has it keeps it, right or wrong.
    let packet = segment(v6: v6, data: [1, 2, 3])
    #expect(try pieces(TestFrame(packet: packet).bytes, mtu: 1500) == [packet])
  }

  @Test(arguments: [false, true]) func fragmentsOfADatagram(v6: Bool) throws {
    let data = (0..<4000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    let udp = TestFrame.big(5000) + TestFrame.big(53) + TestFrame.big(8 + data.count) + [0, 0] + data
    let whole = undone(
      v6 ? TestFrame.v6(own6, other6, payload: udp) : TestFrame.v4(own, other, payload: udp), number: 17)
    let transport = v6 ? 40 : 20
    let frame = TestFrame(flags: 1, checksumStart: UInt16(transport), checksumOffset: 6, packet: whole)
    let all = try pieces(frame.bytes, mtu: 1300)
    #expect(all.count == 4)
    var joined: [UInt8] = []
    var identifications: Set<[UInt8]> = []
    for (index, piece) in all.enumerated() {
      let isLast = index == all.count - 1
      #expect(piece.count <= 1300)
      #expect(Int(piece[v6 ? 4 : 2]) << 8 + Int(piece[v6 ? 5 : 3]) == piece.count - (v6 ? 40 : 0))
      let field = v6 ? 42 : 6
      let word = Int(piece[field]) << 8 + Int(piece[field + 1])
      #expect((v6 ? word & 1 : word >> 13 & 1) == (isLast ? 0 : 1))
      #expect((v6 ? word & ~7 : (word & 0x1fff) * 8) == joined.count)
      if v6 {
        #expect(piece[6] == 44 && piece[40] == 17)
        identifications.insert(Array(piece[44..<48]))
      } else {
        #expect(words(Array(piece[..<20])) == 0xffff)
        identifications.insert(Array(piece[4..<6]))
      }
      joined += piece[(v6 ? 48 : 20)...]
    }
    #expect(identifications.count == 1)
    let again = Array(whole[..<transport]) + joined
    #expect(again.count == whole.count && isChecked(again, 17))
    #expect(Array(again[(transport + 8)...]) == data)
  }

  /// A datagram that may not be cut, and what the guard does not look at.
  @Test func whatHasNoForm() {
    func defect(_ frame: TestFrame) -> PacketDefect? {
      #expect(throws: PacketPiecesError.self) { try pieces(frame.bytes, mtu: 1300) }?.defect
    }
    var packet = TestFrame.v4(own, other, payload: [UInt8](repeating: 0, count: 2000))
    packet[6] = 0x40
    #expect(defect(TestFrame(packet: packet)) == .badTotalLength)
    let tcp = segment(v6: false, data: [1, 2, 3])
    #expect(defect(TestFrame(flags: 1, checksumStart: 24, checksumOffset: 2, packet: tcp)) == .badChecksumPlace)
    #expect(defect(TestFrame(segmentation: 5, segmentSize: 100, packet: tcp)) == .badOffload)
    #expect(defect(TestFrame(segmentation: 1, packet: tcp)) == .badSegmentSize)
    #expect(defect(TestFrame(packet: TestFrame.v4(own, other, transport: 1))) == .foreignPort)
  }

  /// Whatever a hostile enclave sends: the guard's word, or pieces that are no longer than they may be.
  @Test func randomFrames() throws {
    let guarding = PacketGuard(.host, address4: IPv4Address(own), address6: IPv6Address(own6), shared: share)
    var generator = SystemRandomNumberGenerator()
    var passed = 0
    for round in 0..<60_000 {
      let v6 = Bool.random()
      let data = [UInt8](repeating: 1, count: Int.random(in: 0...3000, using: &generator))
      let udp = TestFrame.big(5000) + TestFrame.big(53) + TestFrame.big(8 + data.count) + [0, 0] + data
      let packet =
        round % 2 == 0
        ? segment(v6: v6, options: [UInt8](repeating: 1, count: 4 * Int.random(in: 0...10)), data: data)
        : v6 ? TestFrame.v6(own6, other6, payload: udp) : TestFrame.v4(own, other, payload: udp)
      var frame = TestFrame(
        flags: UInt8.random(in: 0...1), segmentation: [0, 0, 1, 4, 5, 0x81].randomElement() ?? 0,
        segmentSize: Bool.random() ? 0 : UInt16.random(in: 1...1500), checksumStart: v6 ? 40 : 20,
        checksumOffset: round % 2 == 0 ? 16 : 6, packet: packet
      ).bytes
      for _ in 0..<Int.random(in: 0...3) where !frame.isEmpty {
        frame[Int.random(in: 0..<min(frame.count, 80))] = UInt8.random(in: 0...255)
      }
      if Int.random(in: 0...9) == 0 { frame.removeLast(Int.random(in: 0...frame.count)) }
      guard guarding.defect(in: frame) == nil else { continue }
      passed += 1
      guard let all = try? pieces(frame, mtu: 1300) else { continue }
      #expect(!all.isEmpty)
      for piece in all {
        #expect(piece.count > 20)
        // A segment is as long as the enclave wants it; the device refuses what is too long.
        let isTCP = piece[0] >> 4 == 4 ? piece[9] == 6 : piece[6] == 6
        if !isTCP { #expect(piece.count <= 1300) }
      }
    }
    #expect(passed > 5000)
  }
}

/// Without the other end's word the host would send segments that it drops.
@Suite struct SegmentTableTests {
  private func frame(_ packet: [UInt8]) -> [UInt8] { TestFrame(packet: packet).bytes }

  private func learn(_ table: inout SegmentTable, _ packet: [UInt8]) {
    frame(packet).withUnsafeBytes { if SegmentTable.tells($0) { table.learn(from: $0) } }
  }

  private func size(_ table: inout SegmentTable, _ packet: [UInt8]) -> UInt16? {
    frame(packet).withUnsafeBytes { table.segmentSize(of: $0) }
  }

  private func expect(
    _ table: inout SegmentTable, _ packet: [UInt8], _ wanted: UInt16?, at location: SourceLocation = #_sourceLocation
  ) {
    let found = size(&table, packet)
    #expect(found == wanted, sourceLocation: location)
  }

  private let big = [UInt8](repeating: 0, count: 9000)
  private let stamps: [UInt8] = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]

  @Test(arguments: [false, true]) func maximumSegmentSize(v6: Bool) {
    var table = SegmentTable(mtu: 1500)
    let out = segment(v6: v6, options: stamps, data: big)
    // Nobody's word: what everybody takes.
    expect(&table, out, (v6 ? 1220 : 536) - 12)
    // A SYN-ACK with an MSS behind other options.
    learn(
      &table,
      segment(v6: v6, port: 80, to: 5000, flags: 0x12, options: [1, 3, 3, 7, 2, 4, 3, 0xe8], data: [], reversed: true))
    expect(&table, out, 1000 - 12)
    expect(&table, segment(v6: v6, data: Array(big[..<1000])), nil)
    expect(&table, segment(v6: v6, port: 5001, data: big), (v6 ? 1220 : 536))
    // More than the way out takes.
    learn(
      &table, segment(v6: v6, port: 80, to: 5000, flags: 0x12, options: [2, 4, 0x23, 0x28], data: [], reversed: true))
    expect(&table, out, UInt16(1500 - (v6 ? 60 : 40) - 12))
    // A SYN without the option, and others that make no sense.
    for options: [UInt8] in [[], [2, 3, 9, 9], [2, 1, 0, 0], [5, 200, 0, 0], [0, 2, 4, 4]] {
      learn(&table, segment(v6: v6, port: 80, to: 5000, flags: 0x02, options: options, data: [], reversed: true))
      expect(&table, out, (v6 ? 1220 : 536) - 12)
    }
    learn(&table, segment(v6: v6, port: 80, to: 5000, flags: 0x12, options: [2, 4, 0, 1], data: [], reversed: true))
    expect(&table, out, 8)
  }

  @Test(arguments: [false, true]) func pathMTU(v6: Bool) {
    var table = SegmentTable(mtu: 1500)
    let out = segment(v6: v6, data: big)
    learn(&table, segment(v6: v6, port: 80, to: 5000, flags: 0x12, options: [2, 4, 5, 0xb4], data: [], reversed: true))
    let inner = Array(segment(v6: v6, data: []).prefix(v6 ? 48 : 28))
    func tooBig(_ mtu: Int) -> [UInt8] {
      v6
        ? TestFrame.v6("fd99::1", own6, transport: 58, payload: [2, 0, 0, 0, 0, 0] + TestFrame.big(mtu) + inner)
        : TestFrame.v4("10.9.9.1", own, transport: 1, payload: [3, 4, 0, 0, 0, 0] + TestFrame.big(mtu) + inner)
    }
    learn(&table, tooBig(1400))
    expect(&table, out, UInt16(1400 - (v6 ? 60 : 40)))
    // No spoofed message makes them absurdly short.
    learn(&table, tooBig(68))
    expect(&table, out, UInt16((v6 ? 1280 : 552) - (v6 ? 60 : 40)))
  }

  /// A flood of connections does not grow the table, and does not take what is in use.
  @Test func floods() {
    var table = SegmentTable(mtu: 1500, limit: 100)
    let out = segment(v6: false, data: big)
    learn(&table, segment(v6: false, port: 80, to: 5000, flags: 0x12, options: [2, 4, 4, 0], data: [], reversed: true))
    for port in UInt16(10_000)..<20_000 {
      learn(
        &table, segment(v6: false, port: port, to: 80, flags: 0x02, options: [2, 4, 4, 0], data: [], reversed: true))
      if port % 50 == 0 { expect(&table, out, 1024) }
    }
  }

  @Test func randomPackets() {
    var table = SegmentTable(mtu: 1500, limit: 50)
    for _ in 0..<50_000 {
      var bytes = frame(
        segment(v6: Bool.random(), flags: UInt8.random(in: 0...255), options: stamps, data: Array(big[..<1600])))
      for _ in 0..<4 { bytes[Int.random(in: 0..<70)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0..<bytes.count))
      bytes.withUnsafeBytes {
        if SegmentTable.tells($0) { table.learn(from: $0) }
        if let size = table.segmentSize(of: $0) { #expect(size >= 8 && size <= 1460) }
      }
    }
  }
}

private func datagram(v6: Bool, from port: Int, to destination: Int, sent: Bool = false, peer: String? = nil) -> [UInt8]
{
  let udp = TestFrame.big(port) + TestFrame.big(destination) + TestFrame.big(9) + [0, 0, 7]
  let there = peer ?? (v6 ? other6 : other)
  let here = v6 ? own6 : own
  return v6
    ? TestFrame.v6(sent ? here : there, sent ? there : here, payload: udp)
    : TestFrame.v4(sent ? here : there, sent ? there : here, payload: udp)
}

/// What may come back to a port that nobody has published.
@Suite struct DatagramFlowsTests {
  private func note(_ flows: inout DatagramFlows, _ packet: [UInt8], _ now: UInt32) {
    TestFrame(packet: packet).bytes.withUnsafeBytes { flows.note(sent: $0, now: now) }
  }

  private func isAnswer(_ flows: inout DatagramFlows, _ packet: [UInt8], _ now: UInt32) -> Bool {
    TestFrame(packet: packet).bytes.withUnsafeBytes { flows.isAnswer($0, now: now) }
  }

  @Test(arguments: [false, true]) func answers(v6: Bool) {
    var flows = DatagramFlows()
    note(&flows, datagram(v6: v6, from: 5000, to: 53, sent: true), 1000)
    func check(_ packet: [UInt8], _ now: UInt32, _ expected: Bool, at place: SourceLocation = #_sourceLocation) {
      let found = isAnswer(&flows, packet, now)
      #expect(found == expected, sourceLocation: place)
    }
    check(datagram(v6: v6, from: 53, to: 5000), 1010, true)
    check(datagram(v6: v6, from: 53, to: 5001), 1010, false)
    check(datagram(v6: v6, from: 54, to: 5000), 1010, false)
    check(datagram(v6: v6, from: 53, to: 5000, peer: v6 ? "fd08::3" : "10.8.0.3"), 1010, false)
    // Each answer makes it live longer.
    check(datagram(v6: v6, from: 53, to: 5000), 1010 + DatagramFlows.lifetime, true)
    check(datagram(v6: v6, from: 53, to: 5000), 1011 + 2 * DatagramFlows.lifetime, false)
    check(segment(v6: v6, port: 53, to: 5000, data: [], reversed: true), 1010, false)
  }

  /// An enclave with ten thousand flows has them all; one that floods the table has at least its last ones.
  @Test func manyFlows() {
    var flows = DatagramFlows()
    for port in 0..<10_000 { note(&flows, datagram(v6: false, from: 1024 + port, to: 53, sent: true), 5) }
    var known = 0
    for port in 0..<10_000 where isAnswer(&flows, datagram(v6: false, from: 53, to: 1024 + port), 6) { known += 1 }
    #expect(known >= 9_990)
    var small = DatagramFlows(count: 64)
    for port in 0..<60_000 {
      note(&small, datagram(v6: true, from: 1024 + port, to: 53, sent: true), UInt32(port))
      let found = isAnswer(&small, datagram(v6: true, from: 53, to: 1024 + port), UInt32(port))
      #expect(found)
    }
  }

  @Test func randomPackets() {
    var flows = DatagramFlows(count: 64)
    for _ in 0..<50_000 {
      var bytes = TestFrame(packet: datagram(v6: Bool.random(), from: 53, to: 5000)).bytes
      for _ in 0..<4 { bytes[Int.random(in: 10..<bytes.count)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0..<bytes.count))
      bytes.withUnsafeBytes {
        flows.note(sent: $0, now: 1)
        _ = flows.isAnswer($0, now: 1)
      }
    }
  }
}

/// Which of the host's packets an enclave with the host's address gets.
@Suite struct SharedCaptureTests {
  private let capture = SharedCapture(
    address4: IPv4Address(own), address6: IPv6Address(own6), ports: share, published: PortSet([80]),
    publishedDatagrams: PortSet([53]))

  private func decide(_ packet: [UInt8]) -> SharedCapture.Decision {
    TestFrame(packet: packet).bytes.withUnsafeBytes { capture.decide($0) { _ in false } }
  }

  @Test(arguments: [false, true]) func decisions(v6: Bool) {
    func arriving(_ port: UInt16, _ flags: UInt8) -> [UInt8] {
      segment(v6: v6, port: 9, to: port, flags: flags, data: [], reversed: true)
    }
    #expect(decide(arriving(80, 0x02)) == .take)
    #expect(decide(arriving(5000, 0x02)) == .refuse)
    #expect(decide(arriving(5000, 0x12)) == .take)
    #expect(decide(arriving(5000, 0x10)) == .take)
    // Datagrams: to a published port, to one where only connections are, and as an answer.
    #expect(decide(datagram(v6: v6, from: 9, to: 53)) == .take)
    #expect(decide(datagram(v6: v6, from: 9, to: 80)) == .leave)
    #expect(
      TestFrame(packet: datagram(v6: v6, from: 9, to: 80)).bytes.withUnsafeBytes { capture.decide($0) { _ in true } }
        == .take)
    func error(_ inner: [UInt8], type: UInt8? = nil) -> [UInt8] {
      let payload = [type ?? (v6 ? 2 : 3), 4, 0, 0, 0, 0, 5, 0] + inner.prefix(v6 ? 48 : 28)
      return v6
        ? TestFrame.v6("fd99::1", own6, transport: 58, payload: payload)
        : TestFrame.v4("10.9.9.1", own, transport: 1, payload: payload)
    }
    #expect(decide(error(segment(v6: v6, data: []))) == .take)
    // About the host's own connection, about somebody else's, and about nothing.
    #expect(decide(error(segment(v6: v6, port: 62000, data: []))) == .leave)
    #expect(decide(error(segment(v6: v6, data: [], reversed: true))) == .leave)
    #expect(decide(error([])) == .leave)
    #expect(
      decide(error(v6 ? TestFrame.v6(own6, other6, transport: 58) : TestFrame.v4(own, other, transport: 1))) == .leave)
  }

  /// RFC 9293 section 3.10.7.1: a client tells a closed port from a black hole by it.
  @Test(arguments: [false, true]) func reset(v6: Bool) throws {
    let syn = segment(v6: v6, port: 9, to: 5000, flags: 0x02, options: [2, 4, 5, 0xb4], data: [7, 7], reversed: true)
    var packet = [UInt8](repeating: 0xee, count: SharedCapture.resetLimit)
    let count = TestFrame(packet: syn).bytes.withUnsafeBytes { frame in
      packet.withUnsafeMutableBytes { $0.baseAddress.map { SharedCapture.reset(frame, $0) } }
    }
    let length = try #require(count)
    let reset = Array(packet[..<length])
    let transport = v6 ? 40 : 20
    #expect(length == transport + 20)
    let expected = segment(v6: v6, port: 5000, to: 9, flags: 0x14, data: [])
    #expect(reset[(v6 ? 8 : 12)..<transport] == expected[(v6 ? 8 : 12)..<transport])
    #expect(Array(reset[transport..<transport + 4]) == TestFrame.big(5000) + TestFrame.big(9))
    // Sequence number 0; it acknowledges the SYN and its two bytes.
    #expect(Array(reset[transport + 4..<transport + 14]) == [0, 0, 0, 0, 0, 0, 1, 3, 0x50, 0x14])
    #expect(isChecked(reset, 6))
    if !v6 { #expect(words(Array(reset[..<20])) == 0xffff) }
  }

  /// A program's connect to where the host has no route fails at once, if its kernel takes this.
  @Test(arguments: [false, true]) func answerToWhatHasNoWay(v6: Bool) throws {
    let codes: [UInt8] = v6 ? [0, 3, 1] : [0, 1, 13]
    for (reason, code) in zip(UnreachableAnswer.Reason.allCases, codes) {
      for length in [0, 5, 3000] {
        let sent = segment(v6: v6, flags: 0x02, data: [UInt8](repeating: 7, count: length))
        let frame = TestFrame(packet: sent).bytes.withUnsafeBytes { UnreachableAnswer.make($0, reason) }
        let guarding = PacketGuard(.enclave, address4: IPv4Address(own), address6: IPv6Address(own6), ports: [80])
        #expect(guarding.defect(in: frame) == nil)
        #expect(frame.withUnsafeBytes { capture.decide($0) { _ in false } } == .take)
        let answer = Array(frame[PacketGuard.offloadHeaderLength...])
        let transport = v6 ? 40 : 20
        #expect(Array(answer[transport...(transport + 1)]) == [v6 ? 1 : 3, code])
        #expect(Array(answer[(transport + 8)...]) == Array(sent.prefix(128)))
        if v6 {
          #expect(isChecked(answer, 58))
        } else {
          #expect(words(Array(answer[..<20])) == 0xffff && words(Array(answer[20...])) == 0xffff)
        }
      }
    }
    for count in 0..<60 {
      let cut = Array(TestFrame(packet: segment(v6: v6, data: [])).bytes.prefix(count))
      #expect(cut.withUnsafeBytes { UnreachableAnswer.make($0, .host) }.count <= 10 + 48 + 60)
    }
  }

  @Test func randomPackets() {
    var room = [UInt8](repeating: 0, count: SharedCapture.resetLimit)
    for _ in 0..<50_000 {
      var bytes = TestFrame(packet: segment(v6: Bool.random(), flags: 2, data: [1], reversed: true)).bytes
      for _ in 0..<6 { bytes[Int.random(in: 10..<bytes.count)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0..<bytes.count))
      bytes.withUnsafeBytes { frame in
        if capture.decide(frame, isAnswer: { _ in true }) == .refuse {
          let length = room.withUnsafeMutableBytes { $0.baseAddress.map { SharedCapture.reset(frame, $0) } }
          #expect(length == 40 || length == 60)
        }
      }
    }
  }
}

/// The enclave speaks in the host's name; these are the limits.
@Suite struct SharedGuardTests {
  private let guarding = PacketGuard(.host, address4: IPv4Address(own), address6: IPv6Address(own6), shared: share)

  private func defect(_ packet: [UInt8]) -> PacketDefect? { guarding.defect(in: TestFrame(packet: packet).bytes) }

  @Test func ports() {
    for v6 in [false, true] {
      #expect(defect(segment(v6: v6, port: 1024, data: [])) == nil)
      #expect(defect(segment(v6: v6, port: 61439, data: [])) == nil)
      for port: UInt16 in [0, 22, 1023, 61440, 65535] {
        #expect(defect(segment(v6: v6, port: port, data: [])) == .foreignPort)
      }
    }
    #expect(defect(TestFrame.v4(own, other, transport: 1)) == .foreignPort)
    #expect(defect(TestFrame.v6(own6, other6, transport: 58)) == .foreignPort)
    #expect(defect(TestFrame.v4(other, other, transport: 6)) == .badSource)
    // Behind a fragment or an extension header anything could be.
    var fragment = segment(v6: false, port: 5000, data: [])
    fragment[6] = 0x20
    #expect(defect(fragment) == .foreignPort)
    fragment[6] = 0
    fragment[7] = 9
    #expect(defect(fragment) == .foreignPort)
    var routed = segment(v6: false, port: 5000, data: [])
    routed[0] = 0x46
    routed.insert(contentsOf: [131, 3, 4, 0], at: 20)
    routed[3] += 4
    #expect(defect(routed) == .foreignPort)
    let hidden = [UInt8](segment(v6: true, port: 5000, data: [])[40...])
    for header: UInt8 in [0, 43, 44, 60] {
      #expect(
        defect(TestFrame.v6(own6, other6, transport: header, payload: [6, 0, 0, 0, 0, 0, 0, 0] + hidden))
          == .foreignPort)
    }
  }

  @Test(arguments: [
    "0.0.0.0", "127.0.0.1", "169.254.169.254", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", own,
  ])
  func reserved(destination: String) {
    #expect(
      defect(
        TestFrame.v4(own, destination, transport: 17, payload: TestFrame.big(5000) + [UInt8](repeating: 0, count: 6)))
        == .badDestination)
  }

  @Test(arguments: ["1.1.1.1", "10.0.0.1", "169.253.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "203.0.112.1"])
  func others(destination: String) {
    #expect(
      defect(
        TestFrame.v4(own, destination, transport: 17, payload: TestFrame.big(5000) + [UInt8](repeating: 0, count: 6)))
        == nil)
  }
}
