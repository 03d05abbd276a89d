import Inet
import Packets

/// A segment that makes a kernel tell what it waits for, for the connections of a proxy that has died.
///
/// The proxy's own end is reset when it dies, but which connection that was nobody knows any more. The program's end
/// answers a segment outside of its window with an acknowledgement (RFC 9293 section 3.10.7.4), and that belongs to no entry, so it is
/// answered with a reset that fits.
public enum OrphanProbe {
  /// Two of them are half of all numbers apart: one at least is outside of any window (RFC 7323 section 2.3).
  public static let sequences: [UInt32] = [1, 1 << 31 | 1]

  /// A whole frame with an empty segment.
  /// - Parameters:
  ///   - local: the program's end, which gets it.
  ///   - remote: where it seems to come from, of the same family.
  public static func frame(from remote: IPEndpoint, to local: IPEndpoint, sequence: UInt32) -> [UInt8] {
    func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] {
      (0..<T.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> T(T.bitWidth - 8 - 8 * $0)) }
    }
    let is6 = if case .v6 = local.address { true } else { false }
    var tcp = big(remote.port) + big(local.port) + big(sequence) + big(UInt32(0))
    tcp += [5 << 4, Segment.acknowledgement] + big(UInt16(1024)) + [0, 0, 0, 0]
    let addresses = remote.address.bytes + local.address.bytes
    let sum = checksum(addresses + [0, 6, 0, UInt8(tcp.count)] + tcp)
    tcp.replaceSubrange(16..<18, with: sum)
    var header: [UInt8]
    if is6 {
      header = [0x60, 0, 0, 0, 0, UInt8(tcp.count), 6, 64] + addresses
    } else {
      header = [0x45, 0, 0, UInt8(20 + tcp.count), 0, 0, 0x40, 0, 64, 6, 0, 0] + addresses
      header.replaceSubrange(10..<12, with: checksum(header))
    }
    return [UInt8](repeating: 0, count: PacketGuard.offloadHeaderLength) + header + tcp
  }

  /// RFC 1071, of an even number of bytes, as they are in a packet.
  private static func checksum(_ bytes: [UInt8]) -> [UInt8] {
    var sum = Checksum()
    bytes.withUnsafeBytes { if let base = $0.baseAddress { sum.add(base, $0.count) } }
    return withUnsafeBytes(of: sum.value.bigEndian) { Array($0) }
  }
}
