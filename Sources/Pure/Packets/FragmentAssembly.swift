/// Puts fragments of datagrams together again. They come from one kernel, the enclave's own, over one device: each datagram's
/// in their order, without gaps. What comes otherwise was made by hand, and is dropped.
public struct FragmentAssembly {
  /// Datagrams of which a part is there; several threads of a program may send at the same time.
  private static let limit = 16

  private struct Partial {
    var key: [UInt8]
    /// A frame whose packet is no fragment; its length fields are the first fragment's.
    var frame: [UInt8]
    var collected: Int
  }

  private var partials: [Partial] = []

  public init() {}

  /// - Parameter frame: a virtio-net header and a fragment.
  /// - Returns: the frame of the whole datagram, when this was its last fragment.
  public mutating func add(_ frame: UnsafeRawBufferPointer) -> [UInt8]? {
    let start = PacketGuard.offloadHeaderLength
    guard frame.count >= start + 20 else { return nil }
    let packet = PacketBytes(frame, from: start)
    var key: [UInt8]
    let header: Int
    let data: Int
    let offset: Int
    let hasMore: Bool
    let is6 = packet.u8(0) >> 4 == 6
    if is6 {
      // The fragment header directly behind IPv6's own (RFC 8200 section 4.5).
      guard packet.count >= 48, packet.u8(6) == 44 else { return nil }
      (header, data) = (40, 48)
      offset = Int(packet.u16(42) & 0xfff8)
      hasMore = packet.u16(42) & 1 != 0
      key = Array(frame[(start + 8)..<(start + 40)]) + frame[(start + 44)..<(start + 48)]
      key.append(packet.u8(40))
    } else {
      header = Int(packet.u8(0) & 15) * 4
      data = header
      guard packet.u8(0) >> 4 == 4, header >= 20, packet.count >= header else { return nil }
      offset = Int(packet.u16(6) & 0x1fff) * 8
      hasMore = packet.u16(6) & 0x2000 != 0
      key = Array(frame[(start + 12)..<(start + 20)]) + frame[(start + 4)..<(start + 6)]
      key.append(packet.u8(9))
    }
    let part = frame[(start + data)...]
    let place = partials.firstIndex { $0.key == key }
    guard offset > 0 else {
      if let place { partials.remove(at: place) }
      guard hasMore, part.count % 8 == 0, !part.isEmpty else { return nil }
      var made = [UInt8](repeating: 0, count: start)
      made += frame[start..<(start + header)]
      if is6 { made[start + 6] = packet.u8(40) } else { (made[start + 6], made[start + 7]) = (0, 0) }
      made += part
      if partials.count >= Self.limit { partials.removeFirst() }
      partials.append(Partial(key: key, frame: made, collected: part.count))
      return nil
    }
    guard let place else { return nil }
    guard partials[place].collected == offset, !part.isEmpty, !hasMore || part.count % 8 == 0,
      (is6 ? 0 : header) + offset + part.count <= 65535
    else {
      partials.remove(at: place)
      return nil
    }
    partials[place].frame += part
    partials[place].collected += part.count
    guard !hasMore else { return nil }
    var whole = partials.remove(at: place).frame
    let length = UInt16(clamping: whole.count - start - (is6 ? 40 : 0))
    let field = start + (is6 ? 4 : 2)
    whole[field] = UInt8(length >> 8)
    whole[field + 1] = UInt8(length & 0xff)
    return whole
  }
}
