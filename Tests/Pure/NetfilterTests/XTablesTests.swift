import Inet
import Testing

@testable import Netfilter

/// Legacy tables as bytes: somebody else's rules must survive, ours must come and go, and no block of bytes may trap.
@Suite struct XTablesTests {
  /// A table as the kernel hands it out: policies, a rule before one, two user chains of which one jumps to the other.
  struct Sample {
    var info: XTablesTable.Info
    var blob: [UInt8]

    init(_ kind: Ruleset.Kind, _ family: Ruleset.Family) throws {
      let layout = XTablesLayout.of(family)
      let hooks: [Ruleset.Hook] =
        kind == .nat ? [.prerouting, .input, .output, .postrouting] : [.input, .forward, .output]
      var entries: [XTablesEntry] = []
      var starts: [Ruleset.Hook: Int] = [:]
      var policies: [Ruleset.Hook: Int] = [:]
      func add(_ target: XTablesEntry.Target) { entries.append(XTablesEntry(id: entries.count, target, layout)) }
      for hook in hooks {
        starts[hook] = entries.count
        if hook == .output {
          add(.entry(entries.count + 1))
          add(.entry(hooks.count + 3))
        }
        policies[hook] = entries.count
        add(.verdict(XTablesLayout.accept))
      }
      add(.error("tomboloX"))
      add(.entry(entries.count + 3))
      add(.verdict(XTablesLayout.return))
      add(.error("OTHER"))
      entries.append(
        XTablesRules.entry(
          .init([.transport(.tcp), .destinationPort(1)], .reject(.tcpReset)), family, id: entries.count))
      add(.verdict(XTablesLayout.return))
      add(.error("ERROR"))
      var offsets: [Int] = []
      var next = 0
      for entry in entries {
        offsets.append(next)
        next += entry.bytes.count
      }
      blob = entries.flatMap { entry in
        if case .entry(let id) = entry.target { entry.bytes(goingOnAt: offsets[id], layout) } else { entry.bytes }
      }
      var bytes = [UInt8].zeros(XTablesTable.Info.size)
      bytes.put(hooks.reduce(UInt32(0)) { $0 | 1 << $1.number }, at: 32)
      for hook in hooks {
        bytes.put(UInt32(offsets[starts[hook] ?? 0]), at: 36 + 4 * Int(hook.number))
        bytes.put(UInt32(offsets[policies[hook] ?? 0]), at: 56 + 4 * Int(hook.number))
      }
      bytes.put(UInt32(entries.count), at: 76)
      bytes.put(UInt32(blob.count), at: 80)
      info = try #require(XTablesTable.Info(bytes))
    }
  }

  private static let proxy = Ruleset.transparentProxy(tcpPort: 12345, dnsPort: 5300)
  private static let tables: [(Ruleset.Kind, Ruleset.Family)] = [
    (.nat, .ip), (.filter, .ip), (.nat, .ip6), (.filter, .ip6),
  ]

  /// What was read is written back byte for byte.
  @Test(arguments: tables) func roundTrip(_ kind: Ruleset.Kind, _ family: Ruleset.Family) throws {
    let sample = try Sample(kind, family)
    let table = try XTablesTable(kind, family, sample.info, entries: sample.blob)
    let replacement = table.replacement()
    #expect(Array(replacement.bytes[XTablesTable.Replacement.headerSize...]) == sample.blob)
    #expect(replacement.origins == Array(0..<Int(sample.info.entryCount)))
    #expect(replacement.bytes.text(in: 0..<32) == kind.rawValue)
    let numbers = stride(from: 32, to: 88, by: 4).compactMap { replacement.bytes.number(at: $0, as: UInt32.self) }
    #expect(
      numbers == [sample.info.validHooks, sample.info.entryCount, sample.info.entriesSize] + sample.info.hookEntries
        + sample.info.underflows + [sample.info.entryCount])
  }

  /// Applied twice is applied once; removed is as before; what we wrote can be read.
  @Test(arguments: tables) func applyAndRemove(_ kind: Ruleset.Kind, _ family: Ruleset.Family) throws {
    let sample = try Sample(kind, family)
    let before = try XTablesTable(kind, family, sample.info, entries: sample.blob)
    var table = before
    try table.apply(Self.proxy)
    let once = table.replacement()
    #expect(once.bytes.count > before.replacement().bytes.count)
    #expect(once.origins.compactMap { $0 } == Array(0..<Int(sample.info.entryCount)))
    // As a kernel would hand it out again.
    let read = try reread(once, kind, family)
    #expect(Array(read.replacement().bytes[96...]) == Array(once.bytes[96...]))
    var again = read
    try again.apply(Self.proxy)
    #expect(Array(again.replacement().bytes[96...]) == Array(once.bytes[96...]))
    again = read
    again.remove(rulesetNamed: "tombolo")
    #expect(Array(again.replacement().bytes[96...]) == sample.blob)
    let order = again.replacement().origins.compactMap { $0 }
    #expect(order == order.sorted())
  }

  /// Chains of one hook run in the order of their priorities.
  @Test func priorities() throws {
    let sample = try Sample(.filter, .ip)
    var table = try XTablesTable(.filter, .ip, sample.info, entries: sample.blob)
    let chains = [("late", 10), ("early", -10), ("middle", 0)].map { name, priority in
      Ruleset.Chain(name, .filter, .output, priority: Int32(priority), [])
    }
    try table.apply(Ruleset(name: "r", tables: [.init(.ip, chains)]))
    let output = try #require(table.chains.first { $0.name == .hook(.output) })
    let names = output.entries.compactMap { entry in
      table.chains.first { $0.entries.first.map { entry.target == .entry($0.id) } == true }?.userName
    }
    #expect(names.prefix(3) == ["r_early", "r_middle", "r_late"])
  }

  /// Each kind of match and target with the iptables(8) command that asks for the same; the entry without its first part
  /// of addresses and names where that is empty.
  @Test func goldenBytes() throws {
    let four = try #require(IPAddress("10.0.0.2"))
    let six = try #require(IPAddress("2001:db8::2"))
    let odd = try #require(IPPrefix("10.64.0.0/11"))
    let none = String(repeating: "0", count: 2 * 80)
    let end = String(repeating: "0", count: 2 * 20)
    let name29 = { (name: String) in
      name.utf8.map { String($0, radix: 16) }.joined() + String(repeating: "00", count: 29 - name.utf8.count)
    }
    let cases: [(Ruleset.Family, Ruleset.Rule, String)] = [
      // -p tcp -j REDIRECT --to-ports 12345
      (
        .ip, .init([.transport(.tcp)], .redirect(12345)),
        none + "06000000" + "00000000" + "7000a800" + end
          + "3800" + name29("REDIRECT") + "00" + "01000000" + "02000000" + "00000000" + "00000000" + "30393039"
          + "00000000"
      ),
      // -p udp --dport 53 -j ACCEPT
      (
        .ip, .init([.transport(.udp), .destinationPort(53)], .accept),
        none + "11000000" + "00000000" + "a000c800" + end
          + "3000" + name29("udp") + "00" + "0000ffff" + "35003500" + "0000000000000000"
          + "2800" + name29("") + "00" + "feffffff" + "00000000"
      ),
      // ! -s 10.64.0.0/11 -i eth0 -j DROP
      (
        .ip, .init([.source(odd, negated: true), .input("eth0")], .drop),
        "0a400000" + "00000000" + "ffe00000" + "00000000" + "65746830" + String(repeating: "00", count: 28)
          + "ffffffffff" + String(repeating: "00", count: 27) + "00000008" + "00000000" + "70009800" + end
          + "2800" + name29("") + "00" + "ffffffff" + "00000000"
      ),
      // -j DNAT --to-destination 10.0.0.2
      (
        .ip, .init([], .dnat(four, port: nil)),
        none + "00000000" + "00000000" + "7000a800" + end
          + "3800" + name29("DNAT") + "00" + "01000000" + "01000000" + "0a000002" + "0a000002" + "00000000" + "00000000"
      ),
      // -j REJECT --reject-with icmp-admin-prohibited
      (
        .ip, .init([], .reject(.adminProhibited)),
        none + "00000000" + "00000000" + "70009800" + end + "2800" + name29("REJECT") + "00" + "08000000" + "00000000"
      ),
      // ip6tables -p tcp -j DNAT --to-destination [2001:db8::2]:8443
      (
        .ip6, .init([.transport(.tcp)], .dnat(six, port: 8443)),
        String(repeating: "00", count: 128) + "0600" + "00" + "01" + "00" + "000000" + "00000000" + "a800f000"
          + String(repeating: "00", count: 24) + "4800" + name29("DNAT") + "01" + "03000000"
          + "20010db8000000000000000000000002" + "20010db8000000000000000000000002" + "20fb20fb"
      ),
      // -j NFQUEUE --queue-balance 2:5 --queue-bypass
      (
        .ip, .init([], .queue(2...5, .bypass)),
        none + "00000000" + "00000000" + "70009800" + end
          + "2800" + name29("NFQUEUE") + "03" + "0200" + "0400" + "0100" + "0000"
      ),
    ]
    for (family, rule, wanted) in cases {
      let bytes = XTablesRules.entry(rule, family, id: 0).bytes
      #expect(bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == wanted, "\(rule)")
    }
  }

  /// What is asked for when a kernel refuses, so that the operator reads what it lacks.
  @Test func neededExtensions() {
    let needed = Ruleset.Family.allCases.flatMap { family in
      [Ruleset.Kind.nat, .filter].map { XTablesExtension.needed(by: Self.proxy, $0, family).map(\.description) }
    }
    let nat = ["match udp revision 0", "target REDIRECT revision 0", "match tcp revision 0"]
    #expect(needed == [nat, ["target REJECT revision 0"], nat, ["target REJECT revision 0"]])
  }

  /// Cut off, changed and made-up blocks: an error or a table that can be edited and laid out, never a trap.
  @Test(arguments: tables) func randomBlobs(_ kind: Ruleset.Kind, _ family: Ruleset.Family) throws {
    let sample = try Sample(kind, family)
    var understood = 0
    for round in 0..<4000 {
      var blob = sample.blob
      var info = sample.info
      for _ in 0...round % 4 {
        let place = Int.random(in: 0..<blob.count)
        // Now and then where it hurts: offsets, sizes, verdicts.
        let layout = XTablesLayout.of(family)
        let hurting =
          [layout.targetOffset, layout.nextOffset, layout.entrySize, layout.entrySize + 32].randomElement() ?? 0
        blob[round % 2 == 0 ? place : hurting] = UInt8.random(in: 0...255)
      }
      if round % 3 == 0 { blob.removeLast(Int.random(in: 0..<blob.count)) }
      if round % 5 == 0 { info.hookEntries[Int.random(in: 0..<5)] = UInt32.random(in: 0...UInt32(blob.count)) }
      if round % 7 == 0 { info.underflows[Int.random(in: 0..<5)] = UInt32.random(in: 0...UInt32(blob.count)) }
      if round % 11 == 0 { info.validHooks = UInt32.random(in: 0...UInt32.max) }
      if round % 13 == 0 { blob = (0..<Int.random(in: 0...400)).map { _ in UInt8.random(in: 0...255) } }
      guard var table = try? XTablesTable(kind, family, info, entries: blob) else { continue }
      understood += 1
      #expect(Array(table.replacement().bytes[96...]) == blob)
      try? table.apply(Self.proxy)
      _ = table.replacement()
      table.remove(rulesetNamed: "tombolo")
      _ = table.replacement()
    }
    #expect(understood > 100)
    #expect(XTablesTable.Info([]) == nil)
    #expect(XTablesTable.Info(.zeros(83)) == nil)
  }

  private func reread(
    _ replacement: XTablesTable.Replacement, _ kind: Ruleset.Kind, _ family: Ruleset.Family
  ) throws -> XTablesTable {
    // struct ipt_replace and ipt_getinfo hold the same numbers in another order.
    let header = replacement.bytes
    var bytes = [UInt8].zeros(XTablesTable.Info.size)
    bytes.put(header[32..<36], at: 32)
    bytes.put(header[44..<84], at: 36)
    bytes.put(header[36..<44], at: 76)
    let info = try #require(XTablesTable.Info(bytes))
    return try XTablesTable(kind, family, info, entries: Array(header[XTablesTable.Replacement.headerSize...]))
  }
}
