import Foundation
import Inet
import Testing

@testable import Packets

/// More of them than in every run: $TOMBOLO_HOSTILE_PACKETS.
private let hostilePackets = ProcessInfo.processInfo.environment["TOMBOLO_HOSTILE_PACKETS"].flatMap { Int($0) }

/// Packets that the proxy makes for the program, and those that it puts together.
struct DatagramPacketTests {
  private let room = [UInt8](repeating: 0xee, count: PacketGuard.frameLimit)
  private static let ends: [(IPAddress, IPAddress)] = [
    (.v4(IPv4Address(10, 9, 0, 2)), .v4(IPv4Address(192, 0, 0, 2))),
    (.v6(IPv6Address(high: 0xfd09 << 48, low: 2)), .v6(IPv6Address(high: 0xfd54_6f6d_626f_0001, low: 2))),
  ]

  private func made(_ body: (UnsafeMutableRawBufferPointer) -> Int) -> [UInt8] {
    var room = room
    let length = room.withUnsafeMutableBytes(body)
    return Array(room[..<length])
  }

  /// RFC 1071: with its checksum in it, what is summed gives ones.
  private func isSummed(_ bytes: [UInt8]) -> Bool {
    var sum = 0
    for index in stride(from: 0, to: bytes.count, by: 2) {
      sum += Int(bytes[index]) << 8 | (index + 1 < bytes.count ? Int(bytes[index + 1]) : 0)
    }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return sum == 0xffff
  }

  private func transport(_ packet: [UInt8], _ is4: Bool, pseudo: Bool) -> [UInt8] {
    let length = packet.count - (is4 ? 20 : 40)
    let addresses = is4 ? packet[12..<20] : packet[8..<40]
    let number = is4 ? packet[9] : packet[6]
    let header = pseudo ? Array(addresses) + [0, number, UInt8(length >> 8), UInt8(length & 255)] : []
    return header + packet[(is4 ? 20 : 40)...]
  }

  /// A checksum that is wrong would have a program's raw socket, or a capture, call the answer broken.
  @Test func packetsAreWhole() {
    for (far, own) in Self.ends {
      let is4 = far.bitCount == 32
      for count in [0, 1, 2, 1399, 1400, 65507] {
        let data = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let udp = made { room in
          data.withUnsafeBytes {
            DatagramPacket.udp(from: IPEndpoint(far, 53), to: IPEndpoint(own, 5000), $0, into: room)
          }
        }
        let packet = Array(udp[10...])
        #expect(Array(packet.suffix(count)) == data)
        #expect(!is4 || isSummed(Array(packet[..<20])))
        #expect(isSummed(transport(packet, is4, pseudo: true)))
        udp.withUnsafeBytes { bytes in
          let flow = FlowPacket(bytes, isLeaving: false)
          #expect(flow?.kind == .udp && flow?.remote == far && flow?.remotePort == 53 && flow?.localPort == 5000)
          #expect(flow?.isWholeDatagram(bytes) == true)
        }
      }
      for isReply in [false, true] {
        let echo = made { room in
          let data: [UInt8] = [0, 7, 1, 2, 3]
          return data.withUnsafeBytes {
            DatagramPacket.echo(isReply: isReply, from: far, to: own, identifier: 0x1234, $0, into: room)
          }
        }
        let packet = Array(echo[10...])
        #expect(isSummed(transport(packet, is4, pseudo: !is4)))
        echo.withUnsafeBytes { bytes in
          let flow = FlowPacket(bytes, isLeaving: false)
          #expect(flow?.kind == (isReply ? .echoReply : .echo) && flow?.localPort == 0x1234)
        }
      }
    }
    let long = [UInt8](repeating: 0, count: 65508)
    let (far, own) = Self.ends[0]
    #expect(
      made { room in
        long.withUnsafeBytes { DatagramPacket.udp(from: IPEndpoint(far, 1), to: IPEndpoint(own, 1), $0, into: room) }
      }.isEmpty)
  }

  private func fragments(_ frame: [UInt8], _ is4: Bool, _ size: Int, identification: UInt8) -> [[UInt8]] {
    let header = is4 ? 20 : 40
    let data = Array(frame[(10 + header)...])
    return stride(from: 0, to: data.count, by: size).map { start in
      let part = data[start..<min(start + size, data.count)]
      let more = start + size < data.count
      var made = Array(frame[..<(10 + header)])
      if is4 {
        let length = 20 + part.count
        (made[12], made[13]) = (UInt8(length >> 8), UInt8(length & 255))
        (made[14], made[15]) = (0, identification)
        let place = start / 8 | (more ? 0x2000 : 0)
        (made[16], made[17]) = (UInt8(place >> 8), UInt8(place & 255))
      } else {
        let length = 8 + part.count
        (made[14], made[15]) = (UInt8(length >> 8), UInt8(length & 255))
        made += [made[16], 0, UInt8(start >> 8), UInt8(start & 0xf8) | (more ? 1 : 0), 0, 0, 0, identification]
        made[16] = 44
      }
      return made + part
    }
  }

  /// A datagram that is longer than the link takes leaves its kernel in fragments, and arrives as one.
  @Test func fragmentsAreJoined() throws {
    for (own, far) in Self.ends {
      let is4 = own.bitCount == 32
      let frames = [8000, 60000].map { count in
        made { room in
          [UInt8](repeating: 5, count: count).withUnsafeBytes {
            DatagramPacket.udp(from: IPEndpoint(own, 1), to: IPEndpoint(far, 2), $0, into: room)
          }
        }
      }
      let pieces = frames.enumerated().map { fragments($1, is4, 1480, identification: UInt8($0)) }
      var assembly = FragmentAssembly()
      var whole: [[UInt8]] = []
      for index in 0..<pieces[1].count {
        for list in pieces where index < list.count {
          if let made = list[index].withUnsafeBytes({ assembly.add($0) }) { whole.append(made) }
        }
      }
      #expect(whole.count == 2)
      for (made, frame) in zip(whole, frames) {
        made.withUnsafeBytes { bytes in
          let packet = FlowPacket(bytes, isLeaving: true)
          #expect(packet?.isFragment == false && packet?.isWholeDatagram(bytes) == true)
        }
        #expect(made[(10 + (is4 ? 20 : 40))...] == frame[(10 + (is4 ? 20 : 40))...])
      }
      // One is missing, comes twice, or is another's: nothing is made of them.
      for change in 0..<3 {
        var list = pieces[0]
        if change == 0 {
          list.remove(at: 1)
        } else if change == 1 {
          list.insert(list[1], at: 1)
        } else {
          list[1][10 + (is4 ? 5 : 47)] ^= 9
        }
        #expect(list.allSatisfy { $0.withUnsafeBytes { assembly.add($0) } == nil })
      }
    }
  }

  /// Any bytes: something or nothing, and never a trap.
  @Test func anyBytesAreTaken() {
    var random = SystemRandomNumberGenerator()
    var assembly = FragmentAssembly()
    for _ in 0..<(hostilePackets ?? 20_000) {
      var bytes = (0..<Int.random(in: 0..<120, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      if bytes.count > 17 {
        bytes[10] = Bool.random(using: &random) ? 0x45 : 0x60; bytes[16] = Bool.random(using: &random) ? 44 : 0x20
      }
      _ = bytes.withUnsafeBytes { assembly.add($0) }
      _ = bytes.withUnsafeBytes { UnreachableAnswer.make($0, tooLongFor: 1300) }
    }
  }

  @Test func tooLong() {
    for (own, far) in Self.ends {
      let is4 = own.bitCount == 32
      let sent = made { room in
        [UInt8](repeating: 1, count: 1400).withUnsafeBytes {
          DatagramPacket.udp(from: IPEndpoint(own, 1), to: IPEndpoint(far, 2), $0, into: room)
        }
      }
      let answer = Array(sent.withUnsafeBytes { UnreachableAnswer.make($0, tooLongFor: 1300) }[10...])
      let icmp = is4 ? 20 : 40
      #expect(Array(answer[icmp..<icmp + 2]) == (is4 ? [3, 4] : [2, 0]))
      #expect(Array(answer[icmp + 4..<icmp + 8]) == [0, 0, 5, 20])
      #expect(isSummed(transport(answer, is4, pseudo: !is4)))
    }
  }
}
