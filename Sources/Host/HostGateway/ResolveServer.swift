import DNS
import EventLoop
import LinuxSystem
import Relaying
import Wire

/// The enclave's queries for names, to this machine's resolvers.
final class ResolveServer: ChannelServer {
  private let loop: EventLoop
  private let resolver: Resolver
  private let budget: Budget
  private var streams: [ObjectIdentifier: (MessageStream, Budget.Lease)] = [:]

  init(loop: EventLoop, resolver: Resolver, budget: Budget) {
    self.loop = loop
    self.resolver = resolver
    self.budget = budget
  }

  func serve(_ admitted: AdmittedStream) throws {
    guard let lease = budget.lease(.resolvers, for: admitted.peer) else {
      budget.refused(.resolvers, admitted.peer)
      return admitted.answer(.noResources)
    }
    admitted.answer(.ok)
    let peer = admitted.peer
    // An enclave that does not read its answers asks nothing more, and gets no more than a few.
    let messages = try MessageStream(
      loop: loop, socket: admitted.stream, early: admitted.early, outputLimit: budget.limits.answerBytes,
      readsWhileItWrites: false
    ) { [unowned self] stream, bytes in
      guard let query = DNSMessage(bytes), !query.isResponse else { return stream.close() }
      resolver.resolve(query, for: peer) { [weak stream] response in stream?.send(response.bytes) }
    } closed: { [unowned self] in
      streams[ObjectIdentifier($0)] = nil
    }
    streams[ObjectIdentifier(messages)] = (messages, lease)
  }
}
