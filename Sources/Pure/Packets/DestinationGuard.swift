import Inet
import Policy

// Theory of operation.
//
// Most packets go to ordinary addresses: that takes a few comparisons (`isOrdinary`). The others are judged by the same
// value that TCP mode asks (`Destinations`), with the port where there is one.
//
// A packet has no connection here. What opens one is judged: datagrams, and TCP segments with SYN and without ACK (RFC 9293
// section 3.10.7.2). Other segments are answers to somebody who came in: load balancers do from such addresses, and programs
// of the host from its own. So are ICMP's answers and errors.

/// Decides of each packet of the program whether its destination may be reached.
public struct DestinationGuard: Sendable {
  public let destinations: Destinations
  /// No segment at all may go to link-local and reserved addresses: those of a host whose own address the enclave has.
  private let isStrict: Bool

  public init(_ destinations: Destinations, isStrict: Bool = false) {
    self.destinations = destinations
    self.isStrict = isStrict
    isPlain = destinations.rules.isPlain
    var ends = InlineArray<4, UInt64>(repeating: 0)
    for address in destinations.own {
      let end =
        switch address {
        case .v4(let four): UInt64(four.rawValue)
        case .v6(let six): six.low
        }
      ends[Int(end >> 6 & 3)] |= 1 << (end & 63)
    }
    ownEnds = ends
  }

  /// Ordinary addresses are allowed without a look at the rules.
  @usableFromInline let isPlain: Bool

  /// The last bytes that the machine's own addresses have, a bit each: nearly every packet needs no further look.
  @usableFromInline let ownEnds: InlineArray<4, UInt64>

  @inlinable @inline(__always)
  func mayBeOwn(_ end: UInt64) -> Bool { ownEnds[Int(end >> 6 & 3)] >> (end & 63) & 1 != 0 }

  @inlinable @inline(__always)
  func isOrdinary4(_ destination: UInt32) -> Bool {
    isPlain && AddressSets(v4: destination).isDisjoint(with: Destinations.denied) && !mayBeOwn(UInt64(destination))
  }

  @inlinable @inline(__always)
  func isOrdinary6(_ high: UInt64, _ low: UInt64) -> Bool {
    isPlain && AddressSets(v6High: high, low).isDisjoint(with: Destinations.denied) && !IPv6Address.mayEmbed(high, low)
      && !mayBeOwn(low)
  }

  /// - Parameter frame: one of our own kernel.
  /// - Returns: whether it must not leave. What cannot be read is for the other side to judge.
  @inlinable
  public func denies(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard frame.count >= PacketGuard.offloadHeaderLength + 20 else { return false }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    if packet.u8(0) >> 4 == 4 { return !isOrdinary4(packet.u32(16)) && denial(of: frame) != nil }
    guard packet.count >= 40 else { return false }
    return !isOrdinary6(packet.u64(24), packet.u64(32)) && denial(of: frame) != nil
  }

  /// - Parameter frame: with the header of its IP version whole.
  /// - Returns: nil for a packet that may pass.
  @inline(never)
  public func denial(of frame: UnsafeRawBufferPointer) -> Destinations.Denial? {
    guard let (address, transport, number) = Self.parse(frame) else { return nil }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    let hasPort = (number == 6 || number == 17) && packet.count >= transport + 4
    let carrier: FlowTransport =
      switch number {
      case 6: .tcp
      case 17: .udp
      case 1, 58: .icmp
      // A later fragment: TCP has none, and of a datagram's the port is not known.
      case PacketGuard.none: .udp
      default: .other
      }
    guard let denial = destinations.denial(of: address, port: hasPort ? packet.u16(transport + 2) : nil, carrier) else {
      return nil
    }
    guard Self.isAnswer(packet, transport, number) else { return denial }
    // What is no single machine's address is nobody's who came in.
    switch denial.meant {
    case .v4(let four): if !IPv4Address.isUnicast(four.rawValue) { return denial }
    case .v6(let six): if !IPv6Address.isUnicast(high: six.high) { return denial }
    }
    return isStrict && !denial.meant.sets.isDisjoint(with: [.linkLocal, .reserved]) ? denial : nil
  }

  /// Whether it opens nothing: a TCP segment of a connection, an answer or an error of ICMP (RFC 792, RFC 4443).
  private static func isAnswer(_ packet: PacketBytes, _ transport: Int, _ number: Int) -> Bool {
    switch number {
    case 6: return packet.count >= transport + 14 && packet.u8(transport + 13) & 0x12 != 0x02
    case 1: return packet.count >= transport + 8 && [0, 3, 4, 11, 12].contains(packet.u8(transport))
    case 58: return packet.count >= transport + 8 && [1, 2, 3, 4, 129].contains(packet.u8(transport))
    default: return false
    }
  }

  /// Destination and port, as a log line names them; nil for what is no packet.
  public static func endpoint(_ frame: UnsafeRawBufferPointer) -> String? {
    guard let (address, transport, number) = parse(frame) else { return nil }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    guard number == 6 || number == 17, packet.count >= transport + 4 else { return "\(address)" }
    return "\(IPEndpoint(address, packet.u16(transport + 2))) (\(number == 6 ? "TCP" : "UDP"))"
  }

  /// The place and number of the transport; a later fragment has none.
  private static func parse(_ frame: UnsafeRawBufferPointer) -> (IPAddress, transport: Int, number: Int)? {
    guard frame.count >= PacketGuard.offloadHeaderLength + 20 else { return nil }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    switch packet.u8(0) >> 4 {
    case 4:
      let isFirst = packet.u16(6) & 0x1fff == 0
      return (
        .v4(IPv4Address(rawValue: packet.u32(16))), Int(packet.u8(0) & 15) * 4,
        isFirst ? Int(packet.u8(9)) : PacketGuard.none
      )
    case 6:
      guard packet.count >= 40 else { return nil }
      let (transport, number) = PacketGuard.transport6(packet)
      return (.v6(IPv6Address(high: packet.u64(24), low: packet.u64(32))), transport, number)
    default: return nil
    }
  }
}
