import Packets

/// What one queue has carried since it was opened; kept and read by the queue's own thread.
public struct PacketCounters: Sendable {
  public var packetsOut: UInt64 = 0
  public var bytesOut: UInt64 = 0
  public var packetsIn: UInt64 = 0
  public var bytesIn: UInt64 = 0
  public var reconnects: UInt64 = 0
  /// Packets of our own kernel that came while there was no stream.
  public var unsent: UInt64 = 0
  /// Answers of our own to packets of the other side whose destination is denied; not among `packetsOut`.
  public var refusals: UInt64 = 0
  /// As many as `PacketDefect` has cases; a fixed array, since the loop must not allocate.
  private var dropped = Dropped(repeating: 0)

  typealias Dropped = InlineArray<16, UInt64>

  public init() {}

  @inline(__always)
  mutating func drop(_ defect: PacketDefect) { dropped[Int(defect.rawValue & 15)] &+= 1 }

  public func drops(_ defect: PacketDefect) -> UInt64 { dropped[Int(defect.rawValue & 15)] }

  public var drops: UInt64 { PacketDefect.allCases.reduce(0) { $0 &+ drops($1) } }
}

extension PacketCounters: CustomStringConvertible {
  /// `out 12 packets 3456 bytes (mean 288), in …, dropped 3 (bad source 3), reconnects 1`
  public var description: String {
    func direction(_ packets: UInt64, _ bytes: UInt64) -> String {
      "\(packets) packets \(bytes) bytes (mean \(packets == 0 ? 0 : bytes / packets))"
    }
    let reasons = PacketDefect.allCases.filter { drops($0) > 0 }.map { "\($0) \(drops($0))" }
    return "out \(direction(packetsOut, bytesOut)), in \(direction(packetsIn, bytesIn)), dropped \(drops)"
      + (reasons.isEmpty ? "" : " (\(reasons.joined(separator: ", ")))")
      + ", unsent \(unsent), reconnects \(reconnects)"
  }
}
