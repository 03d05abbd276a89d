import Inet
import Packets
import Policy
import Testing

/// A frame built from fields, so that a test names only the one that is wrong.
struct TestFrame {
  var flags: UInt8 = 0
  var segmentation: UInt8 = 0
  var headerLength: UInt16 = 0
  var segmentSize: UInt16 = 0
  var checksumStart: UInt16 = 0
  var checksumOffset: UInt16 = 0
  var packet: [UInt8]

  var bytes: [UInt8] {
    var bytes = [flags, segmentation]
    for field in [headerLength, segmentSize, checksumStart, checksumOffset] {
      bytes += [UInt8(field & 0xff), UInt8(field >> 8)]
    }
    return bytes + packet
  }

  static func big(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }

  static func v4(
    _ source: String, _ destination: String, transport: UInt8 = 17, payload: [UInt8] = Array(repeating: 0, count: 20)
  ) -> [UInt8] {
    let total = 20 + payload.count
    return [0x45, 0] + big(total) + [0, 0, 0, 0, 64, transport, 0, 0]
      + (IPv4Address(source) ?? .any).bytes + (IPv4Address(destination) ?? .any).bytes + payload
  }

  static func v6(
    _ source: String, _ destination: String, transport: UInt8 = 17, payload: [UInt8] = Array(repeating: 0, count: 20)
  ) -> [UInt8] {
    [0x60, 0, 0, 0] + big(payload.count) + [transport, 64] + (IPv6Address(source) ?? .any).bytes
      + (IPv6Address(destination) ?? .any).bytes + payload
  }

  /// A TCP header without options.
  static func tcp(_ port: Int, flags: UInt8, data: Int = 0) -> [UInt8] {
    big(40000) + big(port) + [0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
      + Array(repeating: 7, count: data)
  }
}

extension PacketGuard {
  func defect(in bytes: [UInt8]) -> PacketDefect? { bytes.withUnsafeBytes { defect(in: $0) } }
}

private let own4 = "10.118.0.2"
private let own6 = "fd74::2"
/// Addresses for documentation stand for the internet here.
private let documentation = Destinations(
  allowed: ["192.0.2.0/24", "2001:db8::/32"].compactMap { IPPrefix($0) }.map { DestinationRule($0) })
private let host = PacketGuard(
  .host, address4: IPv4Address(own4), address6: IPv6Address(own6), destinations: documentation)
private let enclave = PacketGuard(.enclave, address4: IPv4Address(own4), address6: IPv6Address(own6), ports: [80, 443])

/// What stands between a hostile other side and this side's kernel.
@Suite struct PacketGuardTests {
  /// The host must never send packets into the network with a source that it did not give the enclave, nor let the
  /// enclave at its loopback services.
  @Test(
    arguments: [
      (TestFrame.v4(own4, "192.0.2.1"), nil), (TestFrame.v6(own6, "2001:db8::1"), nil),
      (TestFrame.v4("10.118.0.3", "192.0.2.1"), .badSource), (TestFrame.v4("0.0.0.0", "255.255.255.255"), .badSource),
      (TestFrame.v6("fd74::3", "2001:db8::1"), .badSource), (TestFrame.v6("fe80::1", "ff02::2"), .badSource),
      (TestFrame.v4(own4, "127.0.0.1"), .badDestination), (TestFrame.v4(own4, "0.0.0.1"), .badDestination),
      (TestFrame.v4(own4, "224.0.0.251"), .badDestination), (TestFrame.v4(own4, "255.255.255.255"), .badDestination),
      (TestFrame.v6(own6, "::1"), .badDestination), (TestFrame.v6(own6, "::ffff:7f00:1"), .badDestination),
      (TestFrame.v6(own6, "ff02::1"), .badDestination), (TestFrame.v6(own6, "fe80::1"), .badDestination),
    ] as [([UInt8], PacketDefect?)]) func addressesFromTheEnclave(packet: [UInt8], expected: PacketDefect?)
  {
    #expect(host.defect(in: TestFrame(packet: packet).bytes) == expected)
  }

  /// The enclave takes only what is for it, and from nobody who claims to be its own loopback.
  @Test(
    arguments: [
      (TestFrame.v4("192.0.2.1", own4), nil), (TestFrame.v6("2001:db8::1", own6), nil),
      (TestFrame.v4("192.0.2.1", "10.118.0.1"), .badDestination),
      (TestFrame.v4("192.0.2.1", "127.0.0.1"), .badDestination),
      (TestFrame.v6("2001:db8::1", "::1"), .badDestination), (TestFrame.v6("fe80::1", "ff02::1"), .badDestination),
      (TestFrame.v4("127.0.0.1", own4), .badSource), (TestFrame.v6("::1", own6), .badSource),
      (TestFrame.v4("224.0.0.1", own4), .badSource), (TestFrame.v6("ff02::1", own6), .badSource),
    ] as [([UInt8], PacketDefect?)]) func addressesFromTheHost(packet: [UInt8], expected: PacketDefect?)
  {
    #expect(enclave.defect(in: TestFrame(packet: packet).bytes) == expected)
  }

  /// The host must not reach what the image did not publish; answers and the published ports stay open.
  @Test func portsOfTheEnclave() {
    func verdict(_ port: Int, _ flags: UInt8, v6: Bool) -> PacketDefect? {
      let tcp = TestFrame.tcp(port, flags: flags)
      let packet =
        v6
        ? TestFrame.v6("2001:db8::1", own6, transport: 6, payload: tcp)
        : TestFrame.v4("192.0.2.1", own4, transport: 6, payload: tcp)
      return enclave.defect(in: TestFrame(packet: packet).bytes)
    }
    for v6 in [false, true] {
      #expect(verdict(80, 0x02, v6: v6) == nil)
      #expect(verdict(22, 0x02, v6: v6) == .unpublishedPort)
      // SYN with PSH, URG, ECE, CWR opens a connection too.
      #expect(verdict(22, 0xea, v6: v6) == .unpublishedPort)
      #expect(verdict(40001, 0x12, v6: v6) == nil)
      #expect(verdict(40001, 0x10, v6: v6) == nil)
    }
    // Behind an extension header as well.
    let hidden = TestFrame.v6(
      "2001:db8::1", own6, transport: 60, payload: [6, 0, 1, 4, 0, 0, 0, 0] + TestFrame.tcp(22, flags: 2))
    #expect(enclave.defect(in: TestFrame(packet: hidden).bytes) == .unpublishedPort)
    // The kernel takes tiny first fragments too, and joins them: this one ends before the flags.
    var fragment = TestFrame.v4("192.0.2.1", own4, transport: 6, payload: Array(TestFrame.tcp(22, flags: 2).prefix(8)))
    fragment[6] = 0x20
    #expect(enclave.defect(in: TestFrame(packet: fragment).bytes) == .unpublishedPort)
    let chain = (0..<9).flatMap { [$0 == 8 ? UInt8(6) : 60, 0, 1, 4, 0, 0, 0, 0] } + TestFrame.tcp(22, flags: 2)
    let endless = TestFrame.v6("2001:db8::1", own6, transport: 60, payload: chain)
    #expect(enclave.defect(in: TestFrame(packet: endless).bytes) == .badHeaderLength)
  }

  @Test func lengths() {
    let good = TestFrame.v4(own4, "192.0.2.1")
    func check(_ expected: PacketDefect?, _ change: (inout [UInt8]) -> Void) {
      var packet = good
      change(&packet)
      #expect(host.defect(in: TestFrame(packet: packet).bytes) == expected)
    }
    check(nil) { _ in }
    check(.truncated) { $0.removeLast($0.count - 19) }
    check(.badTotalLength) { $0.removeLast() }
    check(.badTotalLength) { $0.append(0) }
    check(.badVersion) { $0[0] = 0x55 }
    check(.badHeaderLength) { $0[0] = 0x44 }
    check(.truncated) { $0[0] = 0x4f }
    let good6 = TestFrame.v6(own6, "2001:db8::1")
    #expect(host.defect(in: TestFrame(packet: Array(good6.prefix(39))).bytes) == .truncated)
    #expect(host.defect(in: TestFrame(packet: Array(good6.dropLast())).bytes) == .badTotalLength)
    #expect(host.defect(in: []) == .truncated)
    #expect(host.defect(in: Array(repeating: 0x45, count: PacketGuard.frameLimit + 1)) == .badTotalLength)
  }

  /// Super-packets: without them raw mode is ten times slower; forged ones are how segmentation has been attacked.
  @Test func segmentation() {
    let packet = TestFrame.v4(own4, "192.0.2.1", transport: 6, payload: TestFrame.tcp(80, flags: 0x10, data: 3000))
    let good = TestFrame(
      flags: 1, segmentation: 1, headerLength: 40, segmentSize: 1448, checksumStart: 20, checksumOffset: 16,
      packet: packet)
    func check(_ expected: PacketDefect?, _ change: (inout TestFrame) -> Void) {
      var frame = good
      change(&frame)
      #expect(host.defect(in: frame.bytes) == expected)
    }
    check(nil) { _ in }
    check(nil) { $0.segmentation = 0x81 }
    check(.badOffload) { $0.segmentation = 4 }
    check(.badOffload) { $0.segmentation = 3 }
    check(.badOffload) { $0.segmentation = 5 }
    check(.badOffload) { $0.segmentation = 0x21 }
    check(.badOffload) { $0.flags = 5 }
    check(.badSegmentSize) { $0.segmentSize = 0 }
    check(.badSegmentSize) { $0.segmentSize = 7 }
    check(.badSegmentSize) { $0.headerLength = 5000 }
    check(.badSegmentSize) { $0.segmentation = 0 }
    check(.badChecksumPlace) { $0.checksumStart = 24 }
    check(.badChecksumPlace) { $0.checksumOffset = 6 }
    check(.badChecksumPlace) { $0.checksumStart = 0 }
    check(.badChecksumPlace) { $0.checksumStart = 0xffff }
    check(.badChecksumPlace) { $0.checksumOffset = 0xffff }
    check(.badHeaderLength) { $0.packet[32] = 0x40 }
    check(.truncated) { frame in
      frame.packet = TestFrame.v4(own4, "192.0.2.1", transport: 6, payload: TestFrame.tcp(80, flags: 0x10))
      frame.headerLength = 0
    }
    let six = TestFrame.v6(own6, "2001:db8::1", transport: 6, payload: TestFrame.tcp(80, flags: 0x10, data: 3000))
    check(nil) {
      $0.packet = six
      $0.segmentation = 4
      $0.checksumStart = 40
    }
    check(nil) {
      $0.packet = TestFrame.v4(own4, "192.0.2.1", payload: Array(repeating: 0, count: 3008))
      $0.segmentation = 5
      $0.checksumOffset = 6
    }
    check(.badSegmentSize) {
      $0.packet = TestFrame.v4(own4, "192.0.2.1", payload: Array(repeating: 0, count: 3008))
      $0.segmentation = 5
      $0.segmentSize = 10
      $0.checksumOffset = 6
    }
  }

  /// Ten million hostile frames: random ones, and good ones with bytes changed or cut; a trap here would end the proxy.
  @Test func hostileInput() {
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    let seeds = [
      TestFrame(
        flags: 1, segmentation: 1, headerLength: 40, segmentSize: 100, checksumStart: 20, checksumOffset: 16,
        packet: TestFrame.v4(own4, "192.0.2.1", transport: 6, payload: TestFrame.tcp(80, flags: 2, data: 40))
      ).bytes,
      TestFrame(
        flags: 1, segmentation: 4, headerLength: 60, segmentSize: 100, checksumStart: 40, checksumOffset: 16,
        packet: TestFrame.v6(
          "2001:db8::1", own6, transport: 60, payload: [6, 0, 1, 4, 0, 0, 0, 0] + TestFrame.tcp(80, flags: 2))
      ).bytes,
      TestFrame(packet: TestFrame.v6(own6, "2001:db8::1", transport: 44, payload: Array(repeating: 0, count: 60)))
        .bytes,
      Array(repeating: UInt8(0), count: 128),
    ]
    let guards = [host, enclave]
    var passed = 0
    var dropped = 0
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 256, alignment: 16)
    defer { memory.deallocate() }
    let rounds = 10_000_000
    for round in 0..<rounds {
      let seed = seeds[round & 3]
      memory.copyBytes(from: seed)
      var count = seed.count
      let random = next()
      if round & 3 == 3 {
        for word in 0..<16 { memory.storeBytes(of: next(), toByteOffset: word * 8, as: UInt64.self) }
        if random & 1 == 0 { memory[10] = random & 2 == 0 ? 0x45 : 0x60 }
      } else {
        for shift in 0..<Int(random & 3) {
          memory[Int(random >> UInt64(8 + shift * 8) & 0xff) % count] = UInt8(
            truncatingIfNeeded: random >> 40 &+ UInt64(shift))
        }
      }
      if random & 0x30 == 0 { count = Int(random >> 50) % (count + 1) }
      let frame = UnsafeRawBufferPointer(rebasing: memory[..<count])
      if guards[Int(random >> 4 & 1)].defect(in: frame) == nil { passed += 1 } else { dropped += 1 }
    }
    #expect(passed + dropped == rounds)
    // Both ways were taken often enough to mean something.
    #expect(passed > 100_000)
    #expect(dropped > 1_000_000)
  }

  /// RFC 1858, RFC 3128, RFC 7112: what the host may not open it must not get in pieces either. Kernels before 4.20 let a
  /// later fragment replace what the first one has shown.
  @Test func fragmentsShowAllHeaders() {
    let tcp = TestFrame.tcp(80, flags: 2, data: 20)
    func v4(_ transport: UInt8, offset: Int, more: Bool, _ payload: [UInt8]) -> [UInt8] {
      var packet = TestFrame.v4("192.0.2.1", own4, transport: transport, payload: payload)
      packet[6] = UInt8(offset >> 8) | (more ? 0x20 : 0)
      packet[7] = UInt8(offset & 0xff)
      return packet
    }
    func v6(_ next: UInt8, offset: Int, more: Bool, before: [UInt8] = [], _ payload: [UInt8]) -> [UInt8] {
      let header: [UInt8] = [next, 0] + TestFrame.big(offset << 3 | (more ? 1 : 0)) + [0, 0, 0, 7]
      return TestFrame.v6(
        "2001:db8::1", own6, transport: before.isEmpty ? 44 : 60, payload: before + header + payload)
    }
    let eight = [UInt8](repeating: 0, count: 8)
    let options: [UInt8] = [44, 0, 1, 4, 0, 0, 0, 0]
    var long = tcp
    long[12] = 0x80
    for (packet, expected) in [
      (v4(6, offset: 0, more: true, tcp), nil),
      (v4(6, offset: 0, more: true, Array(tcp.prefix(16))), .tinyFragment),
      // Its options are in the next one.
      (v4(6, offset: 0, more: true, Array(long.prefix(24))), .tinyFragment),
      (v4(6, offset: 0, more: true, Array(long.prefix(32))), nil),
      (v4(6, offset: 1, more: false, Array(tcp.suffix(32))), .tinyFragment),
      (v4(6, offset: 1, more: true, Array(tcp.suffix(32))), .tinyFragment),
      (v4(6, offset: 2, more: false, Array(tcp.suffix(24))), nil),
      (v4(6, offset: 185, more: true, eight), nil),
      (v4(17, offset: 0, more: true, Array(eight.prefix(4))), .tinyFragment),
      (v4(17, offset: 0, more: true, eight), nil),
      (v4(17, offset: 1, more: false, eight), nil), (v4(1, offset: 0, more: true, []), .tinyFragment),
      (v4(1, offset: 0, more: true, eight), nil), (v4(132, offset: 0, more: true, eight), nil),
      (v6(6, offset: 0, more: true, tcp), nil),
      (v6(6, offset: 0, more: true, Array(tcp.prefix(16))), .tinyFragment),
      (v6(6, offset: 0, more: true, before: options, Array(long.prefix(24))), .tinyFragment),
      (v6(6, offset: 0, more: true, before: options, Array(long.prefix(32))), nil),
      (v6(6, offset: 1, more: true, eight), .tinyFragment), (v6(17, offset: 2, more: false, eight), .tinyFragment),
      (v6(6, offset: 155, more: false, eight), nil),
      // The chain goes on in the next one: options that say that they are longer, options whose start is missing.
      (v6(60, offset: 0, more: true, [6, 1, 1, 4, 0, 0, 0, 0]), .tinyFragment),
      (v6(60, offset: 0, more: true, []), .tinyFragment),
      (v6(60, offset: 0, more: true, [6, 0, 1, 4, 0, 0, 0, 0] + tcp), nil),
      (v6(17, offset: 0, more: true, Array(eight.prefix(4))), .tinyFragment),
      (v6(17, offset: 0, more: true, eight), nil),
      (v6(58, offset: 0, more: true, []), .tinyFragment), (v6(58, offset: 0, more: true, eight), nil),
      // Not in pieces at all, and cut in its options.
      (TestFrame.v6("2001:db8::1", own6, transport: 60, payload: [6, 3, 1, 4, 0, 0, 0, 0]), .truncated),
    ] as [([UInt8], PacketDefect?)] {
      #expect(enclave.defect(in: TestFrame(packet: packet).bytes) == expected, "\(packet)")
    }
  }

  /// A sender cuts segments as it likes, lets fragments overlap, and mixes two segments under one number. Whichever
  /// fragment a kernel believes, what it puts together opens no port that is not published.
  @Test func fragmentsThatPassOpenNoOtherPort() {
    var random = SystemRandomNumberGenerator()
    let segments = [
      TestFrame.tcp(80, flags: 2, data: 28), TestFrame.tcp(22, flags: 2, data: 28),
      TestFrame.tcp(22, flags: 0x10, data: 28),
    ]
    var whole = 0
    for round in 0..<50_000 {
      var passed: [(range: Range<Int>, bytes: [UInt8])] = []
      for _ in 0..<Int.random(in: 2...4, using: &random) {
        let start = 8 * [0, 0, 1, 1, 2, 3].randomElement(using: &random)!
        let end = min(48, start + 8 * Int.random(in: 1...6, using: &random))
        let bytes = Array(segments.randomElement(using: &random)![start..<end])
        let more = end < 48
        var packet: [UInt8]
        if round & 1 == 0 {
          packet = TestFrame.v4("192.0.2.1", own4, transport: 6, payload: bytes)
          packet[6] = more ? 0x20 : 0
          packet[7] = UInt8(start / 8)
        } else {
          let header: [UInt8] = [6, 0] + TestFrame.big(start | (more ? 1 : 0)) + [0, 0, 0, 7]
          packet = TestFrame.v6("2001:db8::1", own6, transport: 44, payload: header + bytes)
        }
        if enclave.defect(in: TestFrame(packet: packet).bytes) == nil { passed.append((start..<end, bytes)) }
      }
      for order in [passed, passed.reversed()] {
        var together = [UInt8?](repeating: nil, count: 48)
        for (range, bytes) in order { for (place, byte) in zip(range, bytes) { together[place] = byte } }
        guard !together.contains(nil) else { continue }
        whole += 1
        let port = together[2...3].compactMap { $0 }
        let opens = (together[13] ?? 0) & 0x12 == 0x02
        #expect(!opens || port == TestFrame.big(80))
      }
    }
    #expect(whole > 1000)
  }

  /// Of a frame in memory that the other side can change, only the first 256 bytes are copied before the verdict, unless
  /// `mayReachFar` says otherwise: what lies behind them must not count, or a packet could get past the guard.
  @Test func verdictsNeedTheHeadersAlone() {
    var random = SystemRandomNumberGenerator()
    let data = 1200
    let options = [UInt8](repeating: 1, count: 40)
    let tcp = TestFrame.tcp(80, flags: 2, data: data)
    var longest = Array(tcp.prefix(20)) + options + tcp.dropFirst(20)
    longest[12] = 0xf0
    var v4 = TestFrame.v4(own4, "192.0.2.1", transport: 6, payload: options + longest)
    v4[0] = 0x4f
    // Those that there are, and all others.
    let numbers = Array(0...255) + (0..<50).flatMap { _ in [0, 43, 44, 60, 135] }
    let extended = numbers.map {
      TestFrame.v6(
        own6, "2001:db8::1", transport: UInt8($0),
        payload: [60, 0, 0, 0, 0, 0, 0, 0, 6, 124, 1, 4]
          + Array(repeating: 0, count: 996) + longest)
    }
    let plain = [
      v4, TestFrame.v6(own6, "2001:db8::1", transport: 6, payload: longest),
      TestFrame.v4(own4, "192.0.2.1", transport: 17, payload: Array(repeating: 3, count: data)),
    ]
    let shared = PacketGuard(
      .host, address4: IPv4Address(own4), address6: IPv6Address(own6), shared: PortSet(ranges: [1024...61439]))
    var far = 0
    var passed = 0
    for round in 0..<100_000 {
      let packet = round & 1 == 0 ? plain[round / 2 % plain.count] : extended[round / 2 % extended.count]
      var frame = TestFrame(packet: packet).bytes
      if packet == v4, round & 2 == 0 {
        let super4 = TestFrame(
          flags: 1, segmentation: 1, headerLength: 100, segmentSize: 100, checksumStart: 60, checksumOffset: 16,
          packet: v4)
        frame = super4.bytes
      }
      for _ in 0..<Int.random(in: 0...3, using: &random) {
        frame[Int.random(in: 0..<130, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let reachesFar = frame.withUnsafeBytes { PacketGuard.mayReachFar(UnsafeRawBufferPointer(rebasing: $0[..<256])) }
      if reachesFar {
        far += 1
        continue
      }
      var changed = frame
      let filler = UInt8.random(in: 0...255, using: &random)
      for place in 256..<changed.count { changed[place] ^= filler }
      for one in [host, enclave, shared] {
        let verdict = frame.withUnsafeBytes { one.defect(in: $0) }
        if verdict == nil { passed += 1 }
        #expect(changed.withUnsafeBytes { one.defect(in: $0) } == verdict)
      }
    }
    #expect(far > 10_000)
    #expect(passed > 1000)
  }
}
