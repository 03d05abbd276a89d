import CLinux
import Netfilter
import Testing

@testable import Netlink

/// nfnetlink_queue's messages: what is sent byte for byte, and what is read whatever it is.
@Suite struct CaptureTests {
  /// struct nlmsghdr, struct nfgenmsg with the queue as its resource, then the attributes of the kernel's header.
  @Test func configuration() throws {
    let bytes = try #require(
      MessageBytes.encode([CaptureSocket.bind(.init(7767, takesSuperPackets: true))], firstSequence: 1))
    #expect(
      bytes == [
        64, 0, 0, 0, 2, 3, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0x1e, 0x57,
        // NFQA_CFG_CMD: bind.
        8, 0, 1, 0, 1, 0, 0, 0,
        // NFQA_CFG_PARAMS: 65535 bytes, NFQNL_COPY_PACKET.
        9, 0, 2, 0, 0, 0, 0xff, 0xff, 2, 0, 0, 0,
        // NFQA_CFG_QUEUE_MAXLEN.
        8, 0, 3, 0, 0, 0, 0x10, 0,
        // NFQA_CFG_MASK: GSO and fail-open; NFQA_CFG_FLAGS: GSO.
        8, 0, 4, 0, 0, 0, 0, 5,
        8, 0, 5, 0, 0, 0, 0, 4,
      ])
  }

  /// A message as Linux 6.18 sends it.
  static func message(
    queue: UInt16 = 7767, id: UInt32 = 9, information: UInt32 = 3, whole: UInt32? = nil,
    payload: [UInt8] = Array(repeating: 0x45, count: 41)
  ) -> [UInt8] {
    var attributes: [NetlinkAttribute] = [
      .init(UInt16(NFQA_PACKET_HDR.rawValue), .bytes(withUnsafeBytes(of: id.bigEndian) { Array($0) } + [8, 0, 3])),
      .bigEndian(UInt16(NFQA_IFINDEX_OUTDEV.rawValue), UInt32(2)),
      .bigEndian(UInt16(NFQA_SKB_INFO.rawValue), information),
    ]
    if let whole { attributes.append(.bigEndian(UInt16(NFQA_CAP_LEN.rawValue), whole)) }
    attributes.append(.init(UInt16(NFQA_PAYLOAD.rawValue), .bytes(payload)))
    let message = NetlinkMessage(
      type: UInt16(CLINUX_QUEUE_PACKET), flags: 0, header: [2, 0, UInt8(queue >> 8), UInt8(queue & 255)],
      attributes: attributes, label: "")
    return MessageBytes.encode([message], firstSequence: 0) ?? []
  }

  @Test func packet() throws {
    var bytes = Self.message()
    var packet = try #require(bytes.withUnsafeBytes { CapturedPacket($0) })
    #expect(packet.queue == 7767 && packet.id == 9)
    #expect(packet.needsChecksum && packet.isSuperPacket && !packet.isUnverified)
    #expect(Array(bytes[packet.payload]) == Array(repeating: 0x45, count: 41))
    // More than a message can carry: a verdict can be given, the packet cannot be used.
    bytes = Self.message(information: 4, whole: 65535)
    packet = try #require(bytes.withUnsafeBytes { CapturedPacket($0) })
    #expect(packet.payload.isEmpty && packet.isUnverified && !packet.needsChecksum)
  }

  @Test func randomBytes() {
    let whole = Self.message(whole: 100)
    for _ in 0..<200_000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 0...5) { bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0...bytes.count) * Int.random(in: 0...1))
      bytes.withUnsafeBytes { buffer in
        guard let packet = CapturedPacket(buffer) else { return }
        #expect(packet.payload.upperBound <= buffer.count)
      }
    }
  }
}
