import DNS
import Inet
import Policy

// Theory of operation.
//
// What happens to the program's queries, without a socket and without a clock:
//
//   query    ▶ one question of the internet? ▶ fixed answers ▶ policy ▶ cache ▶ its question alone ▶ the host
//   response ▶ the same question? ▶ review (chain of aliases, denied addresses, TTLs) ▶ cache ▶ addresses learned ▶ program
//
// The name that was asked for counts, whatever it is an alias of. An address that was the answer may be reached, on the
// ports that the name's rule has, until the answer's TTL ends, and at least for `hold`. Where nothing is denied but what is
// built in, a response passes as it came: it is a plain machine's then, and the special addresses are denied by the connect.

/// Judges queries and responses, and knows for which names an address was the answer.
public struct NameService {
  /// In seconds: the longest that an answer counts.
  public static let ceiling: UInt32 = 3600

  private let destinations: Destinations
  private let settings: NameSettings
  private let removesHiding: Bool
  private let local: LocalNames
  private var learned: LearnedNames
  private var cache: ResponseCache

  /// - Parameter removesHiding: takes the keys out of answers with which clients hide the name that they ask a server for.
  public init(_ destinations: Destinations, _ settings: NameSettings, removesHiding: Bool) {
    self.destinations = destinations
    self.settings = settings
    self.removesHiding = removesHiding
    local = LocalNames(hosts: settings.hosts)
    learned = LearnedNames(floor: settings.hold)
    cache = ResponseCache(limit: settings.cache)
  }

  public enum Outcome {
    case answer(DNSMessage)
    /// The sentence says why.
    case denied(DNSMessage, String)
    /// The host is asked this, with an id of its own.
    case ask(DNSMessage)
  }

  /// - Parameter now: in seconds, of a clock that does not go back.
  public mutating func judge(_ query: DNSMessage, now: UInt64) -> Outcome {
    // RFC 1035 section 4.1.1: FORMERR, NOTIMP. More than one question is answered by no server.
    guard query.opcode == 0 else { return .answer(query.errorResponse(code: 4)) }
    guard query.count(of: .question) == 1, let question = query.question else {
      return .answer(query.errorResponse(code: 1))
    }
    if let reason = denial(of: question, now) {
      return .denied(query.errorResponse(code: settings.denied.code), "\(question) denied: \(reason)")
    }
    if let answer = local.answer(query, question) { return .answer(answer) }
    guard let asked = outgoing(query) else { return .answer(query.errorResponse(code: 1)) }
    if let (answer, addresses) = cache.answer(asked, now: UInt32(truncatingIfNeeded: now)) {
      for found in addresses { learned.learn(found.address, of: question.domain, seconds: found.seconds, now: now) }
      return .answer(answer.spelled(as: query))
    }
    return .ask(asked)
  }

  /// What leaves of a query: its question, and nothing beside it, since the server of the name would get that too. Without a
  /// policy all of it.
  private func outgoing(_ query: DNSMessage) -> DNSMessage? {
    destinations.rules.isPlain ? query : query.plainQuery()
  }

  private func denial(of question: DNSMessage.Question, _ now: UInt64) -> String? {
    let rules = destinations.rules
    if question.networkClass != 1 { return rules.isPlain ? nil : "it is not of the internet's class" }
    if let address = question.domain.reverseAddress {
      // The name of an address that may be reached may be asked for.
      if address.isLoopback || rules.isPlain { return nil }
      if case .denied(let rule?) = rules.verdict(on: question.domain) {
        return EgressRules.NameVerdict.denied(by: rule).description
      }
      if destinations.isBarred(address) { return "\(address) may not be reached" }
      if rules.isOpen || !names(of: address, now: now).isEmpty || destinations.hasRule(allowing: address) {
        return nil
      }
    }
    // RFC 6761 section 6.3, 6.4: nobody outside is asked.
    if LocalNames.isReserved(question.domain) { return nil }
    let verdict = rules.verdict(on: question.domain)
    return verdict.isAllowed ? nil : verdict.description
  }

  /// For the log: why a name may be asked for; nil for what needs no rule.
  public func grounds(for name: DomainName) -> String? {
    if LocalNames.isReserved(name) || name.reverseAddress?.isLoopback ?? false { return nil }
    let verdict = destinations.rules.verdict(on: name)
    return verdict.isAllowed ? verdict.description : "its address may be reached"
  }

  /// What the host sent.
  /// - Returns: the response for the program, and a sentence where something of it was kept back.
  public mutating func review(
    _ response: DNSMessage, to query: DNSMessage, now: UInt64
  ) -> (response: DNSMessage, sentence: String?) {
    guard let question = query.question, let asked = outgoing(query) else { return (query.errorResponse(code: 2), nil) }
    let rules = ResponseReview.Rules(
      isBarred: { [destinations] in !destinations.rules.isPlain && destinations.isBarred($0) },
      removesHiding: removesHiding, ceiling: Self.ceiling)
    guard let review = ResponseReview(response, to: question, rules) else {
      if destinations.rules.isPlain, !removesHiding { return (response.spelled(as: query), nil) }
      return (query.errorResponse(code: 2), "\(question): the answer cannot be read, or has become too long")
    }
    cache.store(review, to: asked, now: UInt32(truncatingIfNeeded: now))
    for answer in review.addresses {
      learned.learn(answer.address, of: question.domain, seconds: answer.seconds, now: now)
    }
    let message = review.message.spelled(as: query)
    guard !review.barred.isEmpty else { return (message, nil) }
    let shown = review.barred.prefix(4).map(\.description).joined(separator: ", ")
    let more = review.barred.count > 4 ? " and \(review.barred.count - 4) more" : ""
    return (message, "\(question): taken out of the answer: \(shown)\(more), which must not be reached")
  }

  /// The names for which an address is the answer.
  public func names(of address: IPAddress, now: UInt64) -> [DomainName] {
    local.names(of: address) + learned.names(of: address, now: now)
  }
}
