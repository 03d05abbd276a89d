import Inet
import Testing

@testable import DNS

/// What is looked at quickly must be the same as what is looked at in full.
struct FastPathTests {
  /// An answer that is kept has names that counting its TTLs down does not change.
  @Test func namesThatAreReadFromNoTTLStayTheSame() {
    var quick = 0
    var slow = 0
    for _ in 0..<20_000 {
      let query = Made.query("a.test")
      var answers: [Made.Record] = []
      var length = query.bytes.count
      for _ in 0..<Int.random(in: 1...4) {
        func name() -> [UInt8] {
          let target = Bool.random() ? 12 : Int.random(in: 12..<length + 12)
          let pointer = [0xc0 | UInt8(target >> 8), UInt8(target & 0xff)]
          return Bool.random() ? pointer : [1, UInt8.random(in: 97...99)] + (Bool.random() ? pointer : [0])
        }
        let type: UInt16 = [1, 5, 15, 6, 16].randomElement() ?? 1
        let data: [UInt8] =
          switch type {
          case 5: name()
          case 15: [0, 1] + name()
          case 6: name() + name() + [UInt8](repeating: 0, count: 20)
          default: [1, 2, 3, 4]
          }
        let record = Made.Record(
          raw: name(), type, ttl: [60, 0xc00c, 0x0161_0000, 0xc00c_c00c].randomElement() ?? 0, data)
        answers.append(record)
        length += record.bytes.count
      }
      let response = Made.response(to: query, answers)
      guard let records = response.records else { continue }
      let same = response.readsTheSameWithAnyTTL(records)
      if response.readsNoTTL(records) {
        quick += 1
        #expect(same, "\(response.bytes)")
      } else {
        slow += 1
      }
      #expect(response.keepsItsNames(records) == same)
    }
    // Both kinds are met.
    #expect(quick > 1000 && slow > 100)
  }

  /// A response to another question must not be taken for the answer.
  @Test func theSameQuestion() {
    let query = Made.query("a.test")
    #expect(Made.response(to: query, []).hasQuestion(of: query))
    for other in [Made.query("b.test"), Made.query("a.test", 28), Made.query("A.test"), Made.query("aa.test")] {
      let response = Made.response(to: other, [])
      #expect(!response.hasQuestion(of: query))
      #expect(response.hasQuestion(of: query) == (response.question == query.question))
    }
    #expect(Made.response(to: Made.query("A.Test"), []).answers(query))
    #expect(!Made.response(to: Made.query("a.test", 28), []).answers(query))
    var none = Made.response(to: query, [])
    none.bytes[5] = 0
    #expect(!none.hasQuestion(of: query) && !none.answers(query) && !query.answers(none))
    #expect(none.hasQuestion(of: none))
  }

  @Test func randomQuestionsAreComparedAsTheyAreRead() {
    for _ in 0..<50_000 {
      func message() -> DNSMessage? {
        DNSMessage(
          [0, 0, 0, 0, 0, UInt8.random(in: 0...1)] + [0, 0, 0, 0, 0, 0]
            + (0..<Int.random(in: 0...8)).map { _ in
              [0, 1, 2, 97, 65, 0xc0, 12].randomElement() ?? 0
            })
      }
      guard let a = message(), let b = message() else { continue }
      #expect(a.hasQuestion(of: b) == (a.question == b.question), "\(a.bytes) \(b.bytes)")
      #expect(a.endOfQuestion == a.question?.end)
      let same = if let one = a.question, let other = b.question { one.asksTheSame(as: other) } else { false }
      #expect(a.answers(b) == same, "\(a.bytes) \(b.bytes)")
    }
  }

  @Test func aNameBelowAnother() {
    func random() -> DomainName {
      DomainName(
        labels: (0..<Int.random(in: 0...4)).flatMap { _ in
          [[1, 97], [1, 98], [2, 1, 97], [3, 97, 1, 98]].randomElement() ?? []
        }) ?? .root
    }
    for _ in 0..<50_000 {
      let (name, other) = (random(), random())
      #expect(name.isWithin(other) == name.fromRoot.starts(with: other.fromRoot), "\(name) \(other)")
    }
    let name = DomainName(labels: [3, 97, 98, 99, 1, 100, 2, 101, 102])
    #expect(name?.fromRoot == [2, 101, 102, 1, 100, 3, 97, 98, 99])
  }
}
