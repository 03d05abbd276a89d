import Inet
import Packets
import Testing

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
        ? TestFrame.v6(
          "fd99::1", hostAddress6, transport: 58, payload: [2, 0, 0, 0, 0, 0] + TestFrame.big(mtu) + inner)
        : TestFrame.v4("10.9.9.1", hostAddress, transport: 1, payload: [3, 4, 0, 0, 0, 0] + TestFrame.big(mtu) + inner)
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
