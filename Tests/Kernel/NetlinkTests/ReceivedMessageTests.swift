import CLinux
import Netfilter
import Testing

@testable import Netlink

/// What the kernel says is parsed totally: a short or odd message must not bring PID 1 down.
@Suite struct ReceivedMessageTests {
  /// `add route 10.0.0.0/8 via 192.0.2.1`: error, request's header (capped), words, as Linux 6.1 sends it.
  @Test func extendedAck() throws {
    let words = "Nexthop has invalid gateway"
    var datagram = try #require(
      MessageBytes.encode(
        [
          NetlinkMessage(
            type: UInt16(NLMSG_ERROR), flags: UInt16(NLM_F_CAPPED | NLM_F_ACK_TLVS),
            header: bytes(Int32(0 - ENETUNREACH)) + bytes(UInt32(60)) + Array(repeating: 0, count: 12),
            attributes: [.native(2, UInt32(28)), .string(1, words)], label: "")
        ], firstSequence: 7))
    var message = try #require(ReceivedMessage.all(in: datagram).first)
    #expect(message.sequence == 7)
    var thrown = #expect(throws: NetlinkError.self) { try NetlinkSocket.throwError(in: message, "add route x") }
    #expect(thrown?.description == "add route x: Network is unreachable (ENETUNREACH): \(words)")

    // Not capped: the request, here of 8 bytes more than its header, stands before the words.
    datagram = try #require(
      MessageBytes.encode(
        [
          NetlinkMessage(
            type: UInt16(NLMSG_ERROR), flags: UInt16(NLM_F_ACK_TLVS),
            header: bytes(Int32(0 - EPERM)) + bytes(UInt32(24)) + Array(repeating: 9, count: 12 + 8),
            attributes: [.string(1, words)], label: "")
        ], firstSequence: 7))
    message = try #require(ReceivedMessage.all(in: datagram).first)
    thrown = #expect(throws: NetlinkError.self) { try NetlinkSocket.throwError(in: message, "x") }
    #expect(thrown?.explanation == words)

    // No flag, no words (Linux before 4.12).
    message.flags = 0
    thrown = #expect(throws: NetlinkError.self) { try NetlinkSocket.throwError(in: message, "x") }
    #expect(thrown == NetlinkError("x", errno: EPERM))
    message.payload = bytes(Int32(0)) + Array(repeating: 0, count: 16)
    #expect(throws: Never.self) { try NetlinkSocket.throwError(in: message, "x") }
    message.payload = [1, 2, 3]
    thrown = #expect(throws: NetlinkError.self) { try NetlinkSocket.throwError(in: message, "x") }
    #expect(thrown?.errno == EBADMSG)
  }

  /// Cut off, changed and made-up messages of every type that we read.
  @Test func randomBytes() throws {
    func message(_ type: Int32, _ header: [UInt8], _ attributes: [NetlinkAttribute]) -> NetlinkMessage {
      NetlinkMessage(type: UInt16(type), flags: 0x300, header: header, attributes: attributes, label: "")
    }
    let zeros = { (count: Int) in [UInt8](repeating: 0, count: count) }
    let whole = [
      message(NLMSG_ERROR, bytes(Int32(-1)) + bytes(UInt32(16)) + zeros(12), [.string(1, "words")]),
      message(NLMSG_DONE, zeros(4), []),
      message(
        Int32(RTM_NEWLINK), zeros(4) + bytes(Int32(7)) + zeros(8), [.string(3, "eth0"), .native(4, UInt32(1500))]),
      message(Int32(RTM_NEWADDR), [2, 8, 0, 0] + bytes(UInt32(7)), [.init(2, .bytes([10, 0, 0, 1]))]),
      message(
        Int32(RTM_NEWROUTE), [2, 8, 0, 0, 254, 3, 0, 1] + zeros(4),
        [.init(1, .bytes([10, 0, 0, 0])), .native(4, UInt32(7)), .init(5, .bytes([10, 0, 0, 1]))]),
    ]
    var understood = 0
    for round in 0..<10_000 {
      var datagram = try #require(MessageBytes.encode([whole[round % whole.count]], firstSequence: 1))
      // The first part of the header is left alone most of the time: too much would be refused at the first look.
      for _ in 0..<round % 4 {
        datagram[Int.random(in: (round % 7 == 0 ? 0 : 16)..<datagram.count)] = .random(
          in: 0...(round % 2 == 0 ? 16 : 255))
      }
      if round % 5 == 0 { datagram.removeLast(Int.random(in: 0...datagram.count)) }
      if round % 11 == 0 { datagram += (0..<Int.random(in: 0...60)).map { _ in UInt8.random(in: 0...255) } }
      for message in ReceivedMessage.all(in: datagram) {
        try? NetlinkSocket.throwError(in: message, "")
        let values: [Any?] = [Link(message), LinkAddress(message), Route(message)]
        if values.contains(where: { $0 != nil }) { understood += 1 }
      }
    }
    // Sixty in a hundred are of the three, and about half of those are still whole.
    #expect(understood > 1000)
  }

  @Test func severalMessages() throws {
    let one = NetlinkMessage(type: 20, flags: 2, header: [1, 2, 3, 4, 5], attributes: [], label: "")
    let datagram = try #require(MessageBytes.encode([one, one], firstSequence: .max))
    let messages = ReceivedMessage.all(in: datagram)
    #expect(messages.map(\.sequence) == [.max, 0])
    #expect(messages.map(\.payload.count) == [8, 8])
    // The last one may lack its padding, and what is not whole is not there.
    #expect(ReceivedMessage.all(in: Array(datagram.dropLast(1))).count == 1)
    #expect(ReceivedMessage.all(in: []).isEmpty)
    #expect(ReceivedMessage.all(in: Array(repeating: 0, count: 64)).isEmpty)
  }

  private func bytes(_ number: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: number) { Array($0) } }
}
