import Packets

// Packets of an enclave that has the host's address.

let hostAddress = "192.0.43.8"
let peerAddress = "10.8.0.2"
let hostAddress6 = "2001:db8::1"
let peerAddress6 = "fd08::2"
let share = PortSet(ranges: [80...80, 1024...61439])

/// A TCP segment with correct lengths and, of its checksum, the pseudo-header's sum, as a kernel leaves it.
func segment(
  v6: Bool, port: UInt16 = 5000, to destination: UInt16 = 80, flags: UInt8 = 0x18, options: [UInt8] = [], data: [UInt8],
  reversed: Bool = false
) -> [UInt8] {
  let tcp =
    TestFrame.big(Int(port)) + TestFrame.big(Int(destination)) + [0, 0, 1, 0, 0, 0, 0, 9]
    + [UInt8((20 + options.count) / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0] + options + data
  let packet =
    v6
    ? TestFrame.v6(
      reversed ? peerAddress6 : hostAddress6, reversed ? hostAddress6 : peerAddress6, transport: 6, payload: tcp)
    : TestFrame.v4(
      reversed ? peerAddress : hostAddress, reversed ? hostAddress : peerAddress, transport: 6, payload: tcp)
  return packet
}

func undone(_ packet: [UInt8], number: UInt8) -> [UInt8] {
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

func pseudo(_ packet: [UInt8], _ number: UInt8, _ length: Int) -> UInt32 {
  let addresses = packet[0] >> 4 == 6 ? packet[8..<40] : packet[12..<20]
  return words(Array(addresses)) + UInt32(number) + UInt32(length)
}

/// Slow and plain, unlike what it checks.
func words(_ bytes: [UInt8]) -> UInt32 {
  var sum: UInt32 = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += UInt32(bytes[index]) << 8 + (index + 1 < bytes.count ? UInt32(bytes[index + 1]) : 0)
    sum = (sum & 0xffff) + (sum >> 16)
  }
  return sum
}

/// Whether the transport's checksum is right.
func isChecked(_ packet: [UInt8], _ number: UInt8) -> Bool {
  let transport = packet[0] >> 4 == 6 ? 40 : 20
  var sum = words(Array(packet[transport...])) + pseudo(packet, number, packet.count - transport)
  while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
  return sum == 0xffff
}

func datagram(v6: Bool, from port: Int, to destination: Int, sent: Bool = false, peer: String? = nil) -> [UInt8] {
  let udp = TestFrame.big(port) + TestFrame.big(destination) + TestFrame.big(9) + [0, 0, 7]
  let there = peer ?? (v6 ? peerAddress6 : peerAddress)
  let here = v6 ? hostAddress6 : hostAddress
  return v6
    ? TestFrame.v6(sent ? here : there, sent ? there : here, payload: udp)
    : TestFrame.v4(sent ? here : there, sent ? there : here, payload: udp)
}
