import DNS
import Inet
import NameService
import Policy
import Testing

/// What a program may ask for, and where it may go with the answer.
struct NameServiceTests {
  private static func service(
    open: Bool = false, _ allow: [String] = [], deny: [String] = [], hosts: [FixedHost] = [], hold: UInt32 = 30,
    denied: NameSettings.Denied = .refused, ech: Bool = false
  ) throws -> (NameService, Policy) {
    let destinations = Destinations(
      EgressRules(
        isOpen: open, allow: try allow.map { try DestinationRule($0) }, deny: try deny.map { try DestinationRule($0) }))
    var settings = NameSettings()
    settings.hosts = hosts
    settings.hold = hold
    settings.denied = denied
    return (NameService(destinations, settings, removesHiding: ech), Policy(destinations: destinations))
  }

  private func ask(_ service: inout NameService, _ text: String, _ type: UInt16 = 1, now: UInt64 = 0) -> String {
    switch service.judge(Made.query(text, type), now: now) {
    case .ask: "asked"
    case .denied(let response, let reason): "\(response.code) \(reason)"
    case .answer(let response): "answer \(response.code) \(response.count(of: .answer))"
    }
  }

  private func connects(_ policy: Policy, _ service: NameService, _ text: String, now: UInt64) throws -> Bool {
    let endpoint = try #require(IPEndpoint(text))
    return policy.egress(to: endpoint, names: service.names(of: endpoint.address, now: now)) == .allow
  }

  @Test func namesThatNoRuleAllowsAreRefused() throws {
    var (service, _) = try Self.service(["*.example.com", "10.0.0.0/8"], deny: ["evil.example.com"])
    #expect(ask(&service, "a.example.com") == "asked")
    #expect(ask(&service, "A.EXAMPLE.com", 16) == "asked")
    #expect(ask(&service, "example.com") == "5 example.com A denied: no rule of egress.allow names it")
    #expect(ask(&service, "evil.example.com") == "5 evil.example.com A denied: egress.deny has \"evil.example.com\"")
    #expect(ask(&service, "localhost") == "answer 0 1")
    #expect(ask(&service, "1.0.0.127.in-addr.arpa", 12) == "answer 0 1")
    // The names of addresses that may be reached, and of no others.
    #expect(ask(&service, "1.0.0.10.in-addr.arpa", 12) == "asked")
    #expect(ask(&service, "8.8.8.8.in-addr.arpa", 12).hasPrefix("5 8.8.8.8.in-addr.arpa PTR denied"))
    // What must not be reached has no name either, whatever the default.
    (service, _) = try Self.service(open: true, deny: ["10.0.0.0/8", "*.8.8.in-addr.arpa"])
    #expect(ask(&service, "1.0.0.11.in-addr.arpa", 12) == "asked")
    #expect(
      ask(&service, "1.0.0.10.in-addr.arpa", 16).hasPrefix("5 1.0.0.10.in-addr.arpa TXT denied: 10.0.0.1 may not"))
    #expect(ask(&service, "9.9.8.8.in-addr.arpa", 12).contains("egress.deny has \"*.8.8.in-addr.arpa\""))
    (service, _) = try Self.service(["a.test"], denied: .nxdomain)
    #expect(ask(&service, "b.test").hasPrefix("3 b.test A denied"))
  }

  @Test func whatIsNoPlainQuestion() throws {
    var (service, _) = try Self.service(["a.test"])
    var query = Made.query("a.test")
    query.bytes[2] |= 5 << 3
    guard case .answer(let notImplemented) = service.judge(query, now: 0) else { Issue.record("passed"); return }
    #expect(notImplemented.code == 4)
    for bytes in [Made.query("a.test").bytes.prefix(12) + [], Made.query("a.test").bytes.dropLast(1) + []] {
      guard let broken = DNSMessage(Array(bytes)), case .answer(let answer) = service.judge(broken, now: 0) else {
        Issue.record("passed")
        continue
      }
      #expect(answer.code == 1)
    }
    // Two questions, of which the second would be judged by nobody.
    var two = Made.query("a.test")
    two.bytes[5] = 2
    two.bytes += Made.name("b.test") + [0, 1, 0, 1]
    guard case .answer(let answer) = service.judge(two, now: 0) else { Issue.record("passed"); return }
    #expect(answer.code == 1)
    var chaos = Made.query("a.test", 16)
    chaos.bytes[chaos.bytes.count - 1] = 3
    guard case .denied = service.judge(chaos, now: 0) else { Issue.record("passed"); return }
  }

  /// A query has room for more than its question; nobody outside gets that.
  @Test func nothingButTheQuestionLeaves() throws {
    var (service, _) = try Self.service(["a.test"])
    let question = Array(Made.query("a.test", 28).bytes[12...])
    func leaves(_ query: DNSMessage) -> [UInt8]? {
      if case .ask(let message) = service.judge(query, now: 0) { Array(message.bytes[2...]) } else { nil }
    }
    let plain: [UInt8] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 0] + question
    #expect(leaves(Made.query("a.test", 28)) == plain)
    #expect(leaves(Made.query("A.tEsT", 28)) == plain)
    var odd = Made.query("a.test", 28)
    odd.bytes[2] |= 0x06
    odd.bytes[3] |= 0xcf
    #expect(leaves(odd) == plain)
    #expect(leaves(DNSMessage(Made.query("a.test", 28).bytes + Array("secret".utf8))!) == nil)
    var option = Made.query("a.test", 28, option: [0, 12, 0, 6] + Array("secret".utf8))
    let withOption: [UInt8] = [1, 0, 0, 1, 0, 0, 0, 0, 0, 1] + question + [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]
    #expect(leaves(option) == withOption)
    option.bytes[11] = 2
    option.bytes += Made.Record("secret.test", 1, [1, 2, 3, 4]).bytes
    #expect(leaves(option) == withOption)
    var answers = Made.response(to: Made.query("a.test"), [.a("a.test", "1.1.1.1")])
    answers.bytes[2] &= 0x7f
    #expect(leaves(answers) == nil)
    // The program gets its own spelling back (0x20).
    let mixed = Made.query("A.tEsT", id: 77)
    let review = service.review(Made.response(to: Made.query("a.test"), [.a("a.test", "1.1.1.1")]), to: mixed, now: 0)
    #expect(review.response.question == mixed.question && review.response.id == 77)
    guard case .answer(let kept) = service.judge(mixed, now: 1) else {
      Issue.record("asked")
      return
    }
    #expect(kept.question == mixed.question && kept.id == 77)
    // Without a policy a query is what it was.
    (service, _) = try Self.service(open: true)
    #expect(leaves(option) == Array(option.bytes[2...]))
  }

  /// The address may be reached while the answer holds, on the ports of the name's rule, and not before or after.
  @Test func anAnswerOpensItsAddresses() throws {
    var (service, policy) = try Self.service(["a.test:443", "b.test:80"], hold: 5)
    let query = Made.query("a.test")
    #expect(try !connects(policy, service, "1.2.3.4:443", now: 0))
    let response = Made.response(
      to: query, [.init("a.test", 5, Made.name("x.cdn.example")), .a("x.cdn.example", "1.2.3.4", ttl: 60)])
    #expect(service.review(response, to: query, now: 100).response == response)
    #expect(try connects(policy, service, "1.2.3.4:443", now: 100))
    #expect(try connects(policy, service, "1.2.3.4:443", now: 160))
    #expect(try !connects(policy, service, "1.2.3.4:443", now: 161))
    #expect(try !connects(policy, service, "1.2.3.4:80", now: 100))
    #expect(try !connects(policy, service, "1.2.3.5:443", now: 100))
    #expect(try connects(policy, service, "[::ffff:1.2.3.4]:443", now: 100))
    // From the cache: no longer than the answer that it is from.
    #expect(ask(&service, "a.test", now: 140) == "answer 0 2")
    #expect(try !connects(policy, service, "1.2.3.4:443", now: 161))
    // A TTL of 0 lasts for `hold`, and is asked for each time.
    _ = service.review(Made.response(to: query, [.a("a.test", "1.2.3.6", ttl: 0)]), to: query, now: 200)
    #expect(try connects(policy, service, "1.2.3.6:443", now: 205))
    #expect(try !connects(policy, service, "1.2.3.6:443", now: 206))
    #expect(ask(&service, "a.test", now: 201) == "asked")
  }

  @Test func rebinding() throws {
    var (service, policy) = try Self.service(["*.test"], deny: ["private"])
    let query = Made.query("a.test")
    let response = Made.response(
      to: query, ["169.254.169.254", "10.0.0.1", "127.0.0.1", "8.8.8.8"].map { .a("a.test", $0) })
    let review = service.review(response, to: query, now: 0)
    #expect(review.response.count(of: .answer) == 1)
    #expect(
      review.sentence
        == "a.test A: taken out of the answer: 169.254.169.254, 10.0.0.1, 127.0.0.1, which must not be reached")
    #expect(try connects(policy, service, "8.8.8.8:1", now: 1))
    #expect(try !connects(policy, service, "10.0.0.1:1", now: 1))
    // The cache has what the program got.
    guard case .answer(let kept) = service.judge(query, now: 1) else { Issue.record("asked"); return }
    #expect(kept.count(of: .answer) == 1)
    // What is named may be an answer.
    (service, policy) = try Self.service(["*.test", "metadata:80"], deny: ["10.0.0.1:22"])
    #expect(service.review(response, to: query, now: 0).response.count(of: .answer) == 3)
  }

  /// Without a policy a program sees what it would see on a plain machine.
  @Test func nothingIsChangedWithoutAPolicy() throws {
    var (service, policy) = try Self.service(open: true)
    let query = Made.query("a.test")
    let response = Made.response(to: query, [.a("a.test", "127.0.0.1"), .a("b.test", "169.254.169.254")])
    #expect(service.review(response, to: query, now: 0).response == response)
    let odd = DNSMessage(response.bytes + [1, 2, 3])!
    #expect(service.review(odd, to: query, now: 0).response == odd)
    #expect(try connects(policy, service, "8.8.8.8:1", now: 0))
    (service, _) = try Self.service(["a.test"])
    #expect(service.review(odd, to: query, now: 0).response.code == 2)
  }

  @Test func fixedAnswersAreSubjectToThePolicy() throws {
    let host = FixedHost(try DomainName(text: "kms.internal"), [IPAddress("10.0.0.5")!])
    var (service, policy) = try Self.service(["kms.internal:443"], hosts: [host])
    #expect(ask(&service, "kms.internal") == "answer 0 1")
    #expect(try connects(policy, service, "10.0.0.5:443", now: 9))
    #expect(try !connects(policy, service, "10.0.0.5:80", now: 9))
    (service, policy) = try Self.service(["other.test"], hosts: [host])
    #expect(ask(&service, "kms.internal").hasPrefix("5 "))
    #expect(try !connects(policy, service, "10.0.0.5:443", now: 9))
  }

  // MARK: names of TLS clients

  @Test func theNameThatAClientAsksFor() throws {
    var (service, policy) = try Self.service(["a.test:443", "b.test", "c.test:80", "10.0.0.0/8"])
    for (name, address) in [("a.test", "1.1.1.1"), ("b.test", "1.1.1.2"), ("b.test", "1.1.1.1")] {
      let query = Made.query(name)
      _ = service.review(Made.response(to: query, [.a(name, address)]), to: query, now: 0)
    }
    func verdict(_ text: String, _ name: String?, requires: Bool = true) throws -> String {
      let endpoint = try #require(IPEndpoint(text))
      let decision = policy.egress(
        to: endpoint, naming: try name.map { try DomainName(text: $0) },
        names: service.names(of: endpoint.address, now: 1), requires: requires)
      if case .deny(let reason) = decision { return reason }
      return "allowed"
    }
    #expect(try verdict("1.1.1.1:443", "a.test") == "allowed")
    #expect(try verdict("1.1.1.1:443", "b.test") == "allowed")
    #expect(try verdict("1.1.1.2:443", "a.test").hasSuffix("for which this address was not the answer"))
    #expect(try verdict("1.1.1.1:443", "x.test") == "the client asks for x.test: no rule of egress.allow names it")
    #expect(try verdict("1.1.1.1:443", "c.test").hasPrefix("the client asks for c.test: no rule"))
    #expect(try verdict("10.0.0.1:443", "a.test") == "allowed")
    #expect(try verdict("10.0.0.1:443", "x.test").hasPrefix("the client asks for x.test"))
    #expect(try verdict("1.1.1.1:443", nil) == "the client names no server (egress.sni = \"require\")")
    #expect(try verdict("1.1.1.1:443", nil, requires: false) == "allowed")
  }

  // MARK: bounds

  /// Who serves an allowed zone can invent names and addresses without end.
  @Test func whatIsLearnedIsBounded() throws {
    var learned = LearnedNames(floor: 10, limit: 1000, nameLimit: 50)
    let good = try DomainName(text: "good.test")
    for index in 0..<20_000 {
      let name = try DomainName(text: "n\(index / 7).evil.test")
      learned.learn(.v4(IPv4Address(rawValue: 0x0101_0000 + UInt32(index))), of: name, seconds: 3600, now: 100)
      if index % 100 == 0 { learned.learn(.v4(IPv4Address(9, 9, 9, 9)), of: good, seconds: 1, now: 100) }
      #expect(learned.count <= 1000)
      #expect(learned.names(of: .v4(IPv4Address(9, 9, 9, 9)), now: 105) == [good])
    }
    #expect(learned.names(of: .v4(IPv4Address(9, 9, 9, 9)), now: 110) == [good])  // no less than what was said
    #expect(learned.names(of: .v4(IPv4Address(9, 9, 9, 9)), now: 111) == [])
    let many = try DomainName(text: "many.test")
    for index in 0..<5000 {
      learned.learn(.v4(IPv4Address(rawValue: UInt32(index) << 8)), of: many, seconds: 9, now: 200)
    }
    let kept = (0..<5000).filter { !learned.names(of: .v4(IPv4Address(rawValue: UInt32($0) << 8)), now: 201).isEmpty }
    #expect((1...50).contains(kept.count) && kept.last == 4999)
    // All names of a zone have one address: the last of them count.
    let shared = IPAddress.v4(IPv4Address(8, 8, 8, 8))
    for index in 0..<2000 {
      learned.learn(shared, of: try DomainName(text: "n\(index).wild.test"), seconds: 9, now: 250)
      #expect(learned.names(of: shared, now: 250).count <= 256)
    }
    #expect(learned.names(of: shared, now: 251).first == (try DomainName(text: "n1999.wild.test")))
    // An address of several names has each while it lasts; a shorter answer does not shorten a longer one.
    let address = IPAddress("[2606:4700::1]:1") ?? .v6(.loopback)
    learned.learn(address, of: good, seconds: 100, now: 300)
    learned.learn(address, of: many, seconds: 20, now: 300)
    learned.learn(address, of: good, seconds: 10, now: 300)
    #expect(learned.names(of: address, now: 320) == [good, many] && learned.names(of: address, now: 321) == [good])
  }
}
