import Flows
import Inet
import Packets
import Policy
import Testing

/// The judge as a queue asks it, with a clock and names that a test sets.
struct Judging {
  var judge: FlowJudge
  var now: UInt32 = 1000
  var names: [String: [String]] = [:]

  init(
    allow: [String] = [], deny: [String] = [], open: Bool = false, sni: SNISettings.Check = .off, quic: Bool = false,
    queries: FlowJudge.Queries = .nobody, published: [UInt16] = [], publishedDatagrams: [UInt16] = [],
    reportsUse: Bool = false, limit: Int = 1 << 16
  ) throws {
    func rules(_ texts: [String]) throws -> [DestinationRule] {
      try texts.map { (text) throws(DestinationRuleError) in try DestinationRule(text) }
    }
    var settings = SNISettings()
    settings.check = sni
    settings.checksQUIC = quic
    judge = FlowJudge(
      Destinations(EgressRules(isOpen: open, allow: try rules(allow), deny: try rules(deny))), sni: settings,
      queries: queries, published: published, publishedDatagrams: publishedDatagrams,
      reportsUse: reportsUse, limit: limit)
  }

  /// What becomes of a packet of the program, as a word.
  mutating func leaving(_ frame: [UInt8]) -> String { word(verdict(frame)) }

  mutating func verdict(_ frame: [UInt8]) -> FlowVerdict {
    frame.withUnsafeBytes { bytes in
      guard let packet = FlowPacket(bytes, isLeaving: true) else { return .drop }
      return judge.leaving(packet, packet.mark, bytes, now: now) { [names] address in
        (names[address.description] ?? []).compactMap { try? DomainName(text: $0[...]) }
      }
    }
  }

  mutating func entering(_ frame: [UInt8]) {
    frame.withUnsafeBytes { bytes in
      guard let packet = FlowPacket(bytes, isLeaving: false), judge.watch.isWanted(packet) else { return }
      _ = judge.entering(packet, packet.mark, now: now)
    }
  }

  private func word(_ verdict: FlowVerdict) -> String {
    switch verdict {
    case .open, .pass: "passes"
    case .release(let frames): "passes behind \(frames.count)"
    case .drop: "lost"
    case .refuse(let denial): "refused: \(denial)"
    case .end(let denial, _): "ended: \(denial)"
    }
  }
}

/// What the log is told of destinations in use.
@Suite struct FlowUseTests {
  /// Each is named once, by its transport and by the name for which it is allowed; nothing that is denied, and nobody who comes in.
  @Test func eachIsNamedOnce() throws {
    var some = try Judging(
      allow: ["ok.test:8080", "udp://time.test:123", "icmp://10.9.0.0/16", "10.7.0.1"], queries: .anybody,
      published: [80],
      reportsUse: true)
    some.names = ["10.9.0.2": ["no.test", "ok.test"], "10.9.0.4": ["time.test"]]
    for _ in 0..<2 {
      for frame in [
        Frames.tcp("10.9.0.2", 8080, Frames.syn), Frames.tcp("10.9.0.2", 8081, Frames.syn), Frames.udp("10.9.0.4", 123),
        Frames.udp("10.9.0.4", 124), Frames.icmp("10.9.0.2", type: 8), Frames.tcp("10.7.0.1", 5432, Frames.ack),
      ] { _ = some.leaving(frame) }
      some.now += 10_000
    }
    some.entering(Frames.tcp("10.9.0.9", 4000, leaving: false, local: 80, Frames.syn))
    _ = some.leaving(Frames.tcp("10.9.0.9", 4000, local: 80, Frames.answer))
    #expect(
      some.judge.takeUses() == [
        "packets to 10.9.0.2:8080 (TCP, ok.test) allowed: egress.allow has \"ok.test:8080\"",
        "packets to 10.9.0.4:123 (UDP, time.test) allowed: egress.allow has \"udp://time.test:123\"",
        "packets to 10.9.0.2 allowed: egress.allow has \"icmp://10.9.0.0/16\"",
        "packets to 10.7.0.1:5432 (TCP) allowed: egress.allow has \"10.7.0.1\"",
      ])
    #expect(some.judge.takeUses() == [])
  }

  /// What a client asks its server for is what counts, of TLS and of QUIC, and only once it is allowed.
  @Test func theNameThatIsAskedFor() throws {
    var some = try Judging(open: true, sni: .check, quic: true, reportsUse: true)
    some.names = ["10.9.0.2": ["first.test", "ok.test"]]
    let start: UInt32 = 7
    _ = some.leaving(Frames.tcp("10.9.0.2", Frames.syn, sequence: start))
    some.entering(Frames.tcp("10.9.0.2", leaving: false, Frames.answer, sequence: 77, acknowledging: start + 1))
    #expect(some.judge.takeUses() == [])
    #expect(some.leaving(Frames.tcp("10.9.0.2", Frames.ack, sequence: start + 1, Frames.hello("ok.test"))) == "passes")
    var client = InitialClient([1, 2, 3, 4, 5, 6, 7, 8])
    let initial = client.packet(InitialClient.crypto(Frames.hello("ok.test").dropFirst(5)))
    #expect(some.leaving(Frames.udp("10.9.0.2", 443, initial)) == "passes")
    let grounds = "allowed: egress.default is \"allow\""
    #expect(
      some.judge.takeUses() == [
        "packets to 10.9.0.2:443 (TCP, ok.test) \(grounds)", "packets to 10.9.0.2:443 (UDP, ok.test) \(grounds)",
      ])
  }
}

/// Which flows may be open where rules have names.
@Suite struct FlowJudgeTests {
  private static let unnamed = "denied: no rule of egress.allow names it"

  /// Each is the first packet of its flow: of an address that was the answer for a name, of others, by each transport.
  @Test(
    arguments: [
      (Frames.tcp("10.9.0.2", 8080, Frames.syn), "passes"),
      (Frames.tcp("10.9.0.2", 8081, Frames.syn), "refused: 10.9.0.2:8081 (TCP, ok.test) \(unnamed)"),
      (Frames.tcp("fd09::2", 8080, Frames.syn), "passes"),
      (Frames.tcp("10.9.0.3", 8080, Frames.syn), "refused: 10.9.0.3:8080 (TCP) \(unnamed)"),
      (Frames.tcp("10.9.0.3", 8080, Frames.ack), "refused: 10.9.0.3:8080 (TCP) \(unnamed)"),
      (Frames.tcp("10.9.0.3", 8080, Frames.ack, [1, 2]), "refused: 10.9.0.3:8080 (TCP) \(unnamed)"),
      (Frames.tcp("10.9.0.3", 8080, Frames.answer), "refused: 10.9.0.3:8080 (TCP) \(unnamed)"),
      (Frames.tcp("10.9.0.3", 8080, Frames.rst), "lost"),
      (Frames.tcp("10.9.0.2", 8080, Frames.rst), "passes"),
      (Frames.tcp("10.9.0.2", 8080, Frames.rst, [1]), "lost"),
      (Frames.udp("10.9.0.2", 8080), "refused: 10.9.0.2:8080 (UDP, ok.test) \(unnamed)"),
      (Frames.udp("10.9.0.4", 123), "passes"),
      (Frames.udp("10.9.0.4", 124), "refused: 10.9.0.4:124 (UDP, time.test) \(unnamed)"),
      (Frames.udp("10.7.0.1", 500), "passes"),
      (
        Frames.udp("10.7.0.1", 53),
        "refused: 10.7.0.1:53 (UDP) denied: rules by name need queries to go to Tombolo's own name server"
      ),
      (
        Frames.tcp("10.8.0.1", 53, Frames.syn),
        "refused: 10.8.0.1:53 (TCP) denied: rules by name need queries to go to Tombolo's own name server"
      ),
      (Frames.tcp("10.8.0.1", 22, Frames.syn), "passes"),
      (Frames.tcp("10.8.0.9", 22, Frames.syn), "refused: 10.8.0.9:22 (TCP) denied: egress.deny has \"10.8.0.9\""),
      (Frames.icmp("10.6.0.1", type: 8), "passes"),
      (Frames.icmp("fd06::1", type: 128), "passes"),
      (Frames.icmp("10.9.0.2", type: 8), "refused: 10.9.0.2 (ok.test) \(unnamed)"),
      (Frames.icmp("10.9.0.9", type: 0), "lost"),
      (
        Frames.icmp("10.9.0.9", type: 3, [0, 0, 0, 0] + Frames.udp("10.9.0.9", 9, leaving: false).dropFirst(10)), "lost"
      ),
      (Frames.icmp("10.9.0.9", type: 13), "refused: 10.9.0.9 \(unnamed)"),
      (Frames.packet("10.9.0.2", 50, [1, 2, 3, 4, 5, 6, 7, 8]), "refused: 10.9.0.2 (ok.test) \(unnamed)"),
      // TCP in fragments, of which the first has every header, and of which it has not.
      (Frames.tcp("10.9.0.2", 8080, Frames.syn, fragment: 0x2000), "lost"),
      (Frames.packet("10.9.0.2", 6, [1, 2, 3, 4, 5, 6, 7, 8], fragment: 3), "lost"),
      (Frames.packet("10.9.0.2", 17, [1, 2, 3, 4, 5, 6, 7, 8], fragment: 3), "refused: 10.9.0.2 (ok.test) \(unnamed)"),
      (Frames.packet("fd09::2", 44, [6, 0, 0, 40, 0, 0, 0, 1] + [1, 2, 3, 4, 5, 6, 7, 8]), "lost"),
      (
        Frames.packet("169.254.169.254", 6, Array(Frames.tcp("10.9.0.2", 80, Frames.syn).dropFirst(30))),
        "refused: 169.254.169.254:80 (TCP) denied: built-in rule \"metadata\": it is in 169.254.169.254/32, "
          + "metadata of clouds (AWS, Azure, GCP)"
      ),
    ] as [([UInt8], String)]) func firstPackets(_ frame: [UInt8], _ expected: String) throws
  {
    var some = try Judging(
      allow: [
        "ok.test:8080", "udp://time.test:123", "udp://10.7.0.0/16", "10.8.0.0/16", "icmp://10.6.0.0/16",
        "icmp://[fd06::]/16",
      ], deny: ["10.8.0.9"])
    some.names = ["10.9.0.2": ["ok.test"], "fd09::2": ["ok.test"], "10.9.0.4": ["time.test"]]
    let found = some.leaving(frame)
    #expect(found == expected || expected.contains("built-in") && found.hasPrefix(expected.prefix(70)), "\(found)")
  }

  /// An address alone works as long as it is the answer; what is open goes on, and no packet of another flow with it.
  @Test func whatIsOpenGoesOn() throws {
    var some = try Judging(allow: ["ok.test:8080", "udp://ok.test:123"])
    some.names = ["10.9.0.2": ["ok.test"]]
    let data = Frames.tcp("10.9.0.2", 8080, Frames.ack, [1])
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.syn)) == "passes")
    #expect(some.leaving(Frames.udp("10.9.0.2", 123)) == "passes")
    some.names = [:]
    #expect(some.leaving(data) == "passes")
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, local: 40001, Frames.syn)).hasPrefix("refused"))
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, local: 40001, Frames.ack, [1])).hasPrefix("refused"))
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.syn)).hasPrefix("refused"))
    #expect(some.leaving(data) == "passes")
    for _ in 0..<10 {
      some.now += 100
      #expect(some.leaving(Frames.udp("10.9.0.2", 123)) == "passes")
    }
    // What the other end sends keeps it open, too.
    some.now += 100
    some.entering(Frames.udp("10.9.0.2", 123, leaving: false))
    some.now += 100
    #expect(some.leaving(Frames.udp("10.9.0.2", 123)) == "passes")
    some.now += 121
    #expect(some.leaving(Frames.udp("10.9.0.2", 123)).hasPrefix("refused"))
    #expect(some.leaving(data) == "passes")
    some.now += 7441
    #expect(some.leaving(data).hasPrefix("refused"))
  }

  /// Both ends have sent their end: soon nothing more is of that connection. A reset that anybody may have sent ends none that
  /// goes on.
  @Test func endsOfConnections() throws {
    var some = try Judging(allow: ["ok.test:8080"])
    some.names = ["10.9.0.2": ["ok.test"]]
    let data = Frames.tcp("10.9.0.2", 8080, Frames.ack, [1])
    func open(_ some: inout Judging) {
      some.names = ["10.9.0.2": ["ok.test"]]
      #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.syn)) == "passes")
      #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.ack)) == "passes")
      some.names = [:]
    }
    open(&some)
    some.entering(Frames.tcp("10.9.0.2", 8080, leaving: false, Frames.fin))
    some.now += 1000
    #expect(some.leaving(data) == "passes")
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.fin)) == "passes")
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.ack)) == "passes")
    some.now += 241
    #expect(some.leaving(data).hasPrefix("refused"))
    open(&some)
    some.entering(Frames.tcp("10.9.0.2", 8080, leaving: false, Frames.rst))
    some.now += 200
    #expect(some.leaving(data) == "passes")
    some.now += 1000
    #expect(some.leaving(data) == "passes")
    some.entering(Frames.tcp("10.9.0.2", 8080, leaving: false, Frames.rst))
    some.now += 241
    #expect(some.leaving(data).hasPrefix("refused"))
    open(&some)
    #expect(some.leaving(Frames.tcp("10.9.0.2", 8080, Frames.rst)) == "passes")
    #expect(some.leaving(data).hasPrefix("refused"))
  }

  /// Who came in to a published port is answered, whatever the rules say; nobody else is.
  @Test func clientsAreAnswered() throws {
    var some = try Judging(allow: ["ok.test"], published: [80])
    let answer = Frames.tcp("198.51.0.7", 50000, local: 80, Frames.answer)
    #expect(some.leaving(answer).hasPrefix("refused"))
    some.entering(Frames.tcp("198.51.0.7", 50000, leaving: false, local: 80, Frames.syn))
    #expect(some.leaving(answer) == "passes")
    #expect(some.leaving(Frames.tcp("198.51.0.7", 50001, local: 80, Frames.answer)).hasPrefix("refused"))
    some.entering(Frames.tcp("198.51.0.7", 50000, leaving: false, local: 81, Frames.syn))
    #expect(some.leaving(Frames.tcp("198.51.0.7", 50000, local: 81, Frames.answer)).hasPrefix("refused"))
    // After a new start of the proxy any segment of the client's shows it.
    some = try Judging(allow: ["ok.test"], published: [80])
    some.entering(Frames.tcp("198.51.0.7", 50000, leaving: false, local: 80, Frames.ack))
    #expect(some.leaving(Frames.tcp("198.51.0.7", 50000, local: 80, Frames.ack, [1])) == "passes")
    // A ping, and an error about what came.
    some.entering(Frames.icmp("198.51.0.7", leaving: false, type: 8))
    #expect(some.leaving(Frames.icmp("198.51.0.7", type: 0)) == "passes")
    #expect(some.leaving(Frames.icmp("198.51.0.8", type: 0)) == "lost")
    let quoted = Frames.tcp("198.51.0.7", 50000, leaving: false, local: 80, Frames.ack).dropFirst(10)
    #expect(some.leaving(Frames.icmp("198.51.0.7", type: 3, [0, 0, 0, 0] + quoted)) == "passes")
  }

  /// At the host: queries for its own name server alone, and who sent to a published UDP port gets the answer.
  @Test func theHostsSide() throws {
    var some = try Judging(
      allow: ["udp://10.9.0.0/16", "10.9.0.0/16", "ok.test", "169.254.53.53:53", "udp://169.254.53.53:53"],
      queries: .only(.v4(AgreedAddresses.nameServer)), publishedDatagrams: [5000])
    #expect(some.leaving(Frames.udp("169.254.53.53", 53)) == "passes")
    #expect(some.leaving(Frames.tcp("169.254.53.53", 53, Frames.syn)) == "passes")
    #expect(some.leaving(Frames.udp("10.9.0.3", 53)).hasPrefix("refused"))
    #expect(some.leaving(Frames.udp("10.9.0.3", 54)) == "passes")
    let answer = Frames.udp("198.51.0.7", 50000, local: 5000)
    #expect(some.leaving(answer).hasPrefix("refused"))
    some.entering(Frames.udp("198.51.0.7", 50000, leaving: false, local: 5001))
    #expect(some.leaving(Frames.udp("198.51.0.7", 50000, local: 5001)).hasPrefix("refused"))
    some.entering(Frames.udp("198.51.0.7", 50000, leaving: false, local: 5000))
    #expect(some.leaving(answer) == "passes")
    // The owner changes the rules: what is open goes on, nothing new begins.
    some.judge.change(Destinations(EgressRules(isOpen: false)))
    #expect(some.leaving(Frames.udp("10.9.0.3", 54)) == "passes")
    #expect(some.leaving(Frames.udp("10.9.0.3", 55)).hasPrefix("refused"))
  }

  /// However many flows a program opens, there is a bound; the ones that it uses stay.
  @Test func theTableIsBounded() throws {
    var some = try Judging(allow: ["udp://ok.test"], limit: 1000)
    some.names = ["10.9.0.2": ["ok.test"]]
    #expect(some.leaving(Frames.udp("10.9.0.2", 7)) == "passes")
    for index in 0..<10_000 {
      #expect(some.leaving(Frames.udp("10.9.0.2", 100 + index)) == "passes")
      if index % 100 == 0 {
        some.now += 1
        some.names = [:]
        #expect(some.leaving(Frames.udp("10.9.0.2", 7)) == "passes", "\(index)")
        some.names = ["10.9.0.2": ["ok.test"]]
      }
      #expect(some.judge.openFlows <= 1000)
    }
  }

  /// Nothing that a packet can be traps, and both directions of a flow have one mark.
  @Test func packetsOfAnyBytes() {
    var random = SplitMix(seed: 11)
    let models = [
      Frames.tcp("10.9.0.2", Frames.ack, [1, 2, 3]), Frames.udp("fd09::2", 443), Frames.icmp("10.9.0.2", type: 3),
      Frames.packet("fd09::2", 44, [17, 0, 0, 1, 0, 0, 0, 1] + Array(repeating: 1, count: 20)),
    ]
    var some = try? Judging(allow: ["ok.test"], sni: .check, published: [80])
    for round in 0..<200_000 {
      var bytes = models[round % models.count]
      for _ in 0..<Int(random.next() % 6) {
        bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(truncatingIfNeeded: random.next())
      }
      if round % 3 == 0 { bytes = Array(bytes.prefix(Int(random.next() % UInt64(bytes.count + 1)))) }
      _ = some?.leaving(bytes)
      some?.entering(bytes)
    }
    let there = Frames.tcp("10.9.0.2", 443, Frames.ack)
    let back = Frames.tcp("10.9.0.2", 443, leaving: false, Frames.ack)
    func mark(_ frame: [UInt8], _ leaving: Bool) -> UInt64? {
      frame.withUnsafeBytes { FlowPacket($0, isLeaving: leaving)?.mark }
    }
    #expect(mark(there, true) == mark(back, false))
    #expect(mark(there, true) != mark(Frames.tcp("10.9.0.2", 444, Frames.ack), true))
    #expect(mark(there, true) != mark(Frames.udp("10.9.0.2", 443), true))
  }

  /// An error of the program's kernel goes to whom it is about. One to somebody else would carry what it quotes.
  @Test func errorsGoToWhomTheyAreAbout() throws {
    var some = try Judging(allow: ["10.8.0.1:8080"])
    #expect(some.leaving(Frames.tcp("10.8.0.1", 8080, Frames.syn)) == "passes")
    let quoted = Frames.tcp("10.8.0.1", 8080, leaving: false, Frames.ack).dropFirst(Frames.header.count)
    #expect(some.leaving(Frames.icmp("10.8.0.1", type: 3, [0, 0, 0, 0] + quoted)) == "passes")
    #expect(some.leaving(Frames.icmp("10.9.9.9", type: 3, [0, 0, 0, 0] + quoted)) == "lost")
  }

  /// A connection follows another one with the same ports: its hello is looked at as well, and no queue remembers the first.
  @Test func theNextConnectionOfAPortIsLookedAt() throws {
    var some = try Judging(allow: ["ok.test"], sni: .require)
    some.names = ["10.9.0.2": ["ok.test"]]
    func connect(_ initial: UInt32, _ name: String) -> (String, FlowVerdict) {
      _ = some.leaving(Frames.tcp("10.9.0.2", Frames.syn, sequence: initial))
      some.entering(Frames.tcp("10.9.0.2", leaving: false, Frames.answer, acknowledging: initial + 1))
      let hello = Frames.hello(name)
      let first = some.leaving(
        Frames.tcp("10.9.0.2", Frames.ack, sequence: initial + 1, hello))
      some.entering(
        Frames.tcp("10.9.0.2", leaving: false, Frames.ack, acknowledging: initial + 1 + UInt32(hello.count)))
      let next = some.verdict(
        Frames.tcp("10.9.0.2", Frames.ack, sequence: initial + 1 + UInt32(hello.count), [1, 2, 3]))
      return (first, next)
    }
    let (first, next) = connect(100, "ok.test")
    #expect(first == "passes")
    if case .pass = next {} else { Issue.record("what follows must be shown: \(next)") }
    _ = some.leaving(Frames.tcp("10.9.0.2", Frames.rst, sequence: 1000))
    #expect(connect(5000, "other.test").0.hasPrefix("ended"))
  }

  /// A program that is also a server leaves a connection so that only we see it: what the server sends does not open it again.
  @Test func aPublishedPortOpensNoConnectionToOthers() throws {
    var some = try Judging(allow: ["ok.test"], sni: .require, published: [8080])
    some.names = ["10.9.0.2": ["ok.test"]]
    _ = some.leaving(Frames.tcp("10.9.0.2", 443, local: 8080, Frames.syn, sequence: 100))
    _ = some.leaving(Frames.tcp("10.9.0.2", 443, local: 8080, Frames.rst, sequence: 7))
    some.entering(Frames.tcp("10.9.0.2", 443, leaving: false, local: 8080, Frames.answer, acknowledging: 101))
    #expect(
      some.leaving(Frames.tcp("10.9.0.2", 443, local: 8080, Frames.ack, sequence: 101, Frames.hello("other.test")))
        .hasPrefix("refused"))
    // A client that has port 443 is served.
    some.entering(Frames.tcp("10.7.0.1", 443, leaving: false, local: 8080, Frames.syn))
    #expect(some.leaving(Frames.tcp("10.7.0.1", 443, local: 8080, Frames.answer)) == "passes")
  }
}
