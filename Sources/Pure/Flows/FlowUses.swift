import Inet
import Policy

/// What of destinations in use the log does not name yet, as its lines say it.
struct FlowUses: Sendable {
  private var known = FirstUses()
  private var sentences: [String] = []

  /// - Parameters:
  ///   - name: that the client has asked its server for.
  ///   - names: for which the address was the answer.
  mutating func note(
    _ endpoint: IPEndpoint, _ transport: FlowTransport, naming name: DomainName?, _ names: [DomainName],
    _ policy: Policy
  ) {
    let name = name ?? policy.allowedName(at: endpoint, names, transport)
    switch known.note(FirstUses.Use(endpoint, name, transport)) {
    case .first:
      sentences.append(
        "packets to \(FlowDenial.shown(endpoint, transport, name)) allowed: \(policy.grounds(for: endpoint, name, transport))"
      )
    case .tooMany: sentences.append("packets: so many destinations are in use that no further one is named here")
    case .known: break
    }
  }

  mutating func take() -> [String] {
    guard !sentences.isEmpty else { return [] }
    defer { sentences = [] }
    return sentences
  }
}
