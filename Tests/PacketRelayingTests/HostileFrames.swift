import Inet
import Packets

/// An endless supply of frames for one end, most of them wrong, each with the verdict that it must get.
struct HostileFrames {
  static let own4 = "10.118.0.2"
  static let beside4 = "10.118.0.1"
  static let own6 = "fd74::2"
  static let beside6 = "fd74::1"
  static let ports: [UInt16] = [80]

  let isHost: Bool
  /// The verdicts on what was changed at random: the same code as in the end, because what is tested with those is that
  /// the end counts each of them once and under its reason. The crafted ones carry their reason by construction.
  private let judge: PacketGuard
  private var state: UInt64
  private let good: [[UInt8]]
  private let crafted: [(frame: [UInt8], reason: PacketDefect)]
  private let large: [[UInt8]]

  init(host isHost: Bool, seed: UInt64) {
    self.isHost = isHost
    state = seed | 1
    judge = PacketGuard(
      isHost ? .host : .enclave, address4: IPv4Address(Self.own4), address6: IPv6Address(Self.own6),
      ports: isHost ? nil : Self.ports)
    good = Self.good(host: isHost)
    crafted = Self.crafted(host: isHost)
    large = Self.large(host: isHost)
  }

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
    return judge.defect(in: UnsafeRawBufferPointer(rebasing: frame[..<count]))
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

  private static func tcp(_ port: Int, _ flags: UInt8, data: Int = 0) -> [UInt8] {
    big(40000) + big(port) + [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
      + Array(repeating: 7, count: data)
  }

  private static func udp(_ data: Int) -> [UInt8] {
    big(40000) + big(9) + big(8 + data) + [0, 0] + Array(repeating: 7, count: data)
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
  private static func crafted(host: Bool) -> [(frame: [UInt8], reason: PacketDefect)] {
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
    return all
  }

  /// An echo request that the end's own kernel answers.
  static func ping(host: Bool) -> [UInt8] {
    var message: [UInt8] = [8, 0, 0, 0, 0x54, 0x6d, 0, 1] + Array("tombolo!".utf8)
    message.replaceSubrange(2..<4, with: big(checksum(message)))
    return plain + v4(host, 1, message)
  }

  /// Whether a frame from the end is the answer to it.
  static func isPong(_ frame: UnsafeRawBufferPointer) -> Bool {
    frame.count == 10 + 36 && frame[10] == 0x45 && frame[19] == 1 && frame[30] == 0 && frame[34] == 0x54
      && frame[35] == 0x6d
  }
}
