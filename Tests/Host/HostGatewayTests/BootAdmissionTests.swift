import Testing
import Wire

@testable import HostGateway

/// Who is believed to be the enclave. Time is a number here.
struct BootAdmissionTests {
  private static func token(_ byte: UInt8) -> Token { Token(repeatElement(byte, count: Token.length)) ?? .none }
  private static func report(_ boot: UInt64, _ secret: UInt8) -> StartReport {
    StartReport(
      boot: BootID(high: 0, low: boot), proxyToken: token(secret &+ 1), hostToken: token(secret &+ 2),
      configurationDigest: Array(repeating: 0, count: StartReport.digestLength), version: "1")
  }
  private let second: UInt64 = 1_000_000_000

  /// A program inside that says it is PID 1, of this boot or of another one, gets nothing while PID 1's session lives.
  @Test func oneSessionAtATime() {
    var admission = BootAdmission()
    #expect(admission.open(Self.report(1, 10), token: Self.token(10), from: 0, now: 0) == .admitted(isNew: true))
    for (report, token) in [
      (Self.report(1, 10), Self.token(10)), (Self.report(1, 10), Self.token(11)), (Self.report(2, 20), Self.token(20)),
    ] {
      guard case .refused = admission.open(report, token: token, from: 0, now: 100 * second) else {
        Issue.record("admitted")
        continue
      }
    }
    // Another machine's enclave is another peer.
    #expect(admission.open(Self.report(3, 30), token: Self.token(30), from: 7, now: 0) == .admitted(isNew: true))
  }

  /// Each kind of stream needs its own secret: the proxy, which parses what the host sends, cannot write the log.
  @Test func eachChannelNeedsItsOwnToken() {
    var admission = BootAdmission()
    _ = admission.open(Self.report(1, 10), token: Self.token(10), from: 0, now: 0)
    let proven: [(Channel, UInt8)] = [(.logs, 10), (.control, 10), (.connect, 11), (.resolve, 11), (.packets, 11)]
    for (channel, right) in proven {
      for secret in [0, 10, 11, 12, 13] as [UInt8] {
        let boot = admission.boot(of: Hello(channel, token: Self.token(secret)), from: 0)
        #expect((boot != nil) == (secret == right), "\(channel) \(secret)")
      }
      #expect(admission.boot(of: Hello(channel, token: Self.token(right)), from: 1) == nil)
    }
    #expect(admission.hostToken(0) == Self.token(12) && admission.hostToken(1) == nil)
    // Between two sessions of the boot its streams are still its own.
    admission.closed(0, now: 0)
    #expect(admission.boot(of: Hello(.logs, token: Self.token(10)), from: 0) == BootID(high: 0, low: 1))
  }

  /// After the loss of a session PID 1 comes back first, and somebody else is put off until it could have.
  @Test func theKnownBootComesBackFirst() {
    var admission = BootAdmission()
    _ = admission.open(Self.report(1, 10), token: Self.token(10), from: 0, now: 0)
    admission.closed(0, now: second)
    #expect(admission.open(Self.report(2, 20), token: Self.token(20), from: 0, now: 2 * second) == .later)
    guard case .refused = admission.open(Self.report(1, 20), token: Self.token(20), from: 0, now: 2 * second) else {
      Issue.record("a boot's name is not its secret")
      return
    }
    // One of the three secrets does not change the others.
    guard case .refused = admission.open(Self.report(1, 20), token: Self.token(10), from: 0, now: 2 * second) else {
      Issue.record("the proxy's secret was changed")
      return
    }
    #expect(
      admission.open(Self.report(1, 10), token: Self.token(10), from: 0, now: 2 * second) == .admitted(isNew: false))
    // An enclave that was killed does not come back: the next one is let in.
    admission.closed(0, now: 3 * second)
    #expect(
      admission.open(Self.report(2, 20), token: Self.token(20), from: 0, now: 7 * second) == .admitted(isNew: true))
    #expect(admission.boot(of: Hello(.logs, token: Self.token(10)), from: 0) == nil)
    // One that has ended in order leaves its place at once, and its last log lines are still taken.
    admission.ended(0)
    admission.closed(0, now: 8 * second)
    #expect(admission.boot(of: Hello(.logs, token: Self.token(20)), from: 0) != nil)
    #expect(
      admission.open(Self.report(3, 30), token: Self.token(30), from: 0, now: 8 * second) == .admitted(isNew: true))
  }

  /// A restarted daemon knows the enclaves that run, and nobody is faster than their PID 1.
  @Test func aRestartOfTheHostSide() throws {
    var before = BootAdmission()
    _ = before.open(Self.report(1, 10), token: Self.token(10), from: 0, now: 0)
    _ = before.open(Self.report(2, 20), token: Self.token(20), from: 16, now: 0)
    before.ended(16)
    let text = BootAdmission.encode(before.known)
    let saved = try #require(BootAdmission.decode(text))
    #expect(saved.map(\.peer) == [0] && saved.map(\.known) == [before.known[0].known])
    var after = BootAdmission(saved: saved, now: 0)
    #expect(after.boot(of: Hello(.connect, token: Self.token(11)), from: 0) != nil)
    #expect(after.open(Self.report(9, 90), token: Self.token(90), from: 0, now: second) == .later)
    #expect(after.open(Self.report(1, 10), token: Self.token(10), from: 0, now: second) == .admitted(isNew: false))
    #expect(after.open(Self.report(8, 80), token: Self.token(80), from: 16, now: 0) == .admitted(isNew: true))
    var late = BootAdmission(saved: saved, now: 0)
    #expect(late.open(Self.report(9, 90), token: Self.token(90), from: 0, now: 2 * second) == .admitted(isNew: true))
  }

  /// What is kept is read back whole or not at all.
  @Test func whatIsKeptOnDisk() {
    var admission = BootAdmission()
    _ = admission.open(Self.report(1, 10), token: Self.token(10), from: 3, now: 0)
    let text = BootAdmission.encode(admission.known)
    #expect(BootAdmission.decode("") == nil && BootAdmission.decode("tombolo boots 1\n")?.isEmpty == true)
    for count in 0..<text.utf8.count {
      let cut = String(decoding: Array(text.utf8.prefix(count)), as: UTF8.self)
      #expect(BootAdmission.decode(cut).map { $0.isEmpty } ?? true, "\(count)")
    }
    for _ in 0..<20_000 {
      var bytes = Array(text.utf8)
      for _ in 0..<Int.random(in: 1...4) { bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...127) }
      _ = BootAdmission.decode(String(decoding: bytes, as: UTF8.self))
    }
  }

  /// Enclaves come and go for years, each with another CID: only those that may come back take a place.
  @Test func manyEnclaves() {
    var admission = BootAdmission()
    let limit = PeerKey(BootAdmission.limit)
    for peer in 0..<limit {
      #expect(
        admission.open(Self.report(1, 10), token: Self.token(10), from: peer, now: 0) == .admitted(isNew: true))
    }
    #expect(admission.open(Self.report(2, 20), token: Self.token(20), from: limit, now: 0) == .full)
    admission.closed(7, now: 0)
    admission.closed(8, now: 0)
    admission.ended(8)
    // The one that was lost may come back, the one that has ended will not.
    #expect(
      admission.open(Self.report(2, 20), token: Self.token(20), from: limit, now: second) == .admitted(isNew: true))
    #expect(admission.remembers(7) && !admission.remembers(8))
    #expect(admission.open(Self.report(3, 30), token: Self.token(30), from: limit + 1, now: second) == .full)
    #expect(
      admission.open(Self.report(3, 30), token: Self.token(30), from: limit + 1, now: 3 * second)
        == .admitted(isNew: true))
    #expect(!admission.remembers(7))
  }
}
