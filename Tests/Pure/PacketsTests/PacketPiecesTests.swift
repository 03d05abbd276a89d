import Inet
import Packets
import Testing

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
      PacketGuard(.host, address4: IPv4Address(hostAddress), address6: IPv6Address(hostAddress6), shared: share).defect(
        in: frame.bytes)
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
      v6
        ? TestFrame.v6(hostAddress6, peerAddress6, payload: udp) : TestFrame.v4(hostAddress, peerAddress, payload: udp),
      number: 17)
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
    var packet = TestFrame.v4(hostAddress, peerAddress, payload: [UInt8](repeating: 0, count: 2000))
    packet[6] = 0x40
    #expect(defect(TestFrame(packet: packet)) == .badTotalLength)
    let tcp = segment(v6: false, data: [1, 2, 3])
    #expect(defect(TestFrame(flags: 1, checksumStart: 24, checksumOffset: 2, packet: tcp)) == .badChecksumPlace)
    #expect(defect(TestFrame(segmentation: 5, segmentSize: 100, packet: tcp)) == .badOffload)
    #expect(defect(TestFrame(segmentation: 1, packet: tcp)) == .badSegmentSize)
    #expect(defect(TestFrame(packet: TestFrame.v4(hostAddress, peerAddress, transport: 1))) == .foreignPort)
  }

  /// Whatever a hostile enclave sends: the guard's word, or pieces that are no longer than they may be.
  @Test func randomFrames() throws {
    let guarding = PacketGuard(
      .host, address4: IPv4Address(hostAddress), address6: IPv6Address(hostAddress6), shared: share)
    var generator = SystemRandomNumberGenerator()
    var passed = 0
    for round in 0..<60_000 {
      let v6 = Bool.random()
      let data = [UInt8](repeating: 1, count: Int.random(in: 0...3000, using: &generator))
      let udp = TestFrame.big(5000) + TestFrame.big(53) + TestFrame.big(8 + data.count) + [0, 0] + data
      let packet =
        round % 2 == 0
        ? segment(v6: v6, options: [UInt8](repeating: 1, count: 4 * Int.random(in: 0...10)), data: data)
        : v6
          ? TestFrame.v6(hostAddress6, peerAddress6, payload: udp)
          : TestFrame.v4(hostAddress, peerAddress, payload: udp)
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
