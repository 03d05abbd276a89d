import DNS
import Testing
import Upstreams

/// Which server is asked what: a query must not be lost, answered by somebody else, or asked for ever.
struct UpstreamQueriesTests {
  private static let second: UInt64 = 1_000_000_000

  private static func message(_ id: UInt16, _ name: String, response: Bool = false) -> DNSMessage {
    var bytes: [UInt8] = [UInt8(id >> 8), UInt8(id & 255), response ? 0x81 : 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    for label in name.split(separator: ".") { bytes += [UInt8(label.utf8.count)] + Array(label.utf8) }
    return DNSMessage(bytes + [0, 0, 1, 0, 1])!
  }

  @Test func answersComeInAnyOrderAndMustFit() {
    var queries = UpstreamQueries(servers: 2)
    for id in [1, 2, 3] as [UInt16] {
      #expect(queries.add(Self.message(id, "n\(id).test"), now: 0) == .ask(server: 0))
    }
    #expect(queries.take(for: 0).map(\.id) == [1, 2, 3] && queries.take(for: 0).isEmpty)
    #expect(queries.answered(Self.message(3, "n3.test", response: true), by: 1) == false)
    #expect(queries.answered(Self.message(3, "n2.test", response: true), by: 0) == false)
    #expect(queries.answered(Self.message(4, "n3.test", response: true), by: 0) == false)
    #expect(queries.answered(Self.message(3, "n3.test"), by: 0) == false)
    #expect(queries.answered(Self.message(3, "N3.Test", response: true), by: 0) == true)
    #expect(queries.answered(Self.message(3, "n3.test", response: true), by: 0) == false)
    #expect(queries.answered(Self.message(1, "n1.test", response: true), by: 0) == true)
    #expect(queries.answered(Self.message(2, "n2.test", response: true), by: 0) && queries.isEmpty)
  }

  /// What was not sent yet is no server's to answer.
  @Test func nothingIsAnsweredThatWasNotAsked() {
    var queries = UpstreamQueries(servers: 1)
    _ = queries.add(Self.message(1, "a.test"), now: 0)
    #expect(queries.answered(Self.message(1, "a.test", response: true), by: 0) == false)
  }

  @Test func aServerMayEndAGoodConnection() {
    var queries = UpstreamQueries(servers: 1)
    _ = queries.add(Self.message(1, "a.test"), now: 0)
    _ = queries.take(for: 0)
    #expect(queries.lost(0, hasAnswered: true, now: 1) == [.ask(server: 0)])
    #expect(queries.take(for: 0).map(\.id) == [1])
    // But not again and again.
    guard case .fail(let response)? = queries.lost(0, hasAnswered: true, now: 2).first else {
      Issue.record("asked for ever")
      return
    }
    #expect(response.id == 1 && response.isResponse && response.code == 2 && queries.isEmpty)
  }

  @Test func theNextServerIsAskedAndTheFirstRests() {
    var queries = UpstreamQueries(servers: 2)
    _ = queries.add(Self.message(1, "a.test"), now: 0)
    #expect(queries.lost(0, hasAnswered: false, now: 0) == [.ask(server: 1)])
    #expect(queries.add(Self.message(2, "b.test"), now: Self.second - 1) == .ask(server: 1))
    #expect(queries.add(Self.message(3, "c.test"), now: Self.second) == .ask(server: 0))
    // Twice as long the next time, and no longer than eight seconds.
    for rest in [2, 4, 8, 8] as [UInt64] {
      _ = queries.lost(0, hasAnswered: false, now: 0)
      #expect(queries.add(Self.message(4, "d.test"), now: rest * Self.second - 1) == .ask(server: 1))
      #expect(queries.add(Self.message(5, "e.test"), now: rest * Self.second) == .ask(server: 0))
    }
  }

  @Test func allThatFailIsAnswered() {
    var queries = UpstreamQueries(servers: 2)
    for id in 1...100 as ClosedRange<UInt16> { _ = queries.add(Self.message(id, "a.test"), now: 0) }
    #expect(queries.lost(0, hasAnswered: false, now: 0).count == 100)
    let failed = queries.lost(1, hasAnswered: false, now: 0)
    #expect(failed.count == 100 && queries.isEmpty)
    #expect(failed.allSatisfy { if case .fail = $0 { true } else { false } })
  }

  @Test func silenceHasAnEnd() {
    var queries = UpstreamQueries(servers: 2)
    _ = queries.add(Self.message(1, "a.test"), now: 0)
    #expect(queries.expired(now: UpstreamQueries.patience - 1).actions.isEmpty)
    let first = queries.expired(now: UpstreamQueries.patience)
    #expect(first.servers == [0] && first.actions == [.ask(server: 1)])
    let second = queries.expired(now: 2 * UpstreamQueries.patience)
    #expect(second.servers == [1] && queries.isEmpty)
  }

  @Test func framesHoweverTheyAreCut() {
    let messages: [[UInt8]] = [[1], [], [UInt8](repeating: 7, count: 65535), [2, 3]]
    let bytes = messages.flatMap { LengthFraming.frame($0) ?? [] }
    #expect(LengthFraming.frame([UInt8](repeating: 0, count: 65536)) == nil)
    for size in [1, 2, 3, 1000, bytes.count] {
      var framing = LengthFraming()
      var found: [[UInt8]] = []
      for start in stride(from: 0, to: bytes.count, by: size) { found += framing.feed(bytes[start...].prefix(size)) }
      #expect(found == messages)
    }
  }
}
