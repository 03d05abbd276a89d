import Foundation
import Inet
import Testing

@testable import Wire

/// More of them than in every run: $TOMBOLO_HOSTILE_PACKETS.
private let hostilePackets = ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_PACKETS"].flatMap { Int($0) }

/// What goes over a datagrams stream.
struct DatagramMessageTests {
  private static let name = try? DomainName(text: "a.example")
  private static let flows = [
    DatagramFlow(.udp, IPEndpoint(.v4(IPv4Address(93, 184, 216, 34)), 443)),
    DatagramFlow(.udp, IPEndpoint(.v6(IPv6Address(high: 0x2001_0db8 << 32, low: 1)), 53), name: name),
    DatagramFlow(.echo, IPEndpoint(.v4(IPv4Address(8, 8, 8, 8)), 0), name: name),
  ]
  private static let messages: [DatagramMessage] =
    flows.map { .open(7, $0) } + [
      .datagram(0x0102_0304, mayFragment: false, [1, 2, 3]), .datagram(.max, mayFragment: true, []), .close(9),
      .failed(3, .refused, mtu: 0), .failed(3, .failed, mtu: 1280), .listening([]), .listening([443, 53]),
      .arrival(1 << 31, DatagramArrival(port: 53, client: IPEndpoint(.v4(IPv4Address(10, 0, 0, 9)), 40000))),
      .arrival(
        .max, DatagramArrival(port: 443, client: IPEndpoint(.v6(IPv6Address(high: 0x2001_0db8 << 32, low: 1)), 1))),
    ]

  @Test func goldenBytes() {
    let expected: [[UInt8]] = [
      [1, 0, 0, 0, 7, 17, 4, 1, 0xbb, 93, 184, 216, 34],
      [1, 0, 0, 0, 7, 17, 6, 0, 53, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 10, 1, 0x61, 7]
        + Array("example".utf8),
      [1, 0, 0, 0, 7, 1, 4, 0, 0, 8, 8, 8, 8, 10, 1, 0x61, 7] + Array("example".utf8),
      [2, 1, 2, 3, 4, 1, 2, 3], [3, 0xff, 0xff, 0xff, 0xff], [4, 0, 0, 0, 9], [5, 0, 0, 0, 3, 1, 0, 0],
      [5, 0, 0, 0, 3, 11, 5, 0], [6, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0, 53, 1, 0xbb],
      [7, 0x80, 0, 0, 0, 0, 53, 4, 0x9c, 0x40, 10, 0, 0, 9],
      [7, 0xff, 0xff, 0xff, 0xff, 1, 0xbb, 6, 0, 1, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
    for (message, bytes) in zip(Self.messages, expected) { #expect(message.encoded() == bytes) }
  }

  @Test func whatIsWrittenIsRead() throws {
    for message in Self.messages { #expect(try DatagramMessage(message.encoded()) == message) }
  }

  @Test func whatIsRefused() {
    let wrong: [[UInt8]] = [
      [], [0, 0, 0, 0, 1], [6, 0, 0, 0, 1], [2, 0, 0, 0], [4, 0, 0, 0, 1, 0], [5, 0, 0, 0, 1, 0, 0, 0],
      [5, 0, 0, 0, 1, 99, 0, 0], [5, 0, 0, 0, 1, 1, 0], [1, 0, 0, 0, 1, 6, 4, 0, 1, 1, 2, 3, 4],
      [1, 0, 0, 0, 1, 17, 5, 0, 1, 1, 2, 3, 4], [1, 0, 0, 0, 1, 17, 4, 0, 0, 1, 2, 3, 4],
      [1, 0, 0, 0, 1, 1, 4, 0, 1, 1, 2, 3, 4], [1, 0, 0, 0, 1, 17, 4, 0, 1, 1, 2, 3],
      [1, 0, 0, 0, 1, 17, 4, 0, 1, 1, 2, 3, 4, 0], [1, 0, 0, 0, 1, 17, 4, 0, 1, 1, 2, 3, 4, 2, 1, 0x61, 9],
      // Numbers of the other side, another order, ports that nobody can have.
      [1, 0x80, 0, 0, 1, 17, 4, 0, 1, 1, 2, 3, 4], [7, 0, 0, 0, 1, 0, 53, 4, 0, 1, 1, 2, 3, 4],
      [6, 0, 0, 0, 0, 0, 53, 0, 53], [6, 0, 0, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0],
      [7, 0x80, 0, 0, 1, 0, 0, 4, 0, 1, 1, 2, 3, 4], [7, 0x80, 0, 0, 1, 0, 53, 4, 0, 0, 1, 2, 3, 4],
      [7, 0x80, 0, 0, 1, 0, 53, 4, 0, 1, 1, 2, 3], [7, 0x80, 0, 0, 1, 0, 53, 5, 0, 1, 1, 2, 3, 4],
      [7, 0x80, 0, 0, 1, 0, 53, 4, 0, 1, 1, 2, 3, 4, 5],
    ]
    for bytes in wrong { #expect(throws: WireError.self, "\(bytes)") { try DatagramMessage(bytes) } }
  }

  /// Any bytes are a message, which is written as it was read, or an error.
  @Test func anyBytes() {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<(hostilePackets ?? 20_000) {
      var bytes = (0..<Int.random(in: 0..<40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      if !bytes.isEmpty { bytes[0] = UInt8.random(in: 0...8, using: &random) }
      if let message = try? DatagramMessage(bytes), message.encoded() != bytes { Issue.record("\(bytes)") }
    }
  }
}
