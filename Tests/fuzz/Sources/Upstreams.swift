import DNS
import Roles
import Upstreams

/// What the proxy and the DNS client say to each other: each must stand whatever the other says, since both read foreign bytes.
let upstreamMessage = Harness("upstream-message", limit: 2048) { bytes in
  if let message = UpstreamMessage(bytes) {
    check(message.bytes.count <= UpstreamMessage.limit, "a message that is longer than any")
    // A reason that was no text is text from then on.
    check(UpstreamMessage(message.bytes).map { $0 == message } ?? false || !isText(message), "it is read otherwise")
  }
  if let plan = try? UpstreamPlan(document: bytes) {
    check((try? UpstreamPlan(document: plan.document)) == plan, "a plan is read otherwise than it is written")
    check(!plan.servers.isEmpty && plan.servers.count <= 255, "\(plan.servers.count) servers")
  }
  _ = CertificateBundle.defect(in: bytes)
}

private func isText(_ message: UpstreamMessage) -> Bool {
  guard case .refusal(_, let reason) = message else { return true }
  return reason.utf8.count <= 512 && !reason.unicodeScalars.contains("\u{fffd}")
}

/// Servers that answer anything, at any time and in any pieces, and that come and go: every query that was taken has one answer
/// or fails once, and only an answer to its own question counts.
let upstreams = Harness("upstreams", limit: 2048) { bytes in
  var choices = Choices(bytes)
  let servers = 1 + choices.below(3)
  var queries = UpstreamQueries(servers: servers)
  var framings = [LengthFraming](repeating: LengthFraming(), count: servers)
  var asked: [UInt16: UInt8] = [:]
  var now: UInt64 = 1
  func end(_ actions: [UpstreamQueries.Action]) {
    for case .fail(let response) in actions {
      check(response.isResponse && asked.removeValue(forKey: response.id) != nil, "it fails twice, or was never asked")
    }
    for case .ask(let server) in actions { check(server < servers, "there is no server \(server)") }
  }
  while !choices.isEmpty {
    let server = choices.below(servers)
    switch choices.below(8) {
    case 0, 1:
      let (id, name) = (UInt16(choices.below(16)), choices.byte() | 1)
      guard let query = message(id, name, isResponse: false) else { continue }
      asked[id] = name
      if let action = queries.add(query, now: now) { end([action]) }
    case 2:
      for query in queries.take(for: server) { check(asked[query.id] != nil, "what nobody waits for is asked") }
    case 3:
      let id = UInt16(choices.below(16))
      guard let response = message(id, choices.byte() | 1, isResponse: true) else { continue }
      if queries.answered(response, by: server) {
        check(
          response.question?.domain == asked[id].flatMap { message(id, $0, isResponse: false) }?.question?.domain,
          "another question's")
        asked[id] = nil
      }
    case 4:
      let piece = choices.bytes(choices.below(64))
      for whole in framings[server].feed(piece) {
        guard let response = DNSMessage(whole), queries.answered(response, by: server) else { continue }
        check(asked.removeValue(forKey: response.id) != nil, "an answer to nothing")
      }
    case 5: end(queries.lost(server, hasAnswered: choices.flag(), now: now))
    case 6: if let action = queries.failed(UInt16(choices.below(16)), at: server, now: now) { end([action]) }
    default:
      now += UInt64(choices.byte()) << 26
      end(queries.expired(now: now).actions)
    }
    check(queries.isEmpty == asked.isEmpty, "\(asked.count) wait, and it says the opposite")
  }
}

private func message(_ id: UInt16, _ name: UInt8, isResponse: Bool) -> DNSMessage? {
  DNSMessage([0, UInt8(id & 255), isResponse ? 0x81 : 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, name, 0, 0, 1, 0, 1])
}
