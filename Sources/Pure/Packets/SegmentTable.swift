// nfnetlink_queue hands out TCP's super-packets whole and does not say how long a segment of them is to be (struct
// skb_shared_info's gso_size is in none of its attributes). The sender's kernel has it from two places that pass by here
// on their way to it: the MSS option of the other end's SYN (RFC 9293 section 3.7.1) and ICMP's "packet too big". So both
// are remembered, and the segment's length follows as in RFC 6691: options come out of the segment, not on top of it.

/// What a flow's other end takes in one segment. Bounded, however many flows an attacker opens: of two generations the
/// older is thrown away when the younger is full, and what is asked for moves to the younger.
public struct SegmentTable {
  /// One end of a TCP connection as seen from the enclave.
  public struct Flow: Hashable, Sendable {
    var high: UInt64
    var low: UInt64
    /// Remote and local port; 0 for a path.
    var ports: UInt32
  }

  private var young: [Flow: UInt16] = [:]
  private var old: [Flow: UInt16] = [:]
  private let limit: Int
  private let mtu: Int

  /// - Parameters:
  ///   - mtu: of the way out, in bytes.
  ///   - limit: entries of a generation.
  public init(mtu: Int, limit: Int = 16384) {
    self.mtu = mtu
    self.limit = limit
  }

  private mutating func remember(_ flow: Flow, _ value: UInt16) {
    if young.count >= limit {
      old = young
      young = [:]
    }
    young[flow] = value
  }

  private mutating func known(_ flow: Flow) -> UInt16? {
    if let value = young[flow] { return value }
    guard let value = old[flow] else { return nil }
    remember(flow, value)
    return value
  }

  /// Whether `learn` would find anything.
  public static func tells(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard let (packet, _, transport, number) = parse(frame) else { return false }
    switch number {
    case 1, 58: return true
    case 6: return packet.count >= transport + 20 && packet.u8(transport + 13) & 0x02 != 0
    default: return false
    }
  }

  /// Looks at a checked packet on its way to the enclave: a SYN's MSS, a router's MTU. Everything else is passed over.
  public mutating func learn(from frame: UnsafeRawBufferPointer) {
    guard let (packet, is6, transport, number) = Self.parse(frame) else { return }
    let remote = Self.address(packet, is6, at: is6 ? 8 : 12)
    switch number {
    case 6:
      guard packet.count >= transport + 20, packet.u8(transport + 13) & 0x02 != 0 else { return }
      let flow = Flow(high: remote.0, low: remote.1, ports: packet.u32(transport))
      remember(flow, Self.maximumSegment(packet, transport) ?? (is6 ? 1220 : 536))
    case 1 where !is6:
      // Type 3, code 4, with the next hop's MTU (RFC 1191 section 4).
      guard packet.count >= transport + 28, packet.u16(transport) == 0x0304 else { return }
      let inner = Self.address(packet, false, at: transport + 8 + 16)
      // min_pmtu of net/ipv4/route.c: no spoofed message shall make segments absurdly short.
      remember(Flow(high: inner.0, low: inner.1, ports: 0), max(552, packet.u16(transport + 6)))
    case 58 where is6:
      guard packet.count >= transport + 48, packet.u8(transport) == 2 else { return }
      let inner = Self.address(packet, true, at: transport + 8 + 24)
      let mtu = UInt16(clamping: packet.u32(transport + 4))
      remember(Flow(high: inner.0, low: inner.1, ports: 0), max(1280, mtu))
    default: return
    }
  }

  /// How many bytes of TCP data a segment of this packet of the enclave may carry; nil where it is none, or fits anyway.
  ///
  /// Of a flow whose SYN was not seen (before this process started) it is what every end takes: RFC 9293 section 3.7.1.
  public mutating func segmentSize(of frame: UnsafeRawBufferPointer) -> UInt16? {
    guard let (packet, is6, transport, number) = Self.parse(frame), number == 6, packet.count >= transport + 20 else {
      return nil
    }
    let header = transport + Int(packet.u8(transport + 12) >> 4) * 4
    guard header >= transport + 20, header < packet.count else { return nil }
    let remote = Self.address(packet, is6, at: is6 ? 24 : 16)
    // Seen from the other end the ports stand the other way round.
    let ports = packet.u32(transport)
    let flow = Flow(high: remote.0, low: remote.1, ports: ports << 16 | ports >> 16)
    let announced = Int(known(flow) ?? (is6 ? 1220 : 536))
    let path = known(Flow(high: remote.0, low: remote.1, ports: 0)).map(Int.init) ?? mtu
    let segment = min(announced, min(path, mtu) - transport - 20) - (header - transport - 20)
    let size = max(8, segment)
    return packet.count - header > size ? UInt16(clamping: size) : nil
  }

  private static func parse(_ frame: UnsafeRawBufferPointer) -> (PacketBytes, is6: Bool, transport: Int, number: UInt8)?
  {
    guard frame.count >= PacketGuard.offloadHeaderLength + 28 else { return nil }
    let packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    if packet.u8(0) >> 4 == 6, packet.count < 40 { return nil }
    if packet.u8(0) >> 4 == 6 { return (packet, true, 40, packet.u8(6)) }
    let transport = Int(packet.u8(0) & 15) * 4
    guard transport >= 20, transport <= packet.count else { return nil }
    return (packet, false, transport, packet.u8(9))
  }

  private static func address(_ packet: PacketBytes, _ is6: Bool, at offset: Int) -> (UInt64, UInt64) {
    is6 ? (packet.u64(offset), packet.u64(offset + 8)) : (0, UInt64(packet.u32(offset)))
  }

  /// Option 2 of a TCP header that is whole in the packet up to its 20th byte.
  private static func maximumSegment(_ packet: PacketBytes, _ transport: Int) -> UInt16? {
    let end = min(packet.count, transport + Int(packet.u8(transport + 12) >> 4) * 4)
    var offset = transport + 20
    while offset < end {
      switch packet.u8(offset) {
      case 0: return nil
      case 1: offset += 1
      default:
        guard offset + 1 < end else { return nil }
        let length = Int(packet.u8(offset + 1))
        guard length >= 2, offset + length <= end else { return nil }
        if packet.u8(offset) == 2, length == 4 { return packet.u16(offset + 2) }
        offset += length
      }
    }
    return nil
  }
}
