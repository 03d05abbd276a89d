import CLinux
import Foundation
import Inet
import LinuxSystem
import Netfilter
import Netlink
import Testing

/// The kernel's packet queues, with rules of either kind.
@Suite(.serialized) struct CaptureSocketTests {
  static let rules = Ruleset.capture(link: "lo", firstQueue: 100, queues: 2, ipv6: true)

  /// A program's datagram is handed to us as it left, and goes on when we say so, and not before.
  @Test func packetsAndVerdicts() throws {
    try inNetworkNamespace {
      try shell("ip link set lo up")
      try XTables.apply(Self.rules)
      let file = try CaptureSocket.open([.init(100, takesSuperPackets: false)])
      #expect(CaptureSocket.isBound(100) && !CaptureSocket.isBound(101))
      let receiver = try TestSocket.listener(Int32(SOCK_DGRAM.rawValue), try endpoint("127.0.0.1:9000"))
      let sender = try TestSocket.listener(Int32(SOCK_DGRAM.rawValue), try endpoint("127.0.0.1:9001"))
      for text in ["one", "two", "three"] { try sender.send(text, to: try endpoint("127.0.0.1:9000")) }
      var ids: [UInt32] = []
      for text in ["one", "two", "three"] {
        var buffer = [UInt8](repeating: 0, count: 70_000)
        let count = clinux_read(file.rawValue, &buffer, buffer.count)
        try #require(count > 0)
        let packet = try #require(buffer[..<count].withUnsafeBytes { CapturedPacket($0) })
        #expect(packet.queue == 100)
        let bytes = Array(buffer[packet.payload])
        #expect(bytes.count == 28 + text.utf8.count && bytes[0] == 0x45 && bytes[9] == 17)
        #expect(String(decoding: bytes[28...], as: UTF8.self) == text)
        ids.append(packet.id)
      }
      // The second passes; up to the third all others are thrown away.
      try #require(clinux_queue_verdict(file.rawValue, 100, ids[1], UInt32(CLINUX_NF_ACCEPT), false) == 0)
      try #require(clinux_queue_verdict(file.rawValue, 100, ids[2], UInt32(CLINUX_NF_DROP), true) == 0)
      #expect(try receiver.receive().text == "two")
      let left = try shell("cat /proc/thread-self/net/netfilter/nfnetlink_queue").split(separator: " ")
      // Queue, port id, packets that wait.
      #expect(left.first == "100" && left[2] == "0")
    }
  }

  /// A queue has one owner, and goes with it.
  @Test func oneOwner() throws {
    try inNetworkNamespace {
      do {
        let first = try CaptureSocket.open([.init(100, takesSuperPackets: true)])
        let error = #expect(throws: NetlinkError.self) {
          _ = try CaptureSocket.open([.init(100, takesSuperPackets: true)])
        }
        #expect(error?.errno == EPERM)
        _ = try CaptureSocket.open([.init(101, takesSuperPackets: true)])
        withExtendedLifetime(first) {}
      }
      _ = try CaptureSocket.open([.init(100, takesSuperPackets: true)])
    }
  }
}
