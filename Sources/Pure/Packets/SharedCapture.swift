import Inet

// Theory of operation.
//
// The enclave has the host's own address. The rules of the host's INPUT hand over what comes for the enclave's ports,
// and ICMP errors, which have no port of their own but carry the packet that they are about (RFC 792, RFC 4443). This
// decides what becomes of each.

/// What the host does with packets that its rules have taken for an enclave with the host's address.
public struct SharedCapture: Sendable {
  public enum Decision: Equatable, Sendable {
    /// It is the enclave's.
    case take
    /// It is the host's own after all.
    case leave
    /// A connection to a port that is not published: to be answered with a reset.
    case refuse
  }

  private let v4: UInt32?
  private let v6: IPv6Address?
  private let ports: PortSet
  private let published: PortSet
  private let publishedDatagrams: PortSet

  /// - Parameters:
  ///   - ports: the enclave's.
  ///   - published: those of them to which others may open connections.
  ///   - publishedDatagrams: those to which others may send datagrams without having been sent any.
  public init(
    address4: IPv4Address?, address6: IPv6Address?, ports: PortSet, published: PortSet, publishedDatagrams: PortSet
  ) {
    self.publishedDatagrams = publishedDatagrams
    v4 = address4?.rawValue
    v6 = address6
    self.ports = ports
    self.published = published
  }

  /// - Parameters:
  ///   - frame: virtio-net header and a packet of our own kernel, yet with whatever its sender put into it.
  ///   - isAnswer: whether a datagram comes from where the enclave has sent one.
  public func decide(_ frame: UnsafeRawBufferPointer, isAnswer: (UnsafeRawBufferPointer) -> Bool) -> Decision {
    guard frame.count >= PacketGuard.offloadHeaderLength + 28 else { return .leave }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    let is6 = packet.u8(0) >> 4 == 6
    if is6, packet.count < 48 { return .leave }
    let (transport, number) =
      is6 ? PacketGuard.transport6(packet) : (Int(packet.u8(0) & 15) * 4, Int(packet.u8(9)))
    guard transport >= 20, packet.count >= transport + 8 else { return .leave }
    switch number {
    case 6:
      guard packet.count >= transport + 20 else { return .take }
      let opens = packet.u8(transport + 13) & 0x12 == 0x02
      return opens && !published.contains(packet.u16(transport + 2)) ? .refuse : .take
    // Of the rest the host's own UDP says that the port is closed, as it does anywhere (RFC 1122 section 4.1.3.1).
    case 17: return publishedDatagrams.contains(packet.u16(transport + 2)) || isAnswer(frame) ? .take : .leave
    case 1 where !is6:
      let inner = transport + 8
      guard packet.count >= inner + 20 else { return .leave }
      let header = Int(packet.u8(inner) & 15) * 4
      guard header >= 20, packet.u32(inner + 12) == v4 else { return .leave }
      return concerns(packet, packet.u8(inner + 9), inner + header)
    case 58:
      let inner = transport + 8
      guard packet.count >= inner + 40, let v6, packet.u64(inner + 8) == v6.high, packet.u64(inner + 16) == v6.low
      else { return .leave }
      return concerns(packet, packet.u8(inner + 6), inner + 40)
    default: return .leave
    }
  }

  private func concerns(_ packet: PacketBytes, _ number: UInt8, _ transport: Int) -> Decision {
    guard number == 6 || number == 17, packet.count >= transport + 2 else { return .leave }
    return ports.contains(packet.u16(transport)) ? .take : .leave
  }

  /// The length of `reset`'s packets.
  public static let resetLimit = 60

  /// Writes what answers a segment for a port or a connection that is not there (RFC 9293 section 3.10.7.1).
  /// - Parameters:
  ///   - frame: with a TCP segment.
  ///   - packet: room for `resetLimit` bytes.
  /// - Returns: the packet's length.
  public static func reset(_ frame: UnsafeRawBufferPointer, _ packet: UnsafeMutableRawPointer) -> Int {
    let segment = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    let is6 = segment.u8(0) >> 4 == 6
    let transport = is6 ? PacketGuard.transport6(segment).0 : Int(segment.u8(0) & 15) * 4
    guard segment.count >= transport + 20 else { return 0 }
    // What acknowledges something is answered with the number that its sender waits for.
    guard segment.u8(transport + 13) & 0x10 == 0 else {
      return reset(segment, is6, transport, isBack: true, segment.u32(transport + 8), 0, 0x04, packet)
    }
    // It acknowledges the SYN, which counts as one byte, and whatever data came with it.
    let data = max(0, segment.count - transport - Int(segment.u8(transport + 12) >> 4) * 4)
    let number = segment.u32(transport + 4) &+ 1 &+ UInt32(truncatingIfNeeded: data)
    return reset(segment, is6, transport, isBack: true, 0, number, 0x14, packet)
  }

  /// Writes what ends a connection at its other end, instead of a segment on the way there.
  /// - Parameter sequence: what that end waits for; it takes no other (RFC 5961 section 3.2).
  public static func resetOnward(
    _ frame: UnsafeRawBufferPointer, sequence: UInt32, _ packet: UnsafeMutableRawPointer
  ) -> Int {
    let segment = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    let is6 = segment.u8(0) >> 4 == 6
    let transport = is6 ? PacketGuard.transport6(segment).0 : Int(segment.u8(0) & 15) * 4
    guard segment.count >= transport + 20 else { return 0 }
    return reset(segment, is6, transport, isBack: false, sequence, segment.u32(transport + 8), 0x14, packet)
  }

  /// - Parameter isBack: to the sender of the segment.
  private static func reset(
    _ segment: PacketBytes, _ is6: Bool, _ transport: Int, isBack: Bool, _ sequence: UInt32, _ acknowledged: UInt32,
    _ flags: UInt16, _ packet: UnsafeMutableRawPointer
  ) -> Int {
    let header = is6 ? 40 : 20
    func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
      packet.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
    packet.initializeMemory(as: UInt8.self, repeating: 0, count: header + 20)
    if is6 {
      put(UInt32(0x6000_0000), 0)
      put(UInt16(20), 4)
      put(UInt16(6 << 8 | 64), 6)
      (packet + 8).copyMemory(from: segment.base + (isBack ? 24 : 8), byteCount: 16)
      (packet + 24).copyMemory(from: segment.base + (isBack ? 8 : 24), byteCount: 16)
    } else {
      put(UInt16(0x4500), 0)
      put(UInt16(40), 2)
      put(UInt16(0x4000), 6)
      put(UInt16(64 << 8 | 6), 8)
      put(segment.u32(isBack ? 16 : 12), 12)
      put(segment.u32(isBack ? 12 : 16), 16)
      var sum = Checksum()
      sum.add(packet, 20)
      put(sum.value, 10)
    }
    put(segment.u16(transport + (isBack ? 2 : 0)), header)
    put(segment.u16(transport + (isBack ? 0 : 2)), header + 2)
    put(sequence, header + 4)
    put(acknowledged, header + 8)
    put(0x5000 | flags, header + 12)
    var sum = Checksum()
    sum.add(packet + (is6 ? 8 : 12), is6 ? 32 : 8)
    sum.add(UInt64(6 + 20))
    sum.add(packet + header, 20)
    put(sum.value, header + 16)
    return header + 20
  }
}
