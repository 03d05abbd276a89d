import Inet
import Packets

/// One end of a connection as the packet has it, in host byte order.
struct SegmentEnd: Equatable {
  /// 0 for IPv4.
  var high: UInt64
  var low: UInt64
  var port: UInt16

  init(high: UInt64, low: UInt64, port: UInt16) {
    self.high = high
    self.low = low
    self.port = port
  }

  init(_ address: IPAddress, _ port: UInt16) {
    switch address {
    case .v4(let four): self.init(high: 0, low: UInt64(four.rawValue), port: port)
    case .v6(let six): self.init(high: six.high, low: six.low, port: port)
    }
  }

  func endpoint(is6: Bool) -> IPEndpoint {
    IPEndpoint(
      is6 ? .v6(IPv6Address(high: high, low: low)) : .v4(IPv4Address(rawValue: UInt32(truncatingIfNeeded: low))), port)
  }
}

/// Where the parts of a whole TCP segment are in a frame of a TUN device: a virtio-net header and a packet. Total: any
/// bytes are a segment or none.
struct Segment {
  static let fin: UInt8 = 0x01
  static let syn: UInt8 = 0x02
  static let reset: UInt8 = 0x04
  static let acknowledgement: UInt8 = 0x10

  private static let start = PacketGuard.offloadHeaderLength
  /// VIRTIO_NET_HDR_F_NEEDS_CSUM of linux/virtio_net.h: the checksum's field has the sum of the pseudo-header only.
  private static let needsChecksum: UInt8 = 1

  let is6: Bool
  /// The TCP header's place in the frame.
  let transport: Int
  let flags: UInt8
  let source: SegmentEnd
  let destination: SegmentEnd

  /// nil for other protocols, fragments, and what is cut short.
  @inline(__always)
  init?(_ frame: UnsafeRawBufferPointer) {
    guard frame.count >= Self.start + 40, let base = frame.baseAddress else { return nil }
    let packet = base + Self.start
    let length = frame.count - Self.start
    func u16(_ offset: Int) -> UInt16 {
      UInt16(bigEndian: packet.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
    }
    func u32(_ offset: Int) -> UInt32 {
      UInt32(bigEndian: packet.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
    }
    func u64(_ offset: Int) -> UInt64 {
      UInt64(bigEndian: packet.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    func u8(_ offset: Int) -> UInt8 { packet.load(fromByteOffset: offset, as: UInt8.self) }
    var header: Int
    switch u8(0) >> 4 {
    case 4:
      header = Int(u8(0) & 15) * 4
      // A TCP segment that is sent in fragments is nobody's here: kernels cut segments, not packets.
      guard header >= 20, u8(9) == 6, u16(6) & 0x3fff == 0, Int(u16(2)) == length else { return nil }
      is6 = false
    case 6:
      header = 40
      var next = u8(6)
      // Hop-by-hop and destination options, and a routing header, may come first (RFC 8200 section 4.1).
      for _ in 0..<4 where next == 0 || next == 43 || next == 60 {
        guard length >= header + 8 else { return nil }
        next = u8(header)
        header += 8 + 8 * Int(u8(header + 1))
      }
      guard next == 6, Int(u16(4)) + 40 == length else { return nil }
      is6 = true
    default: return nil
    }
    guard length >= header + 20 else { return nil }
    let offset = Int(u8(header + 12) >> 4) * 4
    guard offset >= 20, length >= header + offset else { return nil }
    transport = Self.start + header
    flags = u8(header + 13)
    if is6 {
      source = SegmentEnd(high: u64(8), low: u64(16), port: u16(header))
      destination = SegmentEnd(high: u64(24), low: u64(32), port: u16(header + 2))
    } else {
      source = SegmentEnd(high: 0, low: UInt64(u32(12)), port: u16(header))
      destination = SegmentEnd(high: 0, low: UInt64(u32(16)), port: u16(header + 2))
    }
  }

  var opens: Bool { flags & (Self.syn | Self.acknowledgement | Self.reset) == Self.syn }

  /// Gives the segment other ends. Checksums are changed by the difference (RFC 1624); one that the kernel has left undone
  /// stays so.
  /// - Parameter frame: the one that this was read from.
  @inline(__always)
  func rewrite(_ frame: UnsafeMutableRawBufferPointer, from: SegmentEnd, to: SegmentEnd) {
    guard let base = frame.baseAddress, frame.count >= transport + 20 else { return }
    let packet = base + Self.start
    func put<T: FixedWidthInteger>(_ value: T, _ place: UnsafeMutableRawPointer) {
      place.storeBytes(of: value.bigEndian, as: T.self)
    }
    func difference(_ new: SegmentEnd, _ old: SegmentEnd) -> UInt64 {
      Self.words(new.high) &+ Self.words(new.low) &+ Self.words(~old.high) &+ Self.words(~old.low)
    }
    // The words that IPv4 has not are 0 and ~0, which are the same number in this arithmetic.
    let addresses = difference(from, source) &+ difference(to, destination)
    let ports =
      UInt64(from.port) &+ UInt64(to.port) &+ UInt64(~source.port) &+ UInt64(~destination.port)
    if is6 {
      put(from.high, packet + 8)
      put(from.low, packet + 16)
      put(to.high, packet + 24)
      put(to.low, packet + 32)
    } else {
      put(UInt32(truncatingIfNeeded: from.low), packet + 12)
      put(UInt32(truncatingIfNeeded: to.low), packet + 16)
      Self.adjust(packet + 10, by: addresses, isInverted: true)
    }
    put(from.port, base + transport)
    put(to.port, base + transport + 2)
    let isPartial = base.load(as: UInt8.self) & Self.needsChecksum != 0
    Self.adjust(base + transport + 16, by: isPartial ? addresses : addresses &+ ports, isInverted: !isPartial)
  }

  /// Its four words of 16 bits, added.
  @inline(__always)
  private static func words(_ value: UInt64) -> UInt64 {
    (value >> 48) &+ (value >> 32 & 0xffff) &+ (value >> 16 & 0xffff) &+ (value & 0xffff)
  }

  @inline(__always)
  private static func adjust(_ field: UnsafeMutableRawPointer, by difference: UInt64, isInverted: Bool) {
    let old = UInt16(bigEndian: field.loadUnaligned(as: UInt16.self))
    var sum = difference &+ UInt64(isInverted ? ~old : old)
    while sum >> 16 != 0 { sum = (sum & 0xffff) &+ (sum >> 16) }
    let new = UInt16(truncatingIfNeeded: sum)
    field.storeBytes(of: (isInverted ? ~new : new).bigEndian, as: UInt16.self)
  }
}
