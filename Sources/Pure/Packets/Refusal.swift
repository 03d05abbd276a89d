/// What answers a packet whose destination is denied, so that the program knows at once: a reset to what opens a TCP
/// connection, ICMP's "administratively prohibited" to everything else (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1).
/// Both say that they come from the destination.
public enum Refusal {
  /// The longest frame that `answer` writes.
  public static let frameLimit = PacketGuard.offloadHeaderLength + UnreachableAnswer.lengthLimit

  /// - Parameters:
  ///   - frame: the denied one; of it at least `copied` bytes are there.
  ///   - isOfFlow: a segment that opens nothing is answered as well: its connection is known not to be one.
  ///   - answer: room for `frameLimit` bytes, outside the frame.
  /// - Returns: the length of the answer as a frame; 0 where there is to be none.
  public static func answer(
    to frame: UnsafeRawBufferPointer, copied: Int, isOfFlow: Bool = false, _ answer: UnsafeMutableRawPointer
  ) -> Int {
    let seen = UnsafeRawBufferPointer(rebasing: frame.prefix(min(copied, frame.count)))
    guard seen.count >= PacketGuard.offloadHeaderLength + 28 else { return 0 }
    let packet = PacketBytes(seen, from: PacketGuard.offloadHeaderLength)
    let is6 = packet.u8(0) >> 4 == 6
    guard is6 ? packet.count >= 48 : packet.u8(0) >> 4 == 4 && packet.u8(0) & 15 >= 5 else { return 0 }
    let (transport, number) = is6 ? PacketGuard.transport6(packet) : (Int(packet.u8(0) & 15) * 4, Int(packet.u8(9)))
    // Never to a later fragment, nor to what was for many (RFC 1122 section 3.2.2, RFC 4443 section 2.4).
    guard transport >= 20, packet.count >= transport + 8 else { return 0 }
    guard is6 ? packet.u8(24) != 0xff : packet.u8(16) < 224 || packet.u8(16) >= 240 && packet.u32(16) != ~0 else {
      return 0
    }
    guard is6 || packet.u16(6) & 0x1fff == 0 else { return 0 }
    answer.initializeMemory(as: UInt8.self, repeating: 0, count: PacketGuard.offloadHeaderLength)
    let start = answer + PacketGuard.offloadHeaderLength
    let length: Int
    switch number {
    case 6:
      guard packet.count >= transport + 20, packet.u8(transport + 13) & (isOfFlow ? 0x04 : 0x14) == 0 else {
        return 0
      }
      length = SharedCapture.reset(seen, start)
    // Errors are not answered by errors.
    case 1 where !is6 && [3, 4, 5, 11, 12].contains(packet.u8(transport)): return 0
    case 58 where is6 && packet.u8(transport) < 128: return 0
    default: length = UnreachableAnswer.write(packet, is6, .prohibited, at: start)
    }
    return length == 0 ? 0 : PacketGuard.offloadHeaderLength + length
  }

  /// What ends a connection at its other end, in the place of a segment of the program.
  /// - Parameters:
  ///   - sequence: what that end waits for.
  ///   - answer: room for `frameLimit` bytes, outside the frame.
  /// - Returns: the length of the reset as a frame; 0 where it was no segment.
  public static func resetOnward(
    _ frame: UnsafeRawBufferPointer, sequence: UInt32, _ answer: UnsafeMutableRawPointer
  ) -> Int {
    guard frame.count >= PacketGuard.offloadHeaderLength + 40 else { return 0 }
    answer.initializeMemory(as: UInt8.self, repeating: 0, count: PacketGuard.offloadHeaderLength)
    let length = SharedCapture.resetOnward(frame, sequence: sequence, answer + PacketGuard.offloadHeaderLength)
    return length == 0 ? 0 : PacketGuard.offloadHeaderLength + length
  }
}
