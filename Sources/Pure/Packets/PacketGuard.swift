import Inet
import Policy

// Theory of operation.
//
// A frame is a virtio-net header (struct virtio_net_hdr, 10 bytes, little-endian; virtio 1.2 section 5.1.6) and an IP
// packet, as a TUN device with IFF_VNET_HDR reads and writes them. What comes from the other side is foreign. The
// kernel checks much of it again (virtio_net_hdr_to_skb, ip_rcv), yet segmentation of forged super-packets has had its
// bugs, so nothing gets there whose lengths, types and places do not agree with each other:
//
//   length ▶ version and header length ▶ total length = what came ▶ addresses ▶ (only if it has any) offload fields
//
// Every check is a comparison of integers read inside the bounds; no allocation, no loop but that over IPv6's
// extension headers, which is bounded.

/// Decides of each packet from the other side whether the kernel may see it.
public struct PacketGuard: Sendable {
  /// struct virtio_net_hdr.
  public static let offloadHeaderLength = 10
  /// The longest packet: an IPv6 header and the most that its length field can say (RFC 8200 section 3).
  public static let packetLimit = 40 + 65535
  /// The longest frame.
  public static let frameLimit = offloadHeaderLength + packetLimit

  public enum Side: Sendable {
    /// Looks at what the enclave sends: its sources must be the enclave's.
    case host
    /// Looks at what the host sends: its destinations must be the enclave's.
    case enclave
  }

  @usableFromInline let isHost: Bool
  @usableFromInline let hasV4: Bool
  @usableFromInline let hasV6: Bool
  @usableFromInline let v4: UInt32
  @usableFromInline let v6High: UInt64
  @usableFromInline let v6Low: UInt64
  /// One bit a port; nil where every port may be connected to.
  @usableFromInline let ports: PortSet?
  /// The enclave has the host's own address, and of it these ports; nil where it has an address of its own.
  @usableFromInline let shared: PortSet?
  /// Where the enclave may send packets, as the host sees it; not asked on the enclave's side, where what comes in is for
  /// the enclave itself.
  public let destinations: DestinationGuard

  /// - Parameters:
  ///   - address4, address6: the enclave's own; a packet of a family without one is dropped.
  ///   - ports: the TCP ports of the enclave to which the host may open connections; nil for all. A segment that opens
  ///     one has SYN without ACK (RFC 9293 section 3.10.7.2), so this needs no memory of connections.
  ///   - shared: the host's side only: the enclave has the host's own address, and may send TCP and UDP from these
  ///     ports; everything else would speak for the host.
  ///   - destinations: the host's side only: where the enclave may send packets.
  public init(
    _ side: Side, address4: IPv4Address?, address6: IPv6Address?, ports: [UInt16]? = nil, shared: PortSet? = nil,
    destinations: Destinations = Destinations()
  ) {
    isHost = side == .host
    hasV4 = address4 != nil
    hasV6 = address6 != nil
    v4 = address4?.rawValue ?? 0
    v6High = address6?.high ?? 0
    v6Low = address6?.low ?? 0
    self.ports = ports.map { PortSet($0) }
    self.shared = shared
    self.destinations = DestinationGuard(destinations, isStrict: shared != nil)
  }

  public var judgesDestinations: Bool { isHost }

  /// The same with other destinations.
  public func with(_ destinations: Destinations) -> PacketGuard {
    PacketGuard(copying: self, DestinationGuard(destinations, isStrict: shared != nil))
  }

  private init(copying other: PacketGuard, _ destinations: DestinationGuard) {
    isHost = other.isHost
    hasV4 = other.hasV4
    hasV6 = other.hasV6
    v4 = other.v4
    v6High = other.v6High
    v6Low = other.v6Low
    ports = other.ports
    shared = other.shared
    self.destinations = destinations
  }

  /// - Returns: nil for a packet that may pass.
  @inlinable
  public func defect(in frame: UnsafeRawBufferPointer) -> PacketDefect? {
    guard frame.count >= Self.offloadHeaderLength + 20 else { return .truncated }
    guard frame.count <= Self.frameLimit else { return .badTotalLength }
    let packet = PacketBytes(frame, from: Self.offloadHeaderLength)
    var transport: Int
    var number: Int
    // The first of several fragments.
    var isFirst = false
    switch packet.u8(0) >> 4 {
    case 4:
      transport = Int(packet.u8(0) & 15) * 4
      guard transport >= 20 else { return .badHeaderLength }
      guard transport <= packet.count else { return .truncated }
      guard Int(packet.u16(2)) == packet.count else { return .badTotalLength }
      if let defect = addresses4(packet.u32(12), packet.u32(16)) { return defect }
      number = Int(packet.u8(9))
      // Only the first fragment has the header of the transport; RFC 791 section 3.1.
      let fragment = packet.u16(6)
      if fragment & 0x1fff != 0 {
        // Eight bytes behind the start of a segment are its flags, which the first fragment has shown (RFC 3128). Kernels
        // before Linux 4.20 put overlapping fragments together.
        if fragment & 0x1fff == 1, number == 6, shared == nil { return .tinyFragment }
        number = Self.none
      } else {
        isFirst = fragment & 0x2000 != 0
      }
      if isHost, !destinations.isOrdinary4(packet.u32(16)), destinations.denial(of: frame) != nil {
        return .badDestination
      }
      if shared != nil {
        if packet.u32(16) == v4 { return .badDestination }
        // A fragment's transport cannot be judged as a whole; the enclave's kernel has not made any yet in OUTPUT.
        if packet.u16(6) & 0x3fff != 0 { return .foreignPort }
        // Source routes (RFC 791 section 3.1) among them.
        if transport != 20 { return .foreignPort }
      }
    case 6:
      guard packet.count >= 40 else { return .truncated }
      // Also refuses jumbograms (RFC 2675), whose length is 0.
      guard Int(packet.u16(4)) + 40 == packet.count else { return .badTotalLength }
      if let defect = addresses6(packet.u64(8), packet.u64(16), packet.u64(24), packet.u64(32)) { return defect }
      (transport, number, isFirst) = Self.headers6(packet)
      if isHost, !destinations.isOrdinary6(packet.u64(24), packet.u64(32)), destinations.denial(of: frame) != nil {
        return .badDestination
      }
      if shared != nil, packet.u64(24) == v6High, packet.u64(32) == v6Low { return .badDestination }
      // Behind extension headers, routing and fragment headers among them, there could be anything.
      if shared != nil, transport != 40 { return .foreignPort }
    default: return .badVersion
    }
    if let shared {
      guard number == 6 || number == 17 else { return .foreignPort }
      guard packet.count >= transport + (number == 6 ? 20 : 8) else { return .truncated }
      guard shared.contains(packet.u16(transport)) else { return .foreignPort }
    }
    if number == 6 {
      if packet.count < transport + 14 {
        // The flags come in a second fragment (RFC 1858 section 3): nobody sends that, and here it would pass unseen.
        if ports != nil { return .unpublishedPort }
      } else if packet.u8(transport + 13) & 0x12 == 0x02, let ports, !ports.contains(packet.u16(transport + 2)) {
        return .unpublishedPort
      }
    } else if number == Self.endless {
      return .badHeaderLength
    } else if number == Self.early {
      return .tinyFragment
    } else if number == Self.cut, !isFirst {
      return .truncated
    }
    if isFirst, !Self.isWhole(packet, transport, number) { return .tinyFragment }
    let header = PacketBytes(frame, from: 0)
    // Plain packets, such as acknowledgements, have a header of zeros but for flags.
    if header.u16Little(0) & ~2 == 0, header.u64(2) == 0 { return nil }
    return Self.offload(header, packet, transport, number, is6: packet.u8(0) >> 4 == 6)
  }

  /// Whether `defect` may look at more than the first 256 bytes of a frame: only behind IPv6's extension headers, of which
  /// each may be 2 KiB long.
  /// - Parameter start: the first bytes of the frame, 256 of them where there are as many.
  public static func mayReachFar(_ start: UnsafeRawBufferPointer) -> Bool {
    let nextHeader = offloadHeaderLength + 6
    guard start.count > nextHeader, start[offloadHeaderLength] >> 4 == 6 else { return false }
    return isExtension(start[nextHeader])
  }

  /// Hop-by-hop options, routing, fragment, destination options, mobility (RFC 8200 section 4, RFC 6275).
  @inlinable
  static func isExtension(_ number: UInt8) -> Bool {
    switch number {
    case 0, 43, 44, 60, 135: true
    default: false
    }
  }

  // MARK: Addresses

  @inlinable @inline(__always)
  func addresses4(_ source: UInt32, _ destination: UInt32) -> PacketDefect? {
    guard hasV4 else { return isHost ? .badSource : .badDestination }
    if isHost {
      guard source == v4 else { return .badSource }
      // The host's loopback is its own whatever a rule says, also where route_localnet lets it be reached.
      return destination >> 24 != 0 && destination >> 24 != 127 ? nil : .badDestination
    }
    guard destination == v4 else { return .badDestination }
    return IPv4Address.isUnicast(source) ? nil : .badSource
  }

  @inlinable @inline(__always)
  func addresses6(
    _ sourceHigh: UInt64, _ sourceLow: UInt64, _ destinationHigh: UInt64, _ destinationLow: UInt64
  ) -> PacketDefect? {
    guard hasV6 else { return isHost ? .badSource : .badDestination }
    if isHost {
      guard sourceHigh == v6High, sourceLow == v6Low else { return .badSource }
      // ::, ::1, and IPv4 in a form that is never on the wire.
      return destinationHigh != 0 ? nil : .badDestination
    }
    guard destinationHigh == v6High, destinationLow == v6Low else { return .badDestination }
    return IPv6Address.isUnicast(high: sourceHigh) ? nil : .badSource
  }

  // MARK: Transport

  /// Instead of a transport's number: a later fragment, or one cut short.
  @usableFromInline static let none = -1
  /// More extension headers than anybody sends.
  @usableFromInline static let endless = -2
  /// The packet ends before or in its extension headers.
  @usableFromInline static let cut = -3
  /// A later fragment that begins where a transport's header is: it could replace what the first fragment has shown.
  @usableFromInline static let early = -4

  /// Whether the first of several fragments has all headers (RFC 7112 section 5, RFC 1858 section 3): what comes in a later
  /// one is not looked at.
  @inlinable
  static func isWhole(_ packet: PacketBytes, _ transport: Int, _ number: Int) -> Bool {
    switch number {
    case 6:
      packet.count >= transport + 20 && packet.count >= transport + Int(packet.u8(transport + 12) >> 4) * 4
    // UDP, ICMP, ICMPv6.
    case 17, 1, 58: packet.count >= transport + 8
    case cut: false
    default: true
    }
  }

  /// The place and number of the transport header behind IPv6's extension headers.
  @inlinable
  static func transport6(_ packet: PacketBytes) -> (Int, Int) {
    let (offset, number, _) = headers6(packet)
    return (offset, number)
  }

  /// The same, and whether this is the first of several fragments.
  @inlinable
  static func headers6(_ packet: PacketBytes) -> (Int, Int, Bool) {
    var offset = 40
    var number = packet.u8(6)
    var isFirst = false
    // RFC 8200 section 4.1 has each at most once but for destination options.
    for _ in 0..<8 {
      guard isExtension(number) else { return (offset, offset <= packet.count ? Int(number) : cut, isFirst) }
      guard packet.count >= offset + 8 else { return (offset, cut, isFirst) }
      if number == 44 {
        let place = packet.u16(offset + 2)
        // In bytes, since the three bits below are none of it. No first fragment is so short: an MTU is 1280 at least.
        if place & 0xfff8 != 0 { return (offset, place & 0xfff8 < 24 ? early : none, false) }
        if place & 1 != 0 { isFirst = true }
        number = packet.u8(offset)
        offset += 8
      } else {
        number = packet.u8(offset)
        offset += 8 + 8 * Int(packet.u8(offset + 1))
      }
    }
    return (offset, endless, isFirst)
  }

  // MARK: Offload

  /// struct virtio_net_hdr: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
  @inlinable
  static func offload(
    _ header: PacketBytes, _ packet: PacketBytes, _ transport: Int, _ number: Int, is6: Bool
  ) -> PacketDefect? {
    let flags = header.u8(0)
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, F_DATA_VALID.
    guard flags & ~3 == 0 else { return .badOffload }
    let needsChecksum = flags & 1 != 0
    let checksumStart = Int(header.u16Little(6))
    let checksumOffset = Int(header.u16Little(8))
    if needsChecksum {
      guard checksumStart >= (is6 ? 40 : 20), checksumStart + checksumOffset + 2 <= packet.count else {
        return .badChecksumPlace
      }
    }
    let segmentSize = Int(header.u16Little(4))
    guard Int(header.u16Little(2)) <= packet.count else { return .badSegmentSize }
    let checksumPlace: Int
    let headerEnd: Int
    // VIRTIO_NET_HDR_GSO_ECN goes with the TCP types.
    switch header.u8(1) {
    case 0: return segmentSize == 0 ? nil : .badSegmentSize
    case 1, 0x81, 4, 0x84:
      guard header.u8(1) & 4 == (is6 ? 4 : 0), number == 6 else { return .badOffload }
      guard packet.count >= transport + 20 else { return .truncated }
      let length = Int(packet.u8(transport + 12) >> 4) * 4
      guard length >= 20 else { return .badHeaderLength }
      headerEnd = transport + length
      checksumPlace = 16
      // tcp_min_snd_mss is 48 and options take at most 40 of it.
      guard segmentSize >= 8 else { return .badSegmentSize }
    case 5:
      guard number == 17 else { return .badOffload }
      headerEnd = transport + 8
      checksumPlace = 6
      // UDP_MAX_SEGMENTS of linux/udp.h.
      guard segmentSize > 0, packet.count - headerEnd <= 128 * segmentSize else { return .badSegmentSize }
    default: return .badOffload
    }
    guard headerEnd < packet.count else { return .truncated }
    if needsChecksum, checksumStart != transport || checksumOffset != checksumPlace { return .badChecksumPlace }
    return nil
  }
}

/// A set of ports as 65536 bits.
public struct PortSet: Sendable {
  @usableFromInline let words: [UInt64]

  public init(_ ports: [UInt16]) {
    var words = [UInt64](repeating: 0, count: 1024)
    for port in ports { words[Int(port >> 6)] |= 1 << UInt64(port & 63) }
    self.words = words
  }

  public init(ranges: [ClosedRange<UInt16>]) {
    var words = [UInt64](repeating: 0, count: 1024)
    for range in ranges { for port in range { words[Int(port >> 6)] |= 1 << UInt64(port & 63) } }
    self.words = words
  }

  @inlinable @inline(__always)
  public func contains(_ port: UInt16) -> Bool { words[Int(port >> 6)] & (1 << UInt64(port & 63)) != 0 }
}
