import DNS
import EventLoop
import LinuxSystem
import Relaying
import Wire

/// The enclave's queries for names, to this machine's resolvers.
final class ResolveServer: ChannelServer {
  private let loop: EventLoop
  private let resolver: Resolver
  private var streams: [ObjectIdentifier: MessageStream] = [:]

  init(loop: EventLoop, resolver: Resolver) {
    self.loop = loop
    self.resolver = resolver
  }

  func serve(_ admitted: AdmittedStream) throws {
    admitted.answer(.ok)
    let messages = try MessageStream(loop: loop, socket: admitted.stream, early: admitted.early) {
      [unowned self] stream, bytes in
      guard let query = DNSMessage(bytes), !query.isResponse else { return stream.close() }
      resolver.resolve(query) { [weak stream] response in stream?.send(response.bytes) }
    } closed: { [unowned self] in
      streams[ObjectIdentifier($0)] = nil
    }
    streams[ObjectIdentifier(messages)] = messages
  }
}
