import Foundation
import Inet
import Testing

/// An address that is taken for an ordinary one opens the parent's credentials; an ordinary one taken for a special one is
/// a server that nobody can reach.
struct SpecialAddressTests {
  /// The quick answer by comparisons, and the table's: the union of what the narrowest range of the registries and the
  /// clouds' own say.
  private func byTable(_ address: IPAddress) -> AddressSets {
    let cloud = SpecialRange.all.filter { $0.sets == .metadata && $0.prefix.contains(address) }
    let registry = SpecialRange.all.filter { $0.sets != .metadata && $0.prefix.contains(address) }
      .max { $0.prefix.length < $1.prefix.length }
    return (registry?.sets ?? []).union(cloud.isEmpty ? [] : .metadata)
  }

  private func plus(_ address: IPAddress, _ step: Int) -> IPAddress {
    switch address {
    case .v4(let four): return .v4(IPv4Address(rawValue: four.rawValue &+ UInt32(truncatingIfNeeded: step)))
    case .v6(let six):
      let (low, carried) = six.low.addingReportingOverflow(UInt64(bitPattern: Int64(step)))
      let high = step < 0 ? (carried ? six.high : six.high &- 1) : (carried ? six.high &+ 1 : six.high)
      return .v6(IPv6Address(high: high, low: low))
    }
  }

  private func last(_ prefix: IPPrefix) -> IPAddress {
    var bytes = prefix.address.bytes
    for bit in Int(prefix.length)..<bytes.count * 8 { bytes[bit / 8] |= 0x80 >> UInt8(bit % 8) }
    return IPAddress(bytes: bytes) ?? prefix.address
  }

  private func check(_ address: IPAddress) {
    // A socket's mapped address is the IPv4 one; on the wire it is reserved.
    guard address == address.unmapped else { return }
    #expect(address.sets == byTable(address), "\(address)")
  }

  @Test func theTableAndTheQuickAnswerAgree() {
    for range in SpecialRange.all {
      #expect(range.prefix.address == range.prefix.network, "\(range.prefix)")
      #expect(!range.name.isEmpty && !range.source.isEmpty)
      let end = last(range.prefix)
      for address in [range.prefix.address, plus(range.prefix.address, -1), end, plus(end, 1)] { check(address) }
    }
    for byte in UInt32(0)...255 {
      for rest: UInt32 in [0, 1, 0xff, 0x12_3456, 0xa8_0101, 0xff_ffff] {
        check(.v4(IPv4Address(rawValue: byte << 24 | rest)))
      }
      for rest: UInt64 in [0, 1, 0xff_ffff_ffff_ffff] {
        check(.v6(IPv6Address(high: UInt64(byte) << 56 | rest, low: rest)))
      }
    }
    for _ in 0..<20_000 {
      check(.v4(IPv4Address(rawValue: .random(in: 0...UInt32.max))))
      let range = SpecialRange.all.randomElement() ?? SpecialRange.all[0]
      var bytes = range.prefix.address.bytes
      for bit in Int(range.prefix.length)..<bytes.count * 8 where Bool.random() {
        bytes[bit / 8] |= 0x80 >> UInt8(bit % 8)
      }
      IPAddress(bytes: bytes).map(check)
    }
  }

  @Test(
    arguments: [
      ("169.254.169.254", [.linkLocal, .metadata]), ("169.254.169.253", .linkLocal), ("169.254.53.53", .linkLocal),
      ("169.254.170.2", [.linkLocal, .metadata]), ("169.254.170.23", [.linkLocal, .metadata]),
      ("100.100.100.200", [.private, .metadata]), ("100.100.100.201", .private), ("168.63.129.16", .metadata),
      ("168.63.129.17", []), ("192.0.0.192", [.reserved, .metadata]), ("fd00:ec2::254", [.private, .metadata]),
      ("fd00:ec2::23", [.private, .metadata]), ("fd20:ce::254", [.private, .metadata]), ("fd20:ce::253", .private),
      ("fd00:c1::a9fe:a9fe", [.private, .metadata]), ("fd00:a9fe:a9fe::1", [.private, .metadata]),
      ("fd00:42::42", [.private, .metadata]), ("fd00:100::100:200", [.private, .metadata]),
      ("fe80::a9fe:a9fe", [.linkLocal, .metadata]), ("::ffff:169.254.169.254", [.linkLocal, .metadata]),
      ("8.8.8.8", []), ("2606:4700::1111", []), ("10.9.0.2", .private), ("fd09::2", .private), ("0.0.0.0", .reserved),
      ("::", .reserved), ("::1", .loopback), ("255.255.255.255", .reserved), ("64:ff9b::808:808", []),
      ("2002:808:808::1", []), ("4000::1", .reserved), ("2001:20::1", .reserved), ("5f00::1", .reserved),
    ] as [(String, AddressSets)])
  func known(_ text: String, _ expected: AddressSets) { #expect(IPAddress(text)?.sets == expected) }

  @Test(
    arguments: [
      ("::ffff:169.254.169.254", ["169.254.169.254"]), ("::169.254.169.254", ["169.254.169.254"]),
      ("::ffff:0:169.254.169.254", ["169.254.169.254"]), ("64:ff9b::169.254.169.254", ["169.254.169.254"]),
      // RFC 6052 section 2.4 has these forms of 192.0.2.33, here below the prefix for local use.
      ("64:ff9b:1:c000:2:2100::", ["192.0.2.33"]), ("64:ff9b:1:1c0:0:221::", ["192.0.2.33"]),
      ("64:ff9b:1:122:c0:2:2100:0", ["192.0.2.33"]), ("64:ff9b:1::192.0.2.33", ["192.0.2.33"]),
      ("2002:a9fe:a9fe::1", ["169.254.169.254"]),
      // RFC 4380 section 4: server 65.54.227.120, client 192.0.2.45.
      ("2001:0:4136:e378:8000:63bf:3fff:fdd2", ["65.54.227.120", "192.0.2.45"]),
      ("2001:db8::5efe:10.0.0.1", ["10.0.0.1"]), ("fe80::200:5efe:8.8.8.8", ["8.8.8.8"]),
      ("2002:808:808::5efe:127.0.0.1", ["8.8.8.8", "127.0.0.1"]),
      ("2001:db8::1", []), ("::", []), ("::1", []), ("fd00::a9fe:a9fe", []), ("64:ff9c::1.2.3.4", []),
    ] as [(String, [String])])
  func embedded(_ text: String, _ expected: [String]) {
    let found = IPv6Address(text)?.embedded.map(\.description)
    #expect(found == expected, "\(text)")
  }

  /// Whatever is embedded is found by the quick question, too.
  @Test func theQuickQuestionMissesNoForm() {
    for _ in 0..<20_000 {
      let highs: [UInt64] = [
        0, 0x64_ff9b << 32, 0x64_ff9b_0001 << 16, 0x2001_0000 << 32, 0x2002 << 48, .random(in: 0...UInt64.max),
      ]
      let high = (highs.randomElement() ?? 0) | (Bool.random() ? .random(in: 0...0xffff_ffff) : 0)
      let low: UInt64 = Bool.random() ? .random(in: 0...UInt64.max) : 0x5efe << 32 | .random(in: 0...0xffff_ffff)
      let six = IPv6Address(high: high, low: low)
      if !six.embedded.isEmpty { #expect(IPv6Address.mayEmbed(high, low), "\(six)") }
    }
  }

  /// Python's ipaddress knows the registries too, in an older edition; where that and this table are meant to differ, the
  /// address is left out.
  @Test func pythonSaysTheSame() throws {
    let apart = [
      "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "2001::/23", "2002::/16", "3fff::/20",
    ].compactMap { IPPrefix($0) }
    var addresses: [IPAddress] = []
    for range in SpecialRange.all {
      let end = last(range.prefix)
      addresses += [range.prefix.address, plus(range.prefix.address, -1), end, plus(end, 1)]
    }
    for _ in 0..<5000 {
      addresses.append(.v4(IPv4Address(rawValue: .random(in: 0...UInt32.max))))
      addresses.append(.v6(IPv6Address(high: .random(in: 0...UInt64.max), low: .random(in: 0...UInt64.max))))
    }
    addresses = addresses.filter { address in
      address == address.unmapped && !apart.contains { $0.contains(address) }
    }
    let script = """
      import ipaddress, sys
      for line in sys.stdin:
          a = ipaddress.ip_address(line.strip())
          print(int(a.is_multicast), int(a.is_loopback), int(a.is_link_local), int(a.is_private or a.is_reserved or a.is_multicast or getattr(a, "is_site_local", False)))
      """
    let output = try python(script, addresses.map { "\($0)\n" }.joined())
    let lines = output.split(separator: "\n")
    try #require(lines.count == addresses.count)
    for (address, line) in zip(addresses, lines) {
      let sets = address.sets
      // Python takes NAT64's prefix for reserved, as a part of ::/8.
      let isSpecial = !sets.isEmpty || IPPrefix("64:ff9b::/96")?.contains(address) == true
      let mine = [sets.contains(.multicast), sets.contains(.loopback), sets.contains(.linkLocal), isSpecial]
      let words = mine.map { $0 ? "1" : "0" }.joined(separator: " ")
      #expect(words == line, "\(address)")
    }
  }

  private func python(_ script: String, _ input: String) throws -> String {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("tombolo-addresses-\(UUID().uuidString)")
    try input.write(to: path, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(at: path) }
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["python3", "-c", script]
    process.standardInput = try FileHandle(forReadingFrom: path)
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self)
  }

  @Test func namesOfSets() {
    for name in ["private", "link-local", "loopback", "multicast", "metadata", "host", "reserved"] {
      #expect(AddressSets(name: name)?.name == name)
    }
    #expect(AddressSets(name: "Metadata") == nil)
  }
}
