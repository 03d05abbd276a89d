import Inet

/// What of a packet tells its flow, read once: the other end, the ports, TCP's flags and numbers, where the data is.
public struct FlowPacket: Sendable {
  public enum Kind: UInt8, Sendable {
    case tcp, udp
    /// ICMP's echo requests, and the answers to them.
    case echo, echoReply
    case icmpError
    /// Everything else of ICMP.
    case icmp
    /// A later fragment, in which no port is.
    case fragment
    case other
  }

  public let kind: Kind
  public let remote: IPAddress
  /// Of ICMP's echo the identifier and 0, of other packets without ports both 0.
  public let localPort: UInt16
  public let remotePort: UInt16
  /// IP's number of the transport, of a later fragment too.
  public let number: UInt8
  /// The first of several fragments, or a later one.
  public let isFragment: Bool
  /// TCP's.
  public let flags: UInt8
  public let sequence: UInt32
  public let acknowledgement: UInt32
  /// Behind the transport's header, in the frame; empty where there is none of TCP or UDP.
  public let payload: Range<Int>
  /// Of a super-packet of datagrams, the bytes of each but the last; 0 for a single packet.
  public let segmentSize: Int

  static let fin: UInt8 = 1
  static let syn: UInt8 = 2
  static let rst: UInt8 = 4
  static let ack: UInt8 = 16
  static let urg: UInt8 = 32

  /// RFC 9293 section 3.10.7.2.
  public var opens: Bool { kind == .tcp && flags & (Self.syn | Self.ack) == Self.syn }
  public var isReset: Bool { kind == .tcp && flags & Self.rst != 0 }
  public var isEnd: Bool { kind == .tcp && flags & Self.fin != 0 }
  public var isAnswerToSYN: Bool { kind == .tcp && flags & (Self.syn | Self.ack) == Self.syn | Self.ack }
  public var acknowledges: Bool { flags & Self.ack != 0 }
  public var isUrgent: Bool { flags & Self.urg != 0 }
  /// Whether it neither begins nor ends anything: of an open flow it may pass.
  public var isPlain: Bool {
    switch kind {
    case .tcp: flags & (Self.fin | Self.syn | Self.rst) == 0 && !isFragment
    case .udp, .echo: true
    case .echoReply, .icmpError, .icmp, .fragment, .other: false
    }
  }

  /// - Parameters:
  ///   - frame: a virtio-net header and a packet, of which at least the headers are there.
  ///   - isLeaving: whether it is one of the enclave's; else it is for the enclave.
  /// - Returns: nil for what no kernel sends: a length that is not that of the packet, a header that is not whole.
  public init?(_ frame: UnsafeRawBufferPointer, isLeaving: Bool) {
    self.init(frame, at: PacketGuard.offloadHeaderLength, isLeaving: isLeaving, isQuoted: false)
  }

  /// Of an error of ICMP: the packet that it is about, which went the other way.
  public init?(quotedIn error: FlowPacket, _ frame: UnsafeRawBufferPointer) {
    guard error.kind == .icmpError else { return nil }
    self.init(frame, at: error.payload.lowerBound, isLeaving: false, isQuoted: true)
  }

  private init?(_ frame: UnsafeRawBufferPointer, at start: Int, isLeaving: Bool, isQuoted: Bool) {
    guard frame.count >= start + 20 else { return nil }
    let packet = PacketBytes(frame, from: start)
    let transport: Int
    let found: Int
    var isFirst = false
    let is6 = packet.u8(0) >> 4 == 6
    if is6 {
      guard packet.count >= 40, isQuoted || Int(packet.u16(4)) + 40 == packet.count else { return nil }
      remote = .v6(
        IPv6Address(high: packet.u64(isLeaving ? 24 : 8), low: packet.u64(isLeaving ? 32 : 16)))
      (transport, found, isFirst) = PacketGuard.headers6(packet)
      switch found {
      // A later fragment: its header says what the datagram is.
      case PacketGuard.none, PacketGuard.early: number = packet.u8(transport)
      case PacketGuard.endless, PacketGuard.cut: return nil
      default: number = UInt8(truncatingIfNeeded: found)
      }
    } else {
      guard packet.u8(0) >> 4 == 4, isQuoted || Int(packet.u16(2)) == packet.count else { return nil }
      transport = Int(packet.u8(0) & 15) * 4
      guard transport >= 20, transport <= packet.count else { return nil }
      remote = .v4(IPv4Address(rawValue: packet.u32(isLeaving ? 16 : 12)))
      number = packet.u8(9)
      found = packet.u16(6) & 0x1fff == 0 ? Int(number) : PacketGuard.none
      isFirst = packet.u16(6) & 0x2000 != 0
    }
    isFragment = isFirst || found < 0
    var ports: (UInt16, UInt16) = (0, 0)
    var end = packet.count
    var kind = Kind.other
    var numbers: (UInt8, UInt32, UInt32) = (0, 0, 0)
    switch found {
    case PacketGuard.none, PacketGuard.early:
      kind = .fragment
    case 6 where isQuoted, 17 where isQuoted:
      guard packet.count >= transport + 4 else { return nil }
      kind = found == 6 ? .tcp : .udp
      ports = (packet.u16(transport), packet.u16(transport + 2))
    case 6:
      guard packet.count >= transport + 20 else { return nil }
      let length = Int(packet.u8(transport + 12) >> 4) * 4
      guard length >= 20, packet.count >= transport + length else { return nil }
      kind = .tcp
      ports = (packet.u16(transport), packet.u16(transport + 2))
      numbers = (packet.u8(transport + 13), packet.u32(transport + 4), packet.u32(transport + 8))
      end = transport + length
    case 17:
      guard packet.count >= transport + 8 else { return nil }
      kind = .udp
      ports = (packet.u16(transport), packet.u16(transport + 2))
      end = transport + 8
    case 1 where !is6, 58 where is6:
      guard packet.count >= transport + 8 else { return nil }
      kind = Self.kind(ofICMP: packet.u8(transport), is6)
      if kind == .echo || kind == .echoReply { ports = (packet.u16(transport + 4), packet.u16(transport + 4)) }
      end = transport + 8
    default: break
    }
    self.kind = kind
    (flags, sequence, acknowledgement) = numbers
    localPort = isLeaving ? ports.0 : ports.1
    remotePort = kind == .echo || kind == .echoReply ? 0 : isLeaving ? ports.1 : ports.0
    payload = start + end..<frame.count
    // VIRTIO_NET_HDR_GSO_UDP_L4 of linux/virtio_net.h.
    segmentSize = !isQuoted && kind == .udp && frame[1] == 5 ? Int(frame[4]) | Int(frame[5]) << 8 : 0
  }

  private static func kind(ofICMP type: UInt8, _ is6: Bool) -> Kind {
    switch (type, is6) {
    case (8, false), (128, true): .echo
    case (0, false), (129, true): .echoReply
    // RFC 792, RFC 4443.
    case (3, false), (4, false), (11, false), (12, false), (1...4, true): .icmpError
    default: .icmp
    }
  }

  /// The same for all packets of a flow in both directions: a hash with the process's own key (SipHash), which nobody outside
  /// can aim at; never 0. An echo's answers are a flow of their own.
  public var mark: UInt64 { mark(as: kind) }

  /// The mark of the answer to an echo request; nil for other packets.
  public var answerMark: UInt64? { kind == .echo ? mark(as: .echoReply) : nil }

  private func mark(as kind: Kind) -> UInt64 {
    var hasher = Hasher()
    switch remote {
    case .v4(let four): hasher.combine(four.rawValue)
    case .v6(let six):
      hasher.combine(six.high)
      hasher.combine(six.low)
    }
    hasher.combine(UInt64(kind.rawValue) << 32 | UInt64(remotePort) << 16 | UInt64(localPort))
    return UInt64(bitPattern: Int64(hasher.finalize())) | 1 << 63
  }

  /// Whether its data is all of one datagram, or of several in a super-packet (RFC 768).
  public func isWholeDatagram(_ frame: UnsafeRawBufferPointer) -> Bool {
    guard kind == .udp, !isFragment, frame[1] == 0 || segmentSize > 0 else { return false }
    let length = payload.lowerBound - 4
    return Int(frame[length]) << 8 | Int(frame[length + 1]) == payload.count + 8
  }

  /// The datagrams of a frame of UDP: several in a super-packet.
  public var datagrams: [Range<Int>] {
    guard kind == .udp else { return [] }
    guard segmentSize > 0 else { return [payload] }
    return stride(from: payload.lowerBound, to: payload.upperBound, by: segmentSize).map {
      $0..<min($0 + segmentSize, payload.upperBound)
    }
  }
}

/// Flows of which one thread knows that they are open, so that it need not ask what all threads share. It forgets each
/// within two seconds, and one of them earlier where another has its place.
public struct FlowCache: Sendable {
  private static let lifetime: UInt32 = 2
  private static let ways = 2

  private var marks: [UInt64]
  private var ends: [UInt32]

  /// - Parameter count: a power of two, at least 2.
  public init(count: Int = 4096) {
    marks = Array(repeating: 0, count: count)
    ends = Array(repeating: 0, count: count)
  }

  private func place(_ mark: UInt64) -> Int { Int(truncatingIfNeeded: mark) & (marks.count - 1) & ~(Self.ways - 1) }

  /// - Parameter now: seconds of a clock that never goes back.
  @inline(__always)
  public func isOpen(_ mark: UInt64, now: UInt32) -> Bool {
    let first = place(mark)
    return marks[first] == mark && ends[first] > now || marks[first + 1] == mark && ends[first + 1] > now
  }

  public mutating func open(_ mark: UInt64, now: UInt32) {
    let first = place(mark)
    let chosen = marks[first] == mark || marks[first + 1] != mark && ends[first] <= ends[first + 1] ? first : first + 1
    marks[chosen] = mark
    ends[chosen] = now &+ Self.lifetime
  }
}
