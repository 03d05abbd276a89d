import Inet

/// What a router answers for a packet that it has no way for: "destination unreachable" (RFC 792, RFC 4443 section 3.1).
///
/// The enclave's one route leads to the host, whose own routes decide. Without an answer, a connect to where the host has
/// no route would hang until the program's time is over; on the host itself it fails at once.
public enum UnreachableAnswer {
  public enum Reason: CaseIterable, Sendable {
    /// No route: ENETUNREACH for the sender.
    case network
    /// EHOSTUNREACH.
    case host
    /// EHOSTUNREACH for a sender of IPv4, EACCES for one of IPv6.
    case prohibited
    /// Nobody listens: ECONNREFUSED.
    case port

    func code(is6: Bool) -> UInt8 {
      switch self {
      case .network: 0
      case .host: is6 ? 3 : 1
      // RFC 1812 section 5.2.7.1.
      case .prohibited: is6 ? 1 : 13
      case .port: is6 ? 4 : 3
      }
    }
  }

  /// The ports, and TCP's sequence number, by which the sender finds its socket, are in the first 8 bytes behind the
  /// header. Options of TCP belong to what a sender may want to see.
  private static let quoteLimit = 128

  /// - Parameter frame: virtio-net header and a packet that `PacketGuard` has let pass.
  /// - Returns: a frame for the packet's sender, from the address that it wanted to reach: the host's own, which is also the
  ///   sender's, is none that a kernel would take a packet from.
  public static func make(_ frame: UnsafeRawBufferPointer, _ reason: Reason) -> [UInt8] {
    make(frame) { is6 in (is6 ? 1 : 3, reason.code(is6: is6), 0) }
  }

  /// The same from an address of the packet's family, where nobody would take a packet from the one that it wanted to reach.
  public static func make(_ frame: UnsafeRawBufferPointer, _ reason: Reason, from router: IPAddress) -> [UInt8] {
    make(frame, from: router) { is6 in (is6 ? 1 : 3, reason.code(is6: is6), 0) }
  }

  /// The same for a packet that is longer than the path takes: "fragmentation needed" (RFC 1191), "packet too big" (RFC 4443
  /// section 3.2).
  /// - Parameter mtu: of the path, in bytes.
  public static func make(_ frame: UnsafeRawBufferPointer, tooLongFor mtu: UInt16) -> [UInt8] {
    make(frame) { is6 in (is6 ? 2 : 3, is6 ? 0 : 4, UInt32(mtu)) }
  }

  private static func make(
    _ frame: UnsafeRawBufferPointer, from router: IPAddress? = nil,
    _ kind: (Bool) -> (type: UInt8, code: UInt8, rest: UInt32)
  ) -> [UInt8] {
    let start = PacketGuard.offloadHeaderLength
    guard frame.count >= start + 20 else { return [] }
    let packet = PacketBytes(frame, from: start)
    let is6 = packet.u8(0) >> 4 == 6
    guard !is6 || packet.count >= 40 else { return [] }
    var answer = [UInt8](repeating: 0, count: start + Self.lengthLimit)
    let length = answer.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress else { return 0 }
      let length = write(packet, is6, kind(is6), from: router, at: base + start)
      OffloadHeader.write(bytes, needsChecksum: false, isChecked: true, segmentSize: nil)
      return length
    }
    answer.removeLast(Self.lengthLimit - length)
    return answer
  }

  /// The longest that `write` writes.
  static let lengthLimit = 40 + 8 + quoteLimit

  /// - Parameters:
  ///   - packet: at least its header is there.
  ///   - made: room for `lengthLimit` bytes, outside the packet.
  /// - Returns: the length of the answer.
  static func write(_ packet: PacketBytes, _ is6: Bool, _ reason: Reason, at made: UnsafeMutableRawPointer) -> Int {
    write(packet, is6, (is6 ? 1 : 3, reason.code(is6: is6), 0), from: nil, at: made)
  }

  private static func write(
    _ packet: PacketBytes, _ is6: Bool, _ kind: (type: UInt8, code: UInt8, rest: UInt32), from router: IPAddress?,
    at made: UnsafeMutableRawPointer
  ) -> Int {
    let header = is6 ? 40 : 20
    let quote = min(packet.count, quoteLimit)
    let length = header + 8 + quote
    func put<T: FixedWidthInteger>(_ value: T, _ offset: Int) {
      made.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }
    made.initializeMemory(as: UInt8.self, repeating: 0, count: header + 8)
    if is6 {
      put(UInt32(0x6000_0000), 0)
      put(UInt16(clamping: 8 + quote), 4)
      put(UInt16(58 << 8 | 64), 6)
      if case .v6(let six) = router {
        put(six.high, 8)
        put(six.low, 16)
      } else {
        (made + 8).copyMemory(from: packet.base + 24, byteCount: 16)
      }
      (made + 24).copyMemory(from: packet.base + 8, byteCount: 16)
    } else {
      put(UInt16(0x4500), 0)
      put(UInt16(clamping: length), 2)
      put(UInt16(64 << 8 | 1), 8)
      if case .v4(let four) = router { put(four.rawValue, 12) } else { put(packet.u32(16), 12) }
      put(packet.u32(12), 16)
      var sum = Checksum()
      sum.add(made, 20)
      put(sum.value, 10)
    }
    put(kind.type, header)
    put(kind.code, header + 1)
    put(kind.rest, header + 4)
    (made + header + 8).copyMemory(from: packet.base, byteCount: quote)
    var sum = Checksum()
    if is6 {
      // The pseudo-header of RFC 8200 section 8.1.
      sum.add(made + 8, 32)
      sum.add(UInt64(58 + 8 + quote))
    }
    sum.add(made + header, 8 + quote)
    put(sum.value, header + 2)
    return length
  }
}
