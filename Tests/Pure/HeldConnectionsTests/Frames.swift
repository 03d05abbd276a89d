import HeldConnections
import Inet
import Packets

// Frames as a TUN device gives them, built slowly and plainly, unlike what they test.

let program4 = IPAddress.v4(IPv4Address(10, 118, 0, 2))
let program6 = IPAddress("fd54:6f6d:626f:1::2")
let server4 = IPAddress.v4(IPv4Address(93, 184, 216, 34))
let server6 = IPAddress("2001:db8::34")
let virtual4 = IPv4Address(10, 118, 0, 8)
let virtual6 = IPv6Address(high: 0xfd54_6f6d_626f_0001, low: 0x100)
let listenerPort: UInt16 = 61080

func settings(ports: ClosedRange<UInt16> = 1024...65535, count: Int = 4, held: Int = 16384) -> HeldConnections.Settings
{
  guard case .v4(let four) = program4, case .v6(let six) = program6 else { preconditionFailure("constants") }
  var made = HeldConnections.Settings(
    listener4: four, listener6: six, listenerPort: listenerPort, virtual4: virtual4, virtual6: virtual6)
  made.ports = ports
  made.virtualCount = count
  made.heldLimit = held
  return made
}

func big(_ value: Int, _ count: Int = 2) -> [UInt8] {
  (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * (count - 1 - $0))) }
}

func sum(_ bytes: [UInt8]) -> Int {
  var sum = 0
  for index in stride(from: 0, to: bytes.count, by: 2) {
    sum += Int(bytes[index]) << 8 + (index + 1 < bytes.count ? Int(bytes[index + 1]) : 0)
  }
  while sum >> 16 != 0 { sum = (sum & 0xffff) + (sum >> 16) }
  return sum
}

/// - Parameter isPartial: the kernel has left the checksum undone.
func frame(
  _ from: IPEndpoint, _ to: IPEndpoint, _ flags: UInt8, sequence: Int = 1000, acknowledged: Int = 0,
  options: [UInt8] = [], data: [UInt8] = [], isPartial: Bool = false, segmentSize: Int = 0
) -> [UInt8] {
  let is6 = if case .v6 = from.address { true } else { false }
  var tcp =
    big(Int(from.port)) + big(Int(to.port)) + big(sequence, 4) + big(acknowledged, 4)
    + [UInt8((20 + options.count) / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0] + options + data
  let pseudo = from.address.bytes + to.address.bytes + big(6) + big(tcp.count)
  let check = isPartial ? sum(pseudo) : ~sum(pseudo + tcp) & 0xffff
  tcp.replaceSubrange(16..<18, with: big(check))
  var header: [UInt8]
  if is6 {
    header = [0x60, 0, 0, 0] + big(tcp.count) + [6, 64] + from.address.bytes + to.address.bytes
  } else {
    header =
      [0x45, 0] + big(20 + tcp.count) + [0, 1, 0x40, 0, 64, 6, 0, 0] + from.address.bytes + to.address.bytes
    header.replaceSubrange(10..<12, with: big(~sum(header) & 0xffff))
  }
  var virtio = [UInt8](repeating: 0, count: PacketGuard.offloadHeaderLength)
  if isPartial { virtio.replaceSubrange(0..<1, with: [1]) }
  if segmentSize > 0 {
    virtio[1] = is6 ? 4 : 1
    virtio[4] = UInt8(segmentSize & 0xff)
    virtio[5] = UInt8(segmentSize >> 8)
  }
  return virtio + header + tcp
}

extension HeldConnections {
  mutating func take(_ frame: inout [UInt8], now: UInt32 = 0) -> Verdict {
    frame.withUnsafeMutableBytes { take($0, now: now) }
  }

  /// For frames whose new form does not matter.
  mutating func taking(_ frame: [UInt8], now: UInt32 = 0) -> Verdict {
    var frame = frame
    return take(&frame, now: now)
  }
}
