import DNS
import Inet
import NameService
import Policy

/// What the host sends to a query that is under way, under a policy: nothing denied gets in or may be reached, and what the
/// program gets is a message.
let dnsAnswer = Harness("dns-answer", limit: 2048) { bytes in
  var choices = Choices(bytes)
  let query = DNSMessage(choices.bytes(choices.below(64)))
  guard let response = DNSMessage(choices.remainder()), response.isResponse else { return }
  guard
    let asked = query ?? DNSMessage([0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 4, 116, 101, 115, 116, 0, 0, 1, 0, 1]),
    let name = DomainName(labels: [4, 116, 101, 115, 116])
  else { return }
  let rules = EgressRules(
    isOpen: false, allow: [DestinationRule(.below(name))], deny: [DestinationRule(.set(.private))])
  let destinations = Destinations(rules)
  var service = NameService(destinations, NameSettings(), removesHiding: true)
  guard case .ask(let sent) = service.judge(asked, now: 1) else { return }
  check(sent.plainQuery() == sent, "what leaves has more than its question")
  guard let question = sent.question, response.question?.asksTheSame(as: question) ?? false else { return }
  let (given, _) = service.review(response, to: asked, now: 1)
  check(given.id == asked.id && given.question?.domain == question.domain, "an answer to another query")
  for record in given.records ?? [] {
    if let address = given.address(record) { check(!destinations.isBarred(address), "\(address) got in") }
  }
  for record in response.records ?? [] {
    guard let address = response.address(record), destinations.isBarred(address) else { continue }
    check(service.names(of: address, now: 2).isEmpty, "\(address) was learned")
  }
  if case .answer(let kept) = service.judge(asked, now: 2) {
    check(kept.records != nil, "the cache has what cannot be read")
  }
}
