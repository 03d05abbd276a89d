// Theory of operation.
//
// A raw socket takes what a network takes: whole packets of at most the MTU, with their checksums. What comes from the
// enclave is what a network card with offload takes. So this does in software, once, what such a card does:
//
//   TCP with a segment size ▶ segments: length, identification, sequence number, flags, checksum of each
//   anything else           ▶ its checksum, where it is left undone
//   UDP longer than the MTU ▶ fragments (RFC 791 section 3.2, RFC 8200 section 4.5)
//
// Nothing is copied but headers: a piece is a header, written into the caller's buffer, and a part of the frame.

/// One frame that a `PacketGuard` with shared ports has let pass, as the packets that a network takes.
public struct PacketPieces {
  /// The longest header of a piece: IPv4 with options and TCP with options (RFC 791, RFC 9293), or IPv6 and its
  /// fragment header.
  public static let headerLimit = 128

  private enum Kind { case whole, segments, fragments }

  private let packet: PacketBytes
  private let is6: Bool
  private let kind: Kind
  /// Where the transport header starts, and where what is divided does.
  private let transport: Int
  private let start: Int
  /// Of divided data in a piece.
  private let size: Int
  private let needsChecksum: Bool
  private let isTCP: Bool
  private let identification: UInt32
  /// The checksum of a whole packet, or of one in fragments.
  private var checksum: UInt16?
  private var offset: Int
  private var isDone = false

  /// - Parameters:
  ///   - frame: virtio-net header and packet, checked.
  ///   - mtu: in bytes; a TCP segment that is longer without a segment size is given out whole.
  ///   - identification: of IPv6 fragments, and of IPv4 ones whose packet has none.
  public init(_ frame: UnsafeRawBufferPointer, mtu: Int, identification: UInt32) throws(PacketPiecesError) {
    guard frame.count >= PacketGuard.offloadHeaderLength + 28 else { throw PacketPiecesError(defect: .truncated) }
    let header = PacketBytes(frame, from: 0)
    packet = PacketBytes(frame, from: PacketGuard.offloadHeaderLength)
    is6 = packet.u8(0) >> 4 == 6
    guard !is6 || packet.count >= 48 else { throw PacketPiecesError(defect: .truncated) }
    transport = is6 ? 40 : Int(packet.u8(0) & 15) * 4
    let number = is6 ? packet.u8(6) : packet.u8(9)
    isTCP = number == 6
    guard isTCP || number == 17 else { throw PacketPiecesError(defect: .foreignPort) }
    guard transport >= 20, packet.count >= transport + (isTCP ? 20 : 8) else {
      throw PacketPiecesError(defect: .truncated)
    }
    needsChecksum = header.u8(0) & 1 != 0
    let field = isTCP ? 16 : 6
    if needsChecksum {
      guard Int(header.u16Little(6)) == transport, Int(header.u16Little(8)) == field else {
        throw PacketPiecesError(defect: .badChecksumPlace)
      }
    }
    self.identification = identification
    let segmentSize = Int(header.u16Little(4))
    switch header.u8(1) & 0x7f {
    case 1, 4:
      guard isTCP, segmentSize > 0 else { throw PacketPiecesError(defect: .badSegmentSize) }
      kind = .segments
      start = transport + Int(packet.u8(transport + 12) >> 4) * 4
      size = segmentSize
      guard start >= transport + 20, start < packet.count else { throw PacketPiecesError(defect: .badHeaderLength) }
    case 0:
      if isTCP || packet.count <= mtu {
        kind = .whole
        start = transport + (isTCP ? 20 : 8)
        size = packet.count - start
      } else {
        kind = .fragments
        start = transport
        // All but the last are a multiple of 8 long.
        size = (mtu - transport - (is6 ? 8 : 0)) & ~7
        guard size >= 8 else { throw PacketPiecesError(defect: .badTotalLength) }
        if !is6, packet.u16(6) & 0x4000 != 0 { throw PacketPiecesError(defect: .badTotalLength) }
      }
      if needsChecksum {
        // The field has the sum of the pseudo-header already (virtio 1.2 section 5.1.6.2).
        var sum = Checksum()
        sum.add(packet.base + transport, packet.count - transport)
        let value = sum.value
        checksum = !isTCP && value == 0 ? 0xffff : value
      }
    default: throw PacketPiecesError(defect: .badOffload)
    }
    offset = start
  }

  /// Writes the next piece's header.
  /// - Parameter header: room for `headerLimit` bytes.
  /// - Returns: the header's length and the part of the packet that follows it; nil behind the last.
  public mutating func next(_ header: UnsafeMutableRawPointer) -> (header: Int, payload: UnsafeRawBufferPointer)? {
    guard !isDone else { return nil }
    let length = min(size, packet.count - offset)
    var payload = UnsafeRawBufferPointer(start: packet.base + offset, count: length)
    let isLast = offset + length == packet.count
    let done: Int
    switch kind {
    case .whole: done = whole(header)
    case .segments: done = segment(header, payload, isLast: isLast)
    case .fragments:
      done = fragment(header, length, isLast: isLast)
      // The first has UDP's header, checksum and all, as part of its own.
      if offset == start { payload = UnsafeRawBufferPointer(rebasing: payload.dropFirst(8)) }
    }
    offset += length
    isDone = isLast
    return (done, payload)
  }

  private func whole(_ header: UnsafeMutableRawPointer) -> Int {
    header.copyMemory(from: packet.base, byteCount: start)
    if let checksum { put(checksum, header + transport + (isTCP ? 16 : 6)) }
    return start
  }

  private func segment(
    _ header: UnsafeMutableRawPointer, _ payload: UnsafeRawBufferPointer, isLast: Bool
  ) -> Int {
    header.copyMemory(from: packet.base, byteCount: start)
    let tcp = header + transport
    let index = offset - start
    put(packet.u32(transport + 4) &+ UInt32(truncatingIfNeeded: index), tcp + 4)
    var flags = packet.u8(transport + 13)
    // FIN and PSH belong to the end, CWR to the beginning (RFC 3168 section 6.1.2).
    if !isLast { flags &= ~0x09 }
    if index > 0 { flags &= ~0x80 }
    tcp.storeBytes(of: flags, toByteOffset: 13, as: UInt8.self)
    let number = UInt32(truncatingIfNeeded: index / size)
    lengths(header, start + payload.count, identification: packet.u16(4) &+ UInt16(truncatingIfNeeded: number))
    put(UInt16(0), tcp + 16)
    var sum = Checksum()
    sum.add(packet.base + (is6 ? 8 : 12), is6 ? 32 : 8)
    sum.add(6 + UInt64(start - transport + payload.count))
    sum.add(tcp, start - transport)
    if let base = payload.baseAddress { sum.add(base, payload.count) }
    put(sum.value, tcp + 16)
    return start
  }

  private func fragment(_ header: UnsafeMutableRawPointer, _ length: Int, isLast: Bool) -> Int {
    header.copyMemory(from: packet.base, byteCount: transport)
    let place = UInt16(truncatingIfNeeded: offset - start)
    guard is6 else {
      let own = packet.u16(4)
      put(place >> 3 | (isLast ? 0 : 0x2000), header + 6)
      lengths(
        header, transport + length, identification: own == 0 ? UInt16(truncatingIfNeeded: identification | 1) : own)
      return firstBytes(header, transport)
    }
    header.storeBytes(of: 44, toByteOffset: 6, as: UInt8.self)
    header.storeBytes(of: packet.u8(6), toByteOffset: 40, as: UInt8.self)
    header.storeBytes(of: 0, toByteOffset: 41, as: UInt8.self)
    put(place | (isLast ? 0 : 1), header + 42)
    put(identification, header + 44)
    lengths(header, 48 + length, identification: 0)
    return firstBytes(header, 48)
  }

  private func firstBytes(_ header: UnsafeMutableRawPointer, _ length: Int) -> Int {
    guard offset == start else { return length }
    (header + length).copyMemory(from: packet.base + transport, byteCount: 8)
    if let checksum { put(checksum, header + length + 6) }
    return length + 8
  }

  /// The length in the IP header and, for IPv4, the identification and the header's checksum.
  private func lengths(_ header: UnsafeMutableRawPointer, _ total: Int, identification: UInt16) {
    if is6 {
      put(UInt16(truncatingIfNeeded: total - 40), header + 4)
      return
    }
    put(UInt16(truncatingIfNeeded: total), header + 2)
    put(identification, header + 4)
    put(UInt16(0), header + 10)
    var sum = Checksum()
    sum.add(header, transport)
    put(sum.value, header + 10)
  }

  private func put<T: FixedWidthInteger>(_ value: T, _ place: UnsafeMutableRawPointer) {
    place.storeBytes(of: value.bigEndian, as: T.self)
  }
}

/// Why a frame has no form that a raw socket takes.
public struct PacketPiecesError: Error, Equatable {
  public var defect: PacketDefect
}

/// The internet checksum (RFC 1071) of parts that each begin at an even place.
public struct Checksum {
  private var sum: UInt64 = 0

  public init() {}

  public mutating func add(_ number: UInt64) {
    // Of numbers in network order; the rest is summed in the machine's.
    let (low, high) = (number & 0xffff, number >> 16)
    fold(UInt64(UInt16(truncatingIfNeeded: low).bigEndian))
    fold(UInt64(UInt16(truncatingIfNeeded: high).bigEndian))
  }

  private mutating func fold(_ value: UInt64) {
    let (result, overflow) = sum.addingReportingOverflow(value)
    sum = result &+ (overflow ? 1 : 0)
  }

  public mutating func add(_ base: UnsafeRawPointer, _ count: Int) {
    // Halves of 32 bits in two sums of 64: no carry can be lost within 16 GiB, and the compiler can use vectors.
    var low: UInt64 = 0
    var high: UInt64 = 0
    var offset = 0
    while count - offset >= 8 {
      let word = base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
      low &+= word & 0xffff_ffff
      high &+= word >> 32
      offset += 8
    }
    while count - offset >= 2 {
      low &+= UInt64(base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
      offset += 2
    }
    if offset < count {
      // The last byte stands for a word whose second byte is 0.
      low &+= UInt64(UInt16(bigEndian: UInt16(base.load(fromByteOffset: offset, as: UInt8.self)) << 8))
    }
    fold(low)
    fold(high)
  }

  public var value: UInt16 {
    var rest = sum
    while rest >> 16 != 0 { rest = (rest & 0xffff) + (rest >> 16) }
    return ~UInt16(bigEndian: UInt16(truncatingIfNeeded: rest))
  }
}
