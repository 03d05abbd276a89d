import Inet
import Policy
import Testing

/// What PID 1 tells the proxy of a forward, and what a neighbour's header has: one that is read differently leads elsewhere.
struct StaticForwardTests {
  /// From Marlin's documents: 93.184.216.34:443.
  @Test func salmonsHeader() {
    #expect(StaticForward.salmonHeader(IPv4Address(93, 184, 216, 34), 443) == [0x22, 0xd8, 0xb8, 0x5d, 0xbb, 0x01])
  }

  @Test func whatIsWrittenIsReadBack() throws {
    let forwards = [
      StaticForward(.out(listen: IPEndpoint(.v4(IPv4Address(127, 0, 0, 2)), 443)), vsockPort: 8000),
      StaticForward(.out(listen: IPEndpoint(.v6(.loopback), 1)), vsockPort: 1, header: [0, 255, 7]),
      StaticForward(.incoming(connect: IPEndpoint(.v4(.loopback), 65535)), vsockPort: 0xffff_fffe),
    ]
    let bytes = forwards.flatMap(\.encoded)
    #expect(StaticForward.decode(bytes) == forwards)
    #expect(StaticForward.decode([]) == [])
    let ends = forwards.indices.map { forwards[...$0].flatMap(\.encoded).count }
    for count in 1..<bytes.count where !ends.contains(count) {
      #expect(StaticForward.decode(bytes.prefix(count)) == nil)
    }
    for _ in 0..<20_000 {
      var other = bytes
      for _ in 0..<Int.random(in: 1...4) { other[Int.random(in: 0..<other.count)] = UInt8.random(in: 0...255) }
      if let read = StaticForward.decode(other) { #expect(StaticForward.decode(read.flatMap(\.encoded)) == read) }
    }
  }
}
