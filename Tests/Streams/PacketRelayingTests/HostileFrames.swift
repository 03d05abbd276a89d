import Inet
import Packets

/// An endless supply of frames for one end, most of them wrong, each with the verdict that it must get.
struct HostileFrames {
  static let own4 = "10.118.0.2"
  static let beside4 = "10.118.0.1"
  static let own6 = "fd74::2"
  static let beside6 = "fd74::1"
  static let ports: [UInt16] = [80]
  /// With a shared address: the enclave's.
  static let share = PortRanges([80...80, 1024...61439])
  /// Of every link.
  static let mtu = 1500
  /// In the packet that must pass in the end, and in the one that comes back.
  private static let mark = Array("tombolo!".utf8)

  let end: HostileEnd
  /// The verdicts on what was changed at random: the same code as in the end, because what is tested with those is that
  /// the end counts each of them once and under its reason. The crafted ones carry their reason by construction.
  private let judge: PacketGuard
  private var state: UInt64
  private let good: [[UInt8]]
  private let crafted: [(frame: [UInt8], reason: PacketDefect)]
  private let large: [[UInt8]]

  init(_ end: HostileEnd, seed: UInt64) {
    self.end = end
    state = seed | 1
    judge = PacketGuard(
      end.isHost ? .host : .enclave, address4: IPv4Address(Self.own4), address6: IPv6Address(Self.own6),
      ports: end.isHost ? nil : Self.ports, shared: end == .sharedHost ? PortSet(ranges: Self.share.ranges) : nil)
    good = Self.good(host: end.isHost)
    crafted = Self.crafted(end)
    large = Self.large(host: end.isHost)
  }

  /// The reasons that the sender of these frames brings about by construction.
  var reasons: Set<PacketDefect> { Set(crafted.map(\.reason)) }

  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }

  /// Writes one frame, its length first, and gives what the end must do with it: nil for passing it on.
  mutating func append(to buffer: UnsafeMutableRawBufferPointer, at end: inout Int) -> PacketDefect? {
    let random = next()
    let frame = UnsafeMutableRawBufferPointer(rebasing: buffer[(end + 4)...])
    var count: Int
    var known: PacketDefect?
    switch random & 7 {
    case 0: count = Self.copy(good[Int(random >> 8) % good.count], frame)
    case 1:
      let one = crafted[Int(random >> 8) % crafted.count]
      count = Self.copy(one.frame, frame)
      known = one.reason
    case 2:
      // Lengths at random, up to the longest now and then.
      let limit = random >> 8 & 0x3ff == 0 ? PacketGuard.frameLimit : 200
      count = 1 + Int(random >> 20) % limit
      var word = 0
      while word < min(count, 256) {
        frame.storeBytes(of: next(), toByteOffset: word, as: UInt64.self)
        word += 8
      }
      if count > 11, random >> 18 & 1 == 0 { frame[10] = 0x45 }
    case 3 where random >> 8 & 0xff == 0:
      count = Self.copy(large[Int(random >> 16) % large.count], frame)
      if random >> 30 & 1 == 0 { frame[Int(random >> 32) % 80] ^= UInt8(truncatingIfNeeded: random >> 48) }
    case 3, 4:
      // Offload fields at random over a good packet.
      count = Self.copy(good[Int(random >> 8) % good.count], frame)
      frame.storeBytes(of: next(), toByteOffset: 2, as: UInt64.self)
      frame[0] = UInt8(truncatingIfNeeded: random >> 40 & 3)
      frame[1] = [0, 1, 4, 5, 3, 0x81, 0x84, 0xff][Int(random >> 44 & 7)]
    case 5:
      // Cut short, the rest as it was.
      count = Self.copy(good[Int(random >> 8) % good.count], frame)
      count = 1 + Int(random >> 20) % count
    default:
      count = Self.copy(good[Int(random >> 8) % good.count], frame)
      for shift in 0...Int(random >> 16 & 3) {
        let place = Int(random >> UInt64(20 + shift * 7) & 0x7f) % count
        frame[place] = UInt8(truncatingIfNeeded: random >> UInt64(40 + shift * 3))
      }
    }
    buffer.storeBytes(of: UInt32(count).bigEndian, toByteOffset: end, as: UInt32.self)
    end += 4 + count
    if let known { return known }
    let bytes = UnsafeRawBufferPointer(rebasing: frame[..<count])
    if let defect = judge.defect(in: bytes) { return defect }
    guard self.end == .sharedHost else { return nil }
    // What the network gets in pieces must be divisible, too.
    do throws(PacketPiecesError) {
      _ = try PacketPieces(bytes, mtu: Self.mtu, identification: 0)
      return nil
    } catch {
      return error.defect
    }
  }

  /// A packet as the network brings it to a host, for anybody and of any sort, with a virtio-net header of zeros.
  /// - Returns: its length.
  mutating func fromNetwork(_ frame: UnsafeMutableRawBufferPointer) -> Int {
    let random = next()
    let count = Self.copy(good[Int(random >> 8) % good.count], frame)
    frame.storeBytes(of: 0, as: UInt64.self)
    frame.storeBytes(of: 0, toByteOffset: 8, as: UInt16.self)
    // The other way round: the addresses are where their checksums' parts were.
    if frame[10] >> 4 == 4 {
      let source = frame.loadUnaligned(fromByteOffset: 22, as: UInt32.self)
      frame.storeBytes(of: frame.loadUnaligned(fromByteOffset: 26, as: UInt32.self), toByteOffset: 22, as: UInt32.self)
      frame.storeBytes(of: source, toByteOffset: 26, as: UInt32.self)
    } else {
      for place in 18..<34 { frame.swapAt(place, place + 16) }
    }
    for shift in 0..<Int(random >> 16 & 7) {
      // Behind the addresses, so that the kernel hands them on as often as not.
      let place = (frame[10] >> 4 == 4 ? 30 : 50) + Int(next() & 0x7f)
      if place < count { frame[place] = UInt8(truncatingIfNeeded: random >> UInt64(24 + shift * 4)) }
    }
    return count
  }

  private static func copy(_ bytes: [UInt8], _ to: UnsafeMutableRawBufferPointer) -> Int {
    to.copyMemory(from: bytes.withUnsafeBytes { $0 })
    return bytes.count
  }

  // MARK: Packets

  private static func v4(
    _ host: Bool, _ number: UInt8, _ payload: [UInt8], source: String? = nil, destination: String? = nil
  ) -> [UInt8] {
    let from = IPv4Address(source ?? (host ? own4 : "192.0.2.1")) ?? .any
    let to = IPv4Address(destination ?? (host ? beside4 : own4)) ?? .any
    var bytes: [UInt8] = [0x45, 0] + big(20 + payload.count) + [0, 0, 0, 0, 64, number, 0, 0] + from.bytes + to.bytes
    bytes.replaceSubrange(10..<12, with: big(checksum(bytes)))
    return bytes + payload
  }

  private static func v6(_ host: Bool, _ number: UInt8, _ payload: [UInt8]) -> [UInt8] {
    let from = IPv6Address(host ? own6 : "2001:db8::1") ?? .any
    let to = IPv6Address(host ? beside6 : own6) ?? .any
    return [0x60, 0, 0, 0] + big(payload.count) + [number, 64] + from.bytes + to.bytes + payload
  }

  private static func tcp(_ port: Int, _ flags: UInt8, data: Int = 0, from: Int = 40000) -> [UInt8] {
    big(from) + big(port) + [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
      + Array(repeating: 7, count: data)
  }

  private static func udp(_ data: Int, from: Int = 40000) -> [UInt8] {
    big(from) + big(9) + big(8 + data) + [0, 0] + Array(repeating: 7, count: data)
  }

  private static func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }

  /// RFC 1071.
  private static func checksum(_ bytes: [UInt8]) -> Int {
    var sum = stride(from: 0, to: bytes.count, by: 2).reduce(0) { $0 + Int(bytes[$1]) << 8 + Int(bytes[$1 + 1]) }
    while sum > 0xffff { sum = sum & 0xffff + sum >> 16 }
    return ~sum & 0xffff
  }

  private static let plain = [UInt8](repeating: 0, count: 10)

  private static func offload(_ kind: UInt8, _ size: Int, start: Int, place: Int) -> [UInt8] {
    func little(_ value: Int) -> [UInt8] { [UInt8(value & 0xff), UInt8(value >> 8)] }
    return [1, kind] + little(start + 20) + little(size) + little(start) + little(place)
  }

  private static func good(host: Bool) -> [[UInt8]] {
    [
      plain + v4(host, 17, udp(30)), plain + v4(host, 6, tcp(80, 0x10)), plain + v4(host, 6, tcp(80, 0x02)),
      plain + v4(host, 17, udp(1400)), plain + v6(host, 17, udp(20)), plain + v6(host, 6, tcp(80, 0x11)),
      plain + v6(host, 60, [6, 0, 1, 4, 0, 0, 0, 0] + tcp(80, 0x02)),
      plain + v6(host, 44, [17, 0, 0, 1, 0, 0, 0, 9] + udp(24)),
      offload(1, 100, start: 20, place: 16) + v4(host, 6, tcp(80, 0x10, data: 350)),
      offload(4, 100, start: 40, place: 16) + v6(host, 6, tcp(80, 0x10, data: 350)),
      offload(5, 100, start: 20, place: 6) + v4(host, 17, udp(350)),
    ]
  }

  /// As large as the kernel makes them.
  private static func large(host: Bool) -> [[UInt8]] {
    [
      offload(1, 1448, start: 20, place: 16) + v4(host, 6, tcp(80, 0x10, data: 65535 - 40)),
      offload(4, 1428, start: 40, place: 16) + v6(host, 6, tcp(80, 0x10, data: 65535 - 20)),
    ]
  }

  /// One for each reason that a sender can bring about.
  private static func crafted(_ end: HostileEnd) -> [(frame: [UInt8], reason: PacketDefect)] {
    let host = end.isHost
    func changed(_ place: Int, _ value: UInt8) -> [UInt8] {
      var packet = plain + v4(host, 17, udp(30))
      packet[place] = value
      return packet
    }
    var all: [([UInt8], PacketDefect)] = [
      (plain + Array(v4(host, 17, udp(30)).prefix(19)), .truncated), (changed(10, 0x55), .badVersion),
      (changed(10, 0x44), .badHeaderLength), (changed(12, 1), .badTotalLength), (changed(0, 0x80), .badOffload),
      (changed(4, 100), .badSegmentSize), (changed(0, 1), .badChecksumPlace),
      (plain + v4(host, 17, udp(4), source: host ? "10.118.0.3" : "127.0.0.1"), .badSource),
      (plain + v4(host, 17, udp(4), destination: host ? "127.0.0.1" : "10.118.0.3"), .badDestination),
    ]
    if !host { all.append((plain + v4(host, 6, tcp(22, 0x02)), .unpublishedPort)) }
    if end == .sharedHost {
      all += [
        (plain + v4(host, 17, udp(4, from: 53)), .foreignPort),
        (plain + v4(host, 6, tcp(80, 0x02, from: 61440)), .foreignPort),
        (plain + v4(host, 1, [8, 0, 0xf7, 0xff, 0, 0, 0, 0]), .foreignPort),
        (plain + v6(host, 44, [17, 0, 0, 1, 0, 0, 0, 9] + udp(24)), .foreignPort),
        (plain + v4(host, 6, tcp(80, 0x02), destination: "169.254.169.254"), .badDestination),
        (plain + v4(host, 6, tcp(80, 0x02), destination: own4), .badDestination),
      ]
    }
    return all
  }

  /// What must pass after everything else, and have an answer: an echo request for the end's own kernel; with a shared
  /// address, where only TCP and UDP pass, what opens a connection to a closed port, or a datagram for the network.
  static func ping(_ end: HostileEnd) -> [UInt8] {
    switch end {
    case .tunHost, .tunEnclave:
      var message: [UInt8] = [8, 0, 0, 0, 0x54, 0x6d, 0, 1] + mark
      message.replaceSubrange(2..<4, with: big(checksum(message)))
      return plain + v4(end.isHost, 1, message)
    case .sharedEnclave:
      // Its checksum is still to be made, so that it cannot be wrong.
      return offload(0, 0, start: 20, place: 16) + v4(false, 6, tcp(80, 0x02, from: 0x546d))
    case .sharedHost: return plain + v4(true, 17, marked(from: 40000, to: 9))
    }
  }

  private static func marked(from: Int, to port: Int) -> [UInt8] {
    big(from) + big(port) + big(8 + mark.count) + [0, 0] + mark
  }

  /// The network's answer to `ping` of a host with a shared address.
  static let networkAnswer = plain + v4(false, 17, marked(from: 9, to: 40000), source: beside4)

  /// Whether a packet, which a virtio-net header precedes, is a marked datagram.
  static func isMarked(_ frame: UnsafeRawBufferPointer) -> Bool {
    frame.count == 10 + 36 && frame[10] == 0x45 && frame[19] == 17 && frame[38...].elementsEqual(mark)
  }

  /// Whether a frame from the end is the answer to `ping`.
  static func isPong(_ end: HostileEnd, _ frame: UnsafeRawBufferPointer) -> Bool {
    switch end {
    case .tunHost, .tunEnclave:
      frame.count == 10 + 36 && frame[10] == 0x45 && frame[19] == 1 && frame[30] == 0 && frame[34] == 0x54
        && frame[35] == 0x6d
    case .sharedEnclave:
      // RST, from 80 to the port that nothing else came from.
      frame.count >= 10 + 40 && frame[10] == 0x45 && frame[19] == 6 && frame[32] == 0x54 && frame[33] == 0x6d
        && frame[43] & 4 != 0
    case .sharedHost: isMarked(frame)
    }
  }

  /// What is wrong with a packet that a host with a shared address has sent into its network; nil for nothing.
  static func leak(_ packet: UnsafeRawBufferPointer) -> String? {
    let is6 = packet.count > 40 && packet[0] >> 4 == 6
    let transport = is6 ? 40 : 20
    guard packet.count >= transport + 8, packet.count <= mtu else { return "a packet of \(packet.count) bytes" }
    // The host's own IPv6, not what an enclave sent: solicitations and group reports, to link-local groups.
    if is6, packet[24] == 0xff, packet[25] == 2 { return nil }
    let number = packet[is6 ? 6 : 9]
    let source = IPAddress(bytes: Array(is6 ? packet[8..<24] : packet[12..<16]))
    guard source == IPAddress(is6 ? own6 : own4) else { return "source \(source.map { "\($0)" } ?? "none")" }
    // A fragment of what was whole and longer than the MTU: the first one has the ports.
    if is6, number == 44 {
      return packet[40] == 17 ? nil : "a fragment of protocol \(packet[40])"
    }
    guard number == 6 || number == 17 else { return "protocol \(number)" }
    if !is6, packet[7] != 0 || packet[6] & 0x1f != 0 { return nil }
    let port = UInt16(packet[transport]) << 8 | UInt16(packet[transport + 1])
    return share.contains(port) ? nil : "source port \(port)"
  }
}

/// Whose parts are attacked: TUN devices on both sides, or captured packets and the host's own address.
enum HostileEnd: String, CaseIterable, Sendable {
  case tunHost, tunEnclave, sharedHost, sharedEnclave

  var isHost: Bool { self == .tunHost || self == .sharedHost }
}
