import DNS
import Inet
import Testing

/// What of a response counts, and what of it the program gets.
struct ReviewTests {
  private func review(
    _ response: DNSMessage, to query: DNSMessage, barred: [String] = [], ech: Bool = false
  ) -> ResponseReview? {
    let all = barred.compactMap { IPAddress($0) }
    return ResponseReview(
      response, to: query.question!, .init(isBarred: { all.contains($0) }, removesHiding: ech, ceiling: 3600))
  }

  private func addresses(_ review: ResponseReview?) -> [String] {
    review?.addresses.map { "\($0.address)" } ?? ["unread"]
  }

  /// Where the alias leads does not matter; it is the name asked for whose address this is.
  @Test func anAliasIntoAForeignZone() {
    let query = Made.query("www.a.test")
    let response = Made.response(
      to: query,
      [
        .init("www.a.test", 5, Made.name("x.cdn.example")), .init("x.cdn.example", 5, Made.name("y.cdn.example")),
        .a("y.cdn.example", "1.2.3.4", ttl: 7), .a("y.cdn.example", "1.2.3.5"),
      ])
    let found = review(response, to: query)
    #expect(addresses(found) == ["1.2.3.4", "1.2.3.5"])
    #expect(found?.addresses.first?.seconds == 7 && found?.lifetime == 7)
    #expect(found?.message == response)
  }

  /// Nothing that was not asked for gets an address.
  @Test func recordsOfOthersDoNotCount() {
    let query = Made.query("a.test")
    let others: [Made.Record] = [
      .a("b.test", "6.6.6.6"), .a("a.test.evil", "6.6.6.7"), .init("b.test", 5, Made.name("a.test")),
    ]
    let response = Made.response(
      to: query, [.a("A.Test", "1.1.1.1")] + others, authority: [.a("a.test", "6.6.6.8")],
      additional: [.a("a.test", "6.6.6.9")])
    #expect(addresses(review(response, to: query)) == ["1.1.1.1"])
    // Another type than the one asked for.
    #expect(addresses(review(Made.response(to: query, [.a("a.test", "fd00::1")]), to: query)) == [])
    let text = Made.query("a.test", 16)
    #expect(addresses(review(Made.response(to: text, [.a("a.test", "6.6.6.6")]), to: text)) == [])
    // A loop of aliases.
    let loop = Made.response(
      to: query, [.init("a.test", 5, Made.name("b.test")), .init("b.test", 5, Made.name("a.test"))])
    #expect(addresses(review(loop, to: query)) == [])
  }

  /// DNS rebinding: the address is gone, the rest is what it was, whatever pointed to it.
  @Test func deniedAddressesAreTakenOut() throws {
    let query = Made.query("a.test")
    // The alias's target stands in the first record only; the others point there (an offset of 12 + 8 + 4 + 12).
    let target = 12 + 8 + 4 + 12
    let pointer: [UInt8] = [0xc0, UInt8(target)]
    let response = Made.response(
      to: query,
      [
        .init(raw: [0xc0, 12], 5, Made.name("b.example")), .init(raw: pointer, 1, [169, 254, 169, 254]),
        .init(raw: pointer, 1, [1, 2, 3, 4]), .init(raw: pointer, 15, [0, 10] + pointer),
        .init(raw: pointer, 1, [127, 0, 0, 1]),
      ], authority: [.init(raw: pointer, 2, [2, 0x6e, 0x73] + pointer)])
    let found = try #require(review(response, to: query, barred: ["169.254.169.254", "127.0.0.1"]))
    #expect(addresses(found) == ["1.2.3.4"])
    #expect(found.barred.map(\.description) == ["169.254.169.254", "127.0.0.1"])
    let records = try #require(found.message.records)
    #expect(records.map(\.type) == [5, 1, 15, 2])
    #expect(records.map(\.name.description) == ["a.test", "b.example", "b.example", "b.example"])
    #expect(found.message.address(records[1]) == IPAddress("1.2.3.4"))
    #expect(Array(found.message.bytes[records[2].data]) == [0, 10] + Made.name("b.example"))
    #expect(Array(found.message.bytes[records[3].data]) == Made.name("ns.b.example"))
    #expect(found.message.count(of: .answer) == 3 && found.message.count(of: .authority) == 1)
    #expect(found.message.question?.domain.description == "a.test" && found.message.id == query.id)
  }

  /// HTTPS records: hints count, denied ones and the keys of ECH go.
  @Test func serviceBindings() throws {
    let query = Made.query("a.test", 65)
    func parameter(_ key: Int, _ value: [UInt8]) -> [UInt8] { Made.number(key) + Made.number(value.count) + value }
    let rest = parameter(1, [2, 0x68, 0x32])
    let data =
      [0, 1, 0] + rest + parameter(4, [1, 2, 3, 4, 127, 0, 0, 1]) + parameter(5, Array(repeating: 7, count: 40))
      + parameter(6, IPAddress("2606:4700::1")!.bytes)
    let response = Made.response(to: query, [.init("a.test", 65, data)])
    let open = try #require(review(response, to: query))
    #expect(open.message == response && addresses(open) == ["1.2.3.4", "127.0.0.1", "2606:4700::1"])
    let found = try #require(review(response, to: query, barred: ["127.0.0.1"], ech: true))
    #expect(addresses(found) == ["1.2.3.4", "2606:4700::1"])
    let record = try #require(found.message.records?.first)
    #expect(
      Array(found.message.bytes[record.data])
        == [0, 1, 0] + rest + parameter(4, [1, 2, 3, 4]) + parameter(6, IPAddress("2606:4700::1")!.bytes))
    // What cannot do without them is not there at all.
    let strict = Made.response(to: query, [.init("a.test", 65, [0, 1, 0] + parameter(0, [0, 5]) + parameter(5, [1]))])
    #expect(try #require(review(strict, to: query, ech: true)).message.count(of: .answer) == 0)
    #expect(review(Made.response(to: query, [.init("a.test", 65, [0, 1, 0, 0, 1, 0, 9])]), to: query) == nil)
  }

  @Test func longTTLsAreLowered() throws {
    let query = Made.query("a.test")
    let found = try #require(review(Made.response(to: query, [.a("a.test", "1.1.1.1", ttl: 4_000_000_000)]), to: query))
    #expect(found.addresses.first?.seconds == 3600 && found.lifetime == 3600)
    #expect(found.message.records?.first?.ttl == 3600)
  }

  /// RFC 2308: as long as the zone says, and not without its SOA.
  @Test func whatDoesNotExistIsKeptToo() {
    let query = Made.query("no.test")
    let soa = Made.Record(
      "test", 6, ttl: 900, Made.name("ns.test") + Made.name("root.test") + Array(repeating: 0, count: 18) + [0, 30])
    #expect(review(Made.response(to: query, [], authority: [soa], code: 3), to: query)?.lifetime == 30)
    #expect(review(Made.response(to: query, [], authority: [soa]), to: query)?.lifetime == 30)
    #expect(review(Made.response(to: query, [], code: 3), to: query)?.lifetime == nil)
    #expect(review(Made.response(to: query, [.a("no.test", "1.1.1.1")], code: 2), to: query)?.lifetime == nil)
    #expect(review(Made.response(to: query, [.a("no.test", "1.1.1.1", ttl: 0)]), to: query)?.lifetime == nil)
  }

  @Test func garbageIsNoResponse() {
    let query = Made.query("a.test")
    let good = Made.response(
      to: query, [.init("a.test", 5, Made.name("b.test")), .a("b.test", "127.0.0.1"), .a("b.test", "1.1.1.1")])
    #expect(review(DNSMessage(good.bytes + [0])!, to: query) == nil)
    for count in 12..<good.bytes.count { #expect(review(DNSMessage(Array(good.bytes[..<count]))!, to: query) == nil) }
    for _ in 0..<100_000 {
      var bytes = good.bytes
      for _ in 0..<Int.random(in: 1...6) { bytes[Int.random(in: 2..<bytes.count)] = UInt8.random(in: 0...255) }
      guard let found = review(DNSMessage(bytes)!, to: query, barred: ["127.0.0.1"]) else { continue }
      #expect(found.message.records != nil)
    }
  }

  // MARK: the cache

  @Test func theCacheCountsDown() throws {
    var cache = ResponseCache(limit: 10)
    let query = Made.query("a.test", id: 1)
    let response = Made.response(to: query, [.a("a.test", "1.1.1.1", ttl: 60)])
    #expect(cache.answer(query, now: 100) == nil)
    cache.store(response, to: query, lifetime: 60, now: 100)
    // Another id, other letters: RFC 1035 section 2.3.3, and who sends them looks for them (0x20).
    let again = Made.query("A.tEST", id: 7)
    let answer = cache.answer(again, now: 120)?.response
    let found = try #require(answer)
    #expect(found.id == 7 && found.question == again.question)
    #expect(found.records?.first?.ttl == 40)
    #expect(cache.answer(again, now: 159)?.response.records?.first?.ttl == 1)
    #expect(cache.answer(again, now: 160) == nil)
    #expect(cache.count == 0 && cache.bytes == 0)
  }

  /// A hostile answer: its second name goes on in the bytes of the first TTL, which would change as it is counted down.
  @Test func aNameInATTLIsNotKept() {
    let query = Made.query("a.test")
    let owner = query.bytes.count
    // Owner (2 bytes), type, class, and then the TTL.
    let ttl: [UInt8] = [0xc0, UInt8(owner + 6)]
    let response = Made.response(
      to: query, [.init(raw: [0xc0, 12], 1, ttl: 0x0001_6100, [1, 2, 3, 4]), .init(raw: ttl, 1, [1, 2, 3, 5])])
    var cache = ResponseCache(limit: 10)
    #expect(response.records != nil)
    cache.store(response, to: query, lifetime: 60, now: 0)
    #expect(cache.count == 0)
  }

  @Test func whatIsAskedInAnotherWayIsAnotherQuestion() {
    var cache = ResponseCache(limit: 10)
    let query = Made.query("a.test")
    cache.store(Made.response(to: query, [.a("a.test", "1.1.1.1")]), to: query, lifetime: 60, now: 0)
    #expect(cache.answer(Made.query("b.test"), now: 1) == nil)
    #expect(cache.answer(Made.query("a.test", 28), now: 1) == nil)
    #expect(cache.answer(Made.query("a.test", option: []), now: 1) == nil)
    // A cookie is one client's own.
    let cookie = Made.query("a.test", option: [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8])
    cache.store(Made.response(to: cookie, [.a("a.test", "1.1.1.1")]), to: cookie, lifetime: 60, now: 0)
    #expect(cache.answer(cookie, now: 1) == nil && cache.count == 1)
    var checking = query
    checking.bytes[3] |= 0x10
    #expect(cache.answer(checking, now: 1) == nil)
  }

  @Test func theCacheIsBounded() {
    var cache = ResponseCache(limit: 100)
    for index in 0..<10_000 {
      let query = Made.query("n\(index).test")
      let text = Made.Record("n\(index).test", 16, Array(repeating: 1, count: index % 3 == 0 ? 40_000 : 10))
      cache.store(Made.response(to: query, [text]), to: query, lifetime: 60, now: 0)
      #expect(cache.count <= 100 && cache.bytes <= 100 * 2048)
    }
    #expect(cache.answer(Made.query("n9998.test", 1), now: 1) != nil)
    for _ in 0..<10_000 {
      let query = Made.query("same.test")
      cache.store(Made.response(to: query, [.a("same.test", "1.1.1.1")]), to: query, lifetime: 60, now: 0)
    }
    #expect(cache.answer(Made.query("same.test"), now: 1) != nil)
    var none = ResponseCache(limit: 0)
    none.store(
      Made.response(to: Made.query("a.test"), [.a("a.test", "1.1.1.1")]), to: Made.query("a.test"), lifetime: 9, now: 0)
    #expect(none.answer(Made.query("a.test"), now: 0) == nil)
  }

  // MARK: names that nobody is asked for

  @Test func localNames() throws {
    let local = LocalNames(
      hosts: [FixedHost(try DomainName(text: "kms.internal"), [IPAddress("10.0.0.5")!, IPAddress("fd00::5")!])])
    func ask(_ text: String, _ type: UInt16 = 1) -> [String]? {
      let query = Made.query(text, type)
      guard let answer = local.answer(query, query.question!) else { return nil }
      #expect(answer.isResponse && answer.id == query.id && answer.question == query.question)
      if answer.code != 0 { return ["code \(answer.code)"] }
      return answer.records?.map { answer.address($0)?.description ?? "\(answer.bytes[$0.data])" }
    }
    #expect(
      ask("kms.internal") == ["10.0.0.5"] && ask("KMS.Internal", 28) == ["fd00::5"] && ask("kms.internal", 16) == [])
    #expect(ask("localhost") == ["127.0.0.1"] && ask("a.b.localhost", 28) == ["::1"] && ask("localhost", 16) == [])
    #expect(ask("x.invalid") == ["code 3"])
    #expect(ask("1.0.0.127.in-addr.arpa", 12) == ["\(Made.name("localhost"))"])
    #expect(ask("5.0.0.10.in-addr.arpa", 12) == ["\(Made.name("kms.internal"))"])
    #expect(ask("6.0.0.10.in-addr.arpa", 12) == nil && ask("example.com") == nil && ask("xlocalhost") == nil)
    let six = "5." + String(repeating: "0.", count: 27) + "0.0.d.f.ip6.arpa"
    #expect(try DomainName(text: six).reverseAddress == IPAddress("fd00::5"))
    #expect(ask(six, 12) == ["\(Made.name("kms.internal"))"])
  }
}
