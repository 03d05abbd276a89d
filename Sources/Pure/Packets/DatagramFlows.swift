import Inet

/// To whom an enclave with the host's address has sent datagrams of late: what they send back is an answer, and what others
/// send to the same port is none. UDP itself has no mark that would tell.
///
/// A table of fixed size, since each flow is the enclave's word: one that has more of them forgets its oldest. Of a flow it
/// keeps a hash of 64 bits with the process's own key (SipHash), which nobody outside can aim at.
public struct DatagramFlows {
  /// As conntrack has it for datagrams in both directions (nf_conntrack_udp_timeout_stream), in seconds.
  public static let lifetime: UInt32 = 120
  private static let ways = 4

  private var marks: [UInt64]
  private var times: [UInt32]

  /// - Parameter count: how many flows it can hold; a power of two, at least 4.
  public init(count: Int = 1 << 16) {
    marks = Array(repeating: 0, count: count)
    times = Array(repeating: 0, count: count)
  }

  /// The enclave has sent a packet; those that are no datagrams are passed over.
  /// - Parameter now: seconds of a clock that never goes back.
  public mutating func note(sent frame: UnsafeRawBufferPointer, now: UInt32) {
    guard let mark = Self.mark(frame, isSent: true) else { return }
    let first = place(mark)
    var oldest = first
    for index in first..<first + Self.ways {
      if marks[index] == mark {
        oldest = index
        break
      }
      // An empty place is older than all.
      if marks[oldest] != 0, marks[index] == 0 || times[index] < times[oldest] { oldest = index }
    }
    marks[oldest] = mark
    times[oldest] = now
  }

  /// Whether a packet from the network is an answer.
  public mutating func isAnswer(_ frame: UnsafeRawBufferPointer, now: UInt32) -> Bool {
    guard let mark = Self.mark(frame, isSent: false) else { return false }
    let first = place(mark)
    for index in first..<first + Self.ways where marks[index] == mark {
      guard now &- times[index] <= Self.lifetime else { return false }
      times[index] = now
      return true
    }
    return false
  }

  private func place(_ mark: UInt64) -> Int { Int(truncatingIfNeeded: mark) & (marks.count - 1) & ~(Self.ways - 1) }

  /// The same for a datagram and its answer; never 0.
  private static func mark(_ frame: UnsafeRawBufferPointer, isSent: Bool) -> UInt64? {
    guard frame.count >= PacketGuard.offloadHeaderLength + 28 else { return nil }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    let is6 = packet.u8(0) >> 4 == 6
    if is6, packet.count < 48 { return nil }
    let (transport, number) =
      is6 ? PacketGuard.transport6(packet) : (Int(packet.u8(0) & 15) * 4, Int(packet.u8(9)))
    guard number == 17, transport >= 20, packet.count >= transport + 8 else { return nil }
    var hasher = Hasher()
    if is6 {
      hasher.combine(packet.u64(isSent ? 24 : 8))
      hasher.combine(packet.u64(isSent ? 32 : 16))
    } else {
      hasher.combine(packet.u32(isSent ? 16 : 12))
    }
    hasher.combine(packet.u16(transport + (isSent ? 0 : 2)))
    hasher.combine(packet.u16(transport + (isSent ? 2 : 0)))
    return UInt64(bitPattern: Int64(hasher.finalize())) | 1 << 63
  }
}
