import Inet

/// Makes whole packets of UDP and ICMP's echo, as frames for a TUN device.
public enum DatagramPacket {
  /// - Parameters:
  ///   - from, to: of one family.
  ///   - frame: where it is made.
  /// - Returns: the length of the frame; 0 where it has no room, or the datagram is longer than a packet can be.
  public static func udp(
    from: IPEndpoint, to: IPEndpoint, _ payload: UnsafeRawBufferPointer, into frame: UnsafeMutableRawBufferPointer
  ) -> Int {
    write(17, from.address, to.address, headerLength: 8, payload, frame) { header, length in
      store(from.port, header, 0)
      store(to.port, header, 2)
      store(length, header, 4)
      store(UInt16(0), header, 6)
      return 6
    }
  }

  /// An echo request, or the answer to one.
  /// - Parameter payload: the sequence number, 2 bytes, and the data.
  public static func echo(
    isReply: Bool, from: IPAddress, to: IPAddress, identifier: UInt16, _ payload: UnsafeRawBufferPointer,
    into frame: UnsafeMutableRawBufferPointer
  ) -> Int {
    let is4 = from.bitCount == 32
    return write(is4 ? 1 : 58, from, to, headerLength: 6, payload, frame) { header, _ in
      // RFC 792, RFC 4443 section 4.
      let type: UInt16 = is4 ? (isReply ? 0 : 8) : (isReply ? 129 : 128)
      store(type << 8, header, 0)
      store(UInt16(0), header, 2)
      store(identifier, header, 4)
      return 2
    }
  }

  @inline(__always)
  private static func store<T: FixedWidthInteger>(_ value: T, _ base: UnsafeMutableRawPointer, _ offset: Int) {
    base.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
  }

  @inline(__always)
  private static func store(_ address: IPAddress, _ base: UnsafeMutableRawPointer, _ offset: Int) {
    switch address {
    case .v4(let four): store(four.rawValue, base, offset)
    case .v6(let six):
      store(six.high, base, offset)
      store(six.low, base, offset + 8)
    }
  }

  /// - Parameter fill: writes the transport's header, whose length with the data it is told, with a checksum of 0; gives the
  ///   place of that.
  @inline(__always)
  private static func write(
    _ number: UInt8, _ from: IPAddress, _ to: IPAddress, headerLength: Int, _ payload: UnsafeRawBufferPointer,
    _ frame: UnsafeMutableRawBufferPointer, _ fill: (UnsafeMutableRawPointer, UInt16) -> Int
  ) -> Int {
    let is4 = from.bitCount == 32
    let ip = is4 ? 20 : 40
    let length = headerLength + payload.count
    let start = PacketGuard.offloadHeaderLength
    guard to.bitCount == from.bitCount, (is4 ? ip : 0) + length <= 65535, frame.count >= start + ip + length,
      let base = frame.baseAddress
    else { return 0 }
    // Its checksums are right (VIRTIO_NET_HDR_F_DATA_VALID).
    base.storeBytes(of: 0, as: UInt64.self)
    base.storeBytes(of: 2, as: UInt8.self)
    base.storeBytes(of: 0, toByteOffset: 8, as: UInt16.self)
    let packet = base + start
    let transport = packet + ip
    let place = fill(transport, UInt16(clamping: length))
    if let data = payload.baseAddress {
      (transport + headerLength).copyMemory(from: data, byteCount: payload.count)
    }
    var sum = Checksum()
    if is4 {
      store(UInt16(0x4500), packet, 0)
      store(UInt16(clamping: ip + length), packet, 2)
      // Whole, so that it needs no identification (RFC 6864).
      store(UInt32(0x4000), packet, 4)
      store(UInt16(64) << 8 | UInt16(number), packet, 8)
      store(UInt16(0), packet, 10)
      store(from, packet, 12)
      store(to, packet, 16)
      var header = Checksum()
      header.add(packet, 20)
      store(header.value, packet, 10)
      if number == 17 { sum.add(packet + 12, 8) }
    } else {
      store(UInt32(0x6000_0000), packet, 0)
      store(UInt16(clamping: length), packet, 4)
      store(UInt16(number) << 8 | 64, packet, 6)
      store(from, packet, 8)
      store(to, packet, 24)
      sum.add(packet + 8, 32)
    }
    // The pseudo-header of RFC 768 and RFC 8200 section 8.1; ICMP of IPv4 has none.
    if number != 1 { sum.add(UInt64(number) + UInt64(length)) }
    sum.add(transport, length)
    let value = sum.value
    store(number == 17 && value == 0 ? UInt16.max : value, transport, place)
    return start + ip + length
  }
}
