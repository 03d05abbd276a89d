import Inet
import Wire

@testable import Packets

/// Datagrams in TCP mode: packets of the program, whole and in fragments, of which nothing is read or made outside of a packet;
/// and messages of either side, which are one thing or an error.
let datagrams = Harness("datagrams", limit: 4096) { bytes in
  var choices = Choices(bytes)
  var assembly = FragmentAssembly()
  let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 8192, alignment: 16)
  defer { room.deallocate() }
  while !choices.isEmpty {
    var frame = [UInt8](repeating: 0, count: 10)
    frame += choices.bytes(Int(choices.byte()) * 4)
    if choices.flag() { fragment(&frame, choices.byte()) }
    let whole = frame.withUnsafeBytes { assembly.add($0) }
    whole?.withUnsafeBytes { bytes in
      check(bytes.count <= PacketGuard.frameLimit, "a packet that is too long")
      guard let packet = FlowPacket(bytes, isLeaving: true) else { return }
      check(packet.payload.upperBound <= bytes.count, "a payload behind the frame")
      _ = UnreachableAnswer.make(bytes, tooLongFor: 1280)
    }
  }
  bytes.withUnsafeBytes { payload in
    for address in [IPAddress.v4(.loopback), .v6(.loopback)] {
      let length = DatagramPacket.udp(from: IPEndpoint(address, 1), to: IPEndpoint(address, 2), payload, into: room)
      check((0...room.count).contains(length), "a packet outside of its room")
      if length > 0 {
        let packet = FlowPacket(UnsafeRawBufferPointer(rebasing: room[..<length]), isLeaving: true)
        check(packet?.payload.count == payload.count, "another datagram")
      }
      _ = DatagramPacket.echo(isReply: true, from: address, to: address, identifier: 3, payload, into: room)
    }
  }
  // Not the same bytes: names are kept in small letters.
  if let message = try? DatagramMessage(bytes) {
    check((try? DatagramMessage(message.encoded())) == message, "a message that is read otherwise")
  }
  var sockets = DatagramSocketTable(own: [.v4(.loopback)])
  sockets.add(bytes)
  arrivals(&choices, bytes)
}

/// Clients of a published port that come and go: each that is there is found by what the program sees, or a newer one is.
private func arrivals(_ choices: inout Choices, _ bytes: [UInt8]) {
  choices = Choices(bytes)
  var table = ArrivalTable()
  while !choices.isEmpty {
    let number = UInt32(choices.byte() & 15)
    guard choices.flag() else {
      table.close(number)
      check(table[number] == nil, "a client that has gone")
      continue
    }
    let raw = UInt32(choices.byte()) << 24 | UInt32(choices.byte() & 3)
    let client = IPEndpoint(.v4(IPv4Address(rawValue: raw)), 65535 - UInt16(choices.byte() & 1))
    guard let made = table.open(number, port: 53, client: client) else { continue }
    check(table.number(port: 53, shown: made.shown) == number, "a client that is not found")
    check(made.shown.port != 0, "a port that is none")
  }
}

/// Makes a fragment of it: the more of them, the more are of one datagram.
private func fragment(_ frame: inout [UInt8], _ place: UInt8) {
  guard frame.count >= 10 + 48 else { return }
  if place & 0x80 != 0 {
    frame[10] = 0x60
    frame[16] = 44
    for index in 18..<50 { frame[index] = 0 }
    (frame[52], frame[53]) = (0, place & 0x79)
  } else {
    frame[10] = 0x45
    frame[14] = 0
    frame[15] = 0
    (frame[16], frame[17]) = (place & 0x20, place & 0x0f)
    for index in 19..<30 where index != 20 && index != 21 { frame[index] = 17 }
  }
}
