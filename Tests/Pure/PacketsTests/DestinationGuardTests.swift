import Inet
import Packets
import Policy
import Testing

/// Which packets go to special addresses, and how their sender is told.
@Suite struct DestinationGuardTests {
  private static let own4 = "10.118.0.2"
  private static let own6 = "fd74::2"

  private func guarding(_ rules: String..., own: Set<IPAddress> = [], shared: Bool = false) throws -> PacketGuard {
    let allowed = try rules.map { (text) throws(DestinationRuleError) in try DestinationRule(text) }
    return PacketGuard(
      .host, address4: IPv4Address(Self.own4), address6: IPv6Address(Self.own6),
      shared: shared ? PortSet(ranges: [1024...65535]) : nil, destinations: Destinations(allowed: allowed, own: own))
  }

  private func tcp(_ destination: String, port: Int = 80, flags: UInt8 = 2) -> [UInt8] {
    let segment = TestFrame.tcp(port, flags: flags)
    let packet =
      destination.contains(":")
      ? TestFrame.v6(Self.own6, destination, transport: 6, payload: segment)
      : TestFrame.v4(Self.own4, destination, transport: 6, payload: segment)
    return TestFrame(packet: packet).bytes
  }

  @Test(arguments: [
    "169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "198.18.0.1", "240.0.0.1",
    "255.255.255.255", "224.0.0.1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fe80::1",
    "2001:db8::1",
    "2001:2::1", "64:ff9b:1::a9fe:a9fe", "fd00::5efe:127.0.0.1", "4000::1",
  ]) func special(_ destination: String) throws {
    #expect(try guarding().defect(in: tcp(destination)) == .badDestination)
    let outgoing = DestinationGuard(Destinations())
    #expect(tcp(destination).withUnsafeBytes { outgoing.denies($0) })
  }

  @Test(arguments: ["10.9.0.2", "8.8.8.8", "172.16.3.4", "fd09::2", "2606:4700::1111", "64:ff9b::808:808"])
  func ordinary(_ destination: String) throws {
    #expect(try guarding().defect(in: tcp(destination)) == nil)
    let outgoing = DestinationGuard(Destinations())
    #expect(!tcp(destination).withUnsafeBytes { outgoing.denies($0) })
  }

  @Test func rulesAndPorts() throws {
    let some = try guarding("169.254.169.254:80", "240.0.0.0/4", "127.0.0.1", "0.0.0.0/0")
    #expect(some.defect(in: tcp("169.254.169.254")) == nil)
    #expect(some.defect(in: tcp("169.254.169.254", port: 81)) == .badDestination)
    #expect(some.defect(in: tcp("64:ff9b::a9fe:a9fe")) == nil)
    #expect(some.defect(in: tcp("240.1.1.1")) == nil)
    // The loopback of the host is never on the wire, whatever a rule says.
    #expect(some.defect(in: tcp("127.0.0.1")) == .badDestination)
    #expect(some.defect(in: tcp("0.0.0.0")) == .badDestination)
    // A later fragment has no port, so a rule for one port is none for it.
    var fragment = TestFrame.v4(Self.own4, "169.254.169.254", payload: Array(repeating: 0, count: 24))
    fragment[7] = 1
    #expect(some.defect(in: TestFrame(packet: fragment).bytes) == .badDestination)
  }

  /// Who comes in from such an address, as Azure's probes do, is answered; nobody is called.
  @Test func answersPass() throws {
    let some = try guarding()
    for (flags, expected) in [
      (2, .badDestination), (0x12, nil), (0x10, nil), (0x18, nil), (4, nil), (0xc2, .badDestination),
    ]
      as [(UInt8, PacketDefect?)]
    {
      #expect(some.defect(in: tcp("168.63.129.16", flags: flags)) == expected, "\(flags)")
      #expect(some.defect(in: tcp("169.254.171.9", flags: flags)) == expected, "\(flags)")
      #expect(some.defect(in: tcp("240.0.0.1", flags: flags)) == .badDestination, "\(flags)")
    }
    #expect(try guarding(shared: true).defect(in: tcp("169.254.171.9", flags: 0x10)) == .badDestination)
    // Flags in a second fragment are seen by nobody.
    var tiny = TestFrame.v4(Self.own4, "169.254.169.254", transport: 6, payload: [0x9c, 0x40, 0, 80, 0, 0, 0, 1])
    tiny[6] = 0x20
    #expect(some.defect(in: TestFrame(packet: tiny).bytes) == .badDestination)
  }

  @Test func ownAddressesOfTheHost() throws {
    let some = try guarding(own: [.v4(IPv4Address(10, 8, 0, 77))], shared: true)
    #expect(some.defect(in: tcp("10.8.0.77")) == .badDestination)
    #expect(some.defect(in: tcp("64:ff9b::10.8.0.77")) == .badDestination)
    #expect(some.defect(in: tcp("10.8.0.78")) == nil)
    let other = some.with(Destinations(own: [.v4(IPv4Address(10, 8, 0, 78))]))
    #expect(other.defect(in: tcp("10.8.0.77")) == nil)
    #expect(other.defect(in: tcp("10.8.0.78")) == .badDestination)
  }

  // MARK: the answer

  private func answer(_ frame: [UInt8], copied: Int? = nil) -> [UInt8] {
    var place = [UInt8](repeating: 0xaa, count: Refusal.frameLimit)
    let length = frame.withUnsafeBytes { from in
      place.withUnsafeMutableBytes { to in
        to.baseAddress.map { Refusal.answer(to: from, copied: copied ?? from.count, $0) } ?? 0
      }
    }
    return Array(place.prefix(length))
  }

  private func sum(_ bytes: some Sequence<UInt8>) -> UInt32 {
    var total: UInt32 = 0
    for (index, byte) in bytes.enumerated() { total += index % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
    while total > 0xffff { total = total & 0xffff + total >> 16 }
    return total
  }

  @Test func aConnectionIsReset() {
    let four = answer(tcp("169.254.169.254"))
    #expect(four.count == 50)
    #expect(Array(four[22..<26]) == [169, 254, 169, 254] && Array(four[26..<30]) == [10, 118, 0, 2])
    // From port 80, RST and ACK, of the byte behind the SYN.
    #expect(Array(four[30..<34]) == [0, 80, 0x9c, 0x40] && four[43] == 0x14 && Array(four[38..<42]) == [0, 0, 0, 2])
    let six = answer(tcp("fd00:ec2::254"))
    #expect(six.count == 70 && six[16] == 6 && six[63] == 0x14)
    #expect(answer(tcp("169.254.169.254", flags: 0x14)).isEmpty)
  }

  @Test func theRestGetsAnError() {
    for count in [8, 9, 20, 600] {
      let payload = [UInt8](repeating: 7, count: count)
      let four = answer(
        TestFrame(packet: TestFrame.v4(Self.own4, "169.254.169.254", payload: payload)).bytes, copied: 256)
      // ICMP 3/13 (RFC 1812 section 5.2.7.1), both checksums right.
      #expect(four[19] == 1 && four[30] == 3 && four[31] == 13)
      #expect(sum(four[10..<30]) == 0xffff && sum(four[30...]) == 0xffff)
      #expect(Int(four[12]) << 8 | Int(four[13]) == four.count - 10)
      let six = answer(TestFrame(packet: TestFrame.v6(Self.own6, "fd00:ec2::254", payload: payload)).bytes, copied: 256)
      #expect(six[16] == 58 && six[50] == 1 && six[51] == 1)
      let inner = six.count - 50
      let pseudo = six[18..<50] + [0, 0, UInt8(inner >> 8), UInt8(inner & 0xff), 0, 0, 0, 58]
      #expect(sum(pseudo + six[50...]) == 0xffff)
    }
  }

  /// No answer to an answer, to many, or to what cannot be read; and never more than there is room for.
  @Test func silence() {
    let icmp: (UInt8) -> [UInt8] = { [$0, 0, 0, 0, 0, 0, 0, 0] + Array(repeating: 0, count: 20) }
    for type: UInt8 in [3, 4, 5, 11, 12] {
      #expect(
        answer(TestFrame(packet: TestFrame.v4(Self.own4, "169.254.1.1", transport: 1, payload: icmp(type))).bytes)
          .isEmpty)
    }
    #expect(
      !answer(TestFrame(packet: TestFrame.v4(Self.own4, "169.254.1.1", transport: 1, payload: icmp(8))).bytes).isEmpty)
    #expect(
      answer(TestFrame(packet: TestFrame.v6(Self.own6, "fe80::1", transport: 58, payload: icmp(1))).bytes).isEmpty)
    for destination in ["224.0.0.1", "255.255.255.255"] {
      #expect(answer(TestFrame(packet: TestFrame.v4(Self.own4, destination)).bytes).isEmpty)
    }
    #expect(answer(TestFrame(packet: TestFrame.v6(Self.own6, "ff02::1")).bytes).isEmpty)
    #expect(answer([]).isEmpty)
    for _ in 0..<200_000 {
      var frame = [UInt8](repeating: 0, count: .random(in: 0...200))
      for index in frame.indices { frame[index] = .random(in: 0...255) }
      if frame.count > 10 { frame[10] = Bool.random() ? 0x45 : 0x60 }
      let reply = answer(frame)
      #expect(reply.count <= Refusal.frameLimit)
      _ = frame.withUnsafeBytes { DestinationGuard(Destinations()).denies($0) }
    }
  }
}
