import DNS
import EventLoop
import Inet
import LinuxSystem
import NameService
import Relaying

/// The addresses of a forward's host. Those of a name hold as long as its answer does.
final class ForwardDestination {
  private let host: ForwardHost
  private let resolver: Resolver
  private var known: [IPAddress] = []
  /// In nanoseconds.
  private var until: UInt64 = 0
  /// Those who wait for the answer under way.
  private var waiting: [([IPAddress]) -> Void] = []

  init(_ host: ForwardHost, _ resolver: Resolver) {
    self.host = host
    self.resolver = resolver
  }

  /// The name that is looked up.
  var name: DomainName? { if case .name(let name) = host { name } else { nil } }

  /// - Parameters:
  ///   - peer: whose query it is.
  ///   - completion: gets them in the order in which they are to be tried; none where there are none.
  func look(for peer: PeerKey, _ completion: @escaping ([IPAddress]) -> Void) {
    switch host {
    case .address(let address): return completion([address])
    case .name(let name):
      if !known.isEmpty, monotonicNanoseconds() < until { return completion(known) }
      waiting.append(completion)
      if waiting.count == 1 { ask(name, peer) }
    }
  }

  private func ask(_ name: DomainName, _ peer: PeerKey) {
    var found: [UInt16: (addresses: [IPAddress], seconds: UInt32)] = [:]
    let types = [RecordType.a, RecordType.aaaa]
    for type in types {
      guard let query = DNSMessage(asking: name, type: type), let question = query.question else {
        found[type] = ([], 0)
        continue
      }
      resolver.resolve(query, for: peer) { [unowned self] response in
        let rules = ResponseReview.Rules(isBarred: { _ in false }, removesHiding: false, ceiling: NameService.ceiling)
        let answers =
          response.code == 0 ? ResponseReview(response, to: question, rules)?.addresses ?? [] : []
        found[type] = (answers.map(\.address), answers.map(\.seconds).min() ?? .max)
        guard found.count == types.count else { return }
        let all = types.compactMap { found[$0] }
        finish(all.flatMap(\.addresses), all.map(\.seconds).min() ?? 0)
      }
    }
  }

  private func finish(_ addresses: [IPAddress], _ seconds: UInt32) {
    known = addresses
    until = monotonicNanoseconds() &+ UInt64(seconds) &* 1_000_000_000
    let asked = waiting
    waiting = []
    for completion in asked { completion(addresses) }
  }
}
