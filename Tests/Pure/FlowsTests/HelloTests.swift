import Flows
import Inet
import Packets
import Policy
import TLS
import Testing

/// What a client asks its server for, in packets: what was judged is what the server gets.
@Suite struct HelloTests {
  static let start: UInt32 = 0xffff_fff0
  private static let server = "10.9.0.2"

  /// A connection as far as the server's answer.
  static func connected(_ check: SNISettings.Check, at server: String = server) throws -> Judging {
    var some = try Judging(allow: ["ok.test"], sni: check)
    some.names = [server: ["ok.test"]]
    #expect(some.leaving(Frames.tcp(server, Frames.syn, sequence: start)) == "passes")
    some.entering(Frames.tcp(server, leaving: false, Frames.answer, sequence: 77, acknowledging: start &+ 1))
    #expect(some.leaving(Frames.tcp(server, Frames.ack, sequence: start &+ 1, acknowledging: 78)) == "passes")
    return some
  }

  static func data(_ offset: Int, _ bytes: some Collection<UInt8>, flags: UInt8 = Frames.ack) -> [UInt8] {
    Frames.tcp(
      server, flags, sequence: start &+ 1 &+ UInt32(truncatingIfNeeded: offset), acknowledging: 78, Array(bytes))
  }

  /// Whole, in segments of any length, in records of any length: the last byte of the hello is what decides, and until then
  /// nothing is held, since nobody would acknowledge it.
  @Test(arguments: [1, 2, 7, 100, 5000], [1, 3, 50, 16384])
  func howeverItComes(_ segment: Int, _ record: Int) throws {
    for (name, allowed) in [("ok.test", true), ("other.test", false), ("OK.test.", true)] {
      let hello = Frames.hello(name, record: record)
      var some = try Self.connected(.require)
      for offset in stride(from: 0, to: hello.count, by: segment) {
        let end = min(offset + segment, hello.count)
        let verdict = some.leaving(Self.data(offset, hello[offset..<end]))
        let isLast = end == hello.count
        #expect(
          verdict
            == (allowed || !isLast
              ? "passes"
              : "ended: 10.9.0.2:443 (TCP, other.test) denied: the client asks for other.test: no rule of egress.allow names it"),
          "\(offset) of \(hello.count)")
      }
      let more = some.leaving(Self.data(hello.count, [1, 2, 3]))
      #expect(allowed ? more == "passes" : more.hasPrefix("refused"), "\(more)")
    }
  }

  @Test func whatIsNoHello() throws {
    let hello = Frames.hello("ok.test")
    func first(_ check: SNISettings.Check, _ frames: [UInt8]...) throws -> String {
      var some = try Self.connected(check)
      return frames.map { some.leaving($0) }.last ?? ""
    }
    #expect(try first(.check, Self.data(0, Frames.hello(nil))) == "passes")
    #expect(try first(.require, Self.data(0, Frames.hello(nil))).contains("names no server"))
    #expect(try first(.check, Self.data(0, Array("GET / HTTP/1.0\r\n".utf8))) == "passes")
    #expect(try first(.require, Self.data(0, Array("GET / HTTP/1.0\r\n".utf8))).hasPrefix("ended"))
    #expect(try first(.check, Self.data(0, [22, 9, 9, 0, 1])).contains("a ClientHello that is of no known version"))
    // Out of its place, and again with other bytes.
    #expect(try first(.check, Self.data(1, hello.dropFirst())) == "lost")
    #expect(try first(.check, Self.data(0, hello.prefix(9)), Self.data(0, hello.prefix(9))) == "passes")
    #expect(try first(.check, Self.data(0, hello.prefix(9)), Self.data(4, hello[4..<20])) == "passes")
    #expect(try first(.check, Self.data(0, hello.prefix(9)), Self.data(4, [0, 1, 2])).contains("came again as others"))
    #expect(try first(.check, Self.data(0, hello.prefix(9), flags: 0x30)).contains("urgent"))
    #expect(try first(.check, Self.data(0, hello.prefix(9), flags: Frames.fin)).contains("no whole ClientHello came"))
    // A keep-alive, and an end without a word.
    #expect(try first(.require, Self.data(-1, [0])) == "passes")
    #expect(try first(.require, Self.data(0, [], flags: Frames.fin)) == "passes")
    // Bytes before the server has answered, and in the SYN.
    var some = try Judging(allow: ["ok.test"], sni: .check)
    some.names = [Self.server: ["ok.test"]]
    #expect(some.leaving(Frames.tcp(Self.server, Frames.syn, sequence: 5, hello)) == "lost")
    #expect(some.leaving(Frames.tcp(Self.server, Frames.syn, sequence: 5)) == "passes")
    #expect(some.leaving(Frames.tcp(Self.server, Frames.ack, sequence: 6, hello)) == "lost")
    some.entering(Frames.tcp(Self.server, leaving: false, Frames.answer, acknowledging: 900))
    #expect(some.leaving(Frames.tcp(Self.server, Frames.ack, sequence: 6, hello)) == "lost")
    some.entering(Frames.tcp(Self.server, leaving: false, Frames.answer, acknowledging: 6))
    #expect(some.leaving(Frames.tcp(Self.server, Frames.ack, sequence: 6, hello)) == "passes")
    // Somebody who takes too long; and a connection whose beginning nobody saw.
    var slow = try Self.connected(.check)
    slow.now += 11
    #expect(slow.leaving(Self.data(0, hello)).contains("no whole ClientHello came"))
    #expect(slow.leaving(Self.data(0, hello)).contains("its beginning was not seen"))
    #expect(slow.leaving(Self.data(0, [], flags: Frames.rst)) == "passes")
  }

  /// A client that says nothing more ends by itself, and both ends are told, with numbers that they take. What has been judged
  /// and what the server has not answered yet wait as long as they like.
  @Test func aHelloThatDoesNotCome() throws {
    let hello = Frames.hello("ok.test")
    for part in [[], Array(hello.prefix(30))] {
      var some = try Self.connected(.check)
      if !part.isEmpty { #expect(some.leaving(Self.data(0, part)) == "passes") }
      some.now += 10
      #expect(some.judge.overdue(now: some.now).ended.isEmpty && some.judge.overdue(now: some.now).isWaiting)
      some.now += 1
      let (ended, isWaiting) = some.judge.overdue(now: some.now)
      #expect(ended.count == 1 && !isWaiting && some.judge.openFlows == 0)
      guard let (headers, verdict) = ended.first, case .end(let denial, let sequence) = verdict else { continue }
      #expect("\(denial)" == "10.9.0.2:443 (TCP, ok.test) denied: no whole ClientHello came (egress.sni)")
      #expect(sequence == Self.start &+ 1 &+ UInt32(part.count))
      var answer = [UInt8](repeating: 0, count: Refusal.frameLimit)
      let length = headers.withUnsafeBytes { frame in
        answer.withUnsafeMutableBytes { bytes in
          bytes.baseAddress.map { Refusal.answer(to: frame, copied: frame.count, isOfFlow: true, $0) } ?? 0
        }
      }
      // To the program: the number that it waits for, which it has acknowledged.
      #expect(length == 50 && Array(answer[34..<38]) == Frames.big32(78) && answer[43] == 0x04)
      #expect(some.leaving(Self.data(part.count, hello.dropFirst(part.count))).hasPrefix("refused"))
    }
    var judged = try Self.connected(.check)
    #expect(judged.leaving(Self.data(0, hello)) == "passes")
    judged.now += 100
    #expect(judged.judge.overdue(now: judged.now).ended.isEmpty && judged.judge.openFlows == 1)
    var unanswered = try Judging(allow: ["ok.test"], sni: .check)
    unanswered.names = [Self.server: ["ok.test"]]
    #expect(unanswered.leaving(Frames.tcp(Self.server, Frames.syn, sequence: 5)) == "passes")
    unanswered.now += 30
    #expect(unanswered.judge.overdue(now: unanswered.now).ended.isEmpty)
    unanswered.entering(Frames.tcp(Self.server, leaving: false, Frames.answer, acknowledging: 6))
    #expect(unanswered.leaving(Frames.tcp(Self.server, Frames.ack, sequence: 6, hello)) == "passes")
  }

  /// A hello in records so small that it could never be whole within the limit is refused at the limit, not let through.
  @Test func theLimitIsLookedAt() throws {
    let hello = Frames.hello("other.test", record: 1, padding: 30_000)
    #expect(hello.count > 100_000)
    var some = try Self.connected(.require)
    var verdicts: [String] = []
    for offset in stride(from: 0, to: hello.count, by: 20_000) {
      verdicts.append(some.leaving(Self.data(offset, hello[offset..<min(offset + 20_000, hello.count)])))
    }
    #expect(verdicts.first == "passes" && verdicts.prefix(4).contains { $0.hasPrefix("ended") }, "\(verdicts)")
    #expect(verdicts.last?.hasPrefix("refused") == true)
  }

  /// The other end is reset where it waits, so that it takes the reset (RFC 5961).
  @Test func theOtherEndsNumber() throws {
    var some = try Self.connected(.require)
    let hello = Frames.hello("other.test")
    #expect(some.leaving(Self.data(0, hello.prefix(30))) == "passes")
    guard case .end(_, let sequence) = some.verdict(Self.data(20, hello.dropFirst(20))) else {
      Issue.record("it was not ended")
      return
    }
    #expect(sequence == Self.start &+ 31)
    var answer = [UInt8](repeating: 0, count: Refusal.frameLimit)
    let length = Self.data(20, hello.dropFirst(20)).withUnsafeBytes { frame in
      answer.withUnsafeMutableBytes { bytes in
        bytes.baseAddress.map { Refusal.resetOnward(frame, sequence: sequence, $0) } ?? 0
      }
    }
    let segment = Array(answer[10..<length].dropFirst(20))
    #expect(Array(segment[..<4]) == Frames.big16(40000) + Frames.big16(443))
    #expect(Array(segment[4..<8]) == Frames.big32(sequence) && segment[13] == 0x14)
  }

  /// A client that sends its hello in many bytes each of a record costs a look now and then, not one for each byte.
  @Test func manyConnectionsThatNeverSayAnything() throws {
    var some = try Judging(allow: ["ok.test"], sni: .check)
    some.names = [Self.server: ["ok.test"]]
    for port in 1...1024 {
      #expect(some.leaving(Frames.tcp(Self.server, local: port, Frames.syn)) == "passes")
    }
    #expect(some.leaving(Frames.tcp(Self.server, local: 2000, Frames.syn)) == "lost")
    some.now += 11
    #expect(some.leaving(Frames.tcp(Self.server, local: 2000, Frames.syn)) == "passes")
    #expect(some.judge.openFlows == 1)
  }

  /// A program with a socket that sends any bytes, some of which are lost on the way, in any order, again and again, of two
  /// hellos: the server never has a whole one that is denied. And one that sends the allowed one always gets it there.
  @Test func noOrderOfSegmentsGetsADeniedNameThere() throws {
    let good = Frames.hello("ok.test", padding: 20)
    let evil = Frames.hello("no.test", padding: 20)
    #expect(good.count == evil.count)
    var whole = 0
    for seed in 0..<3000 as Range<UInt64> {
      var random = SplitMix(seed: seed)
      var some = try Self.connected(.require)
      // What the server has got, and how much of it in a row.
      var stream = [UInt8?](repeating: nil, count: good.count + 40)
      var row = 0
      let steps = 60
      for step in 0..<steps {
        let start = Int.random(in: 0..<good.count, using: &random)
        let from = step % 3 == 0 ? row : start
        let end = min(from + Int.random(in: 1...good.count, using: &random), good.count)
        let source = Bool.random(using: &random) || step > steps / 2 ? good : evil
        guard from < end else { continue }
        guard some.leaving(Self.data(from, source[from..<end])) == "passes" else { continue }
        // Half of all is lost; the rest counts where nothing was before (RFC 9293 section 3.10.7.4).
        guard Bool.random(using: &random) else { continue }
        for place in from..<end where stream[place] == nil { stream[place] = source[place] }
        while row < stream.count, stream[row] != nil { row += 1 }
        if Bool.random(using: &random) {
          some.entering(
            Frames.tcp(
              Self.server, leaving: false, Frames.ack, sequence: 78,
              acknowledging: Self.start &+ 1 &+ UInt32(truncatingIfNeeded: row)))
        }
      }
      let got = stream.prefix(row).compactMap { $0 }
      if case .hello(let hello) = got.withUnsafeBytes({ ClientHello.read($0) }) {
        whole += 1
        #expect(hello.serverName?.description == "ok.test", "seed \(seed)")
      }
    }
    #expect(whole > 100)
    for seed in 0..<500 as Range<UInt64> {
      var random = SplitMix(seed: seed)
      var some = try Self.connected(.require)
      var next = 0
      while next < good.count {
        let from = max(0, next - Int.random(in: 0...20, using: &random))
        let end = min(good.count, from + Int.random(in: 1...60, using: &random))
        let verdict = some.leaving(Self.data(from, good[from..<end]))
        #expect(verdict == "passes", "seed \(seed)")
        next = max(next, end)
      }
    }
  }
}
