/// The virtio-net header (PacketGuard) of a packet from elsewhere than a TUN device.
public enum OffloadHeader {
  /// Fills in the header of a frame whose packet is in place.
  /// - Parameters:
  ///   - needsChecksum: the transport's checksum field has the sum of the pseudo-header only.
  ///   - isChecked: the kernel has verified it.
  ///   - segmentSize: of a super-packet of TCP, in bytes of data; nil for a packet to be taken as it is.
  public static func write(
    _ frame: UnsafeMutableRawBufferPointer, needsChecksum: Bool, isChecked: Bool, segmentSize: UInt16?
  ) {
    guard let base = frame.baseAddress, frame.count >= PacketGuard.offloadHeaderLength + 20 else { return }
    base.storeBytes(of: 0, as: UInt64.self)
    base.storeBytes(of: 0, toByteOffset: 8, as: UInt16.self)
    // VIRTIO_NET_HDR_F_DATA_VALID.
    if isChecked, !needsChecksum { base.storeBytes(of: 2, as: UInt8.self) }
    guard needsChecksum || segmentSize != nil else { return }
    let packet = PacketBytes(UnsafeRawBufferPointer(frame), from: PacketGuard.offloadHeaderLength)
    let is6 = packet.u8(0) >> 4 == 6
    guard !is6 || packet.count >= 40 else { return }
    let (transport, number) =
      is6 ? PacketGuard.transport6(packet) : (Int(packet.u8(0) & 15) * 4, Int(packet.u8(9)))
    let field =
      switch number {
      case 6: 16
      case 17: 6
      // ICMPv6 (RFC 4443 section 2.1).
      case 58: 2
      default: -1
      }
    if needsChecksum, field >= 0 {
      base.storeBytes(of: 1, as: UInt8.self)
      base.storeBytes(of: UInt16(clamping: transport).littleEndian, toByteOffset: 6, as: UInt16.self)
      base.storeBytes(of: UInt16(clamping: field).littleEndian, toByteOffset: 8, as: UInt16.self)
    }
    guard let segmentSize, number == 6, packet.count >= transport + 20 else { return }
    let header = transport + Int(packet.u8(transport + 12) >> 4) * 4
    // VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6.
    base.storeBytes(of: is6 ? 4 : 1, toByteOffset: 1, as: UInt8.self)
    base.storeBytes(of: UInt16(clamping: header).littleEndian, toByteOffset: 2, as: UInt16.self)
    base.storeBytes(of: segmentSize.littleEndian, toByteOffset: 4, as: UInt16.self)
  }
}
