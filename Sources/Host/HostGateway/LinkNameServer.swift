import CLinux
import DNS
import EventLoop
import HostNetwork
import Inet
import LinuxSystem
import Relaying

/// The name server of enclaves in raw mode that were given no other: an address on their link, behind which the host's own
/// resolver is asked. So a resolver on the host's loopback serves them too, and changes of the host's resolv.conf hold.
final class LinkNameServer: EventSource {
  /// Queries taken per turn before others have theirs.
  private static let turnLimit = 64

  private let resolver: Resolver
  private let socket: FileReference
  private var listener: Listener?
  private let budget: Budget
  private var clients: [ObjectIdentifier: (MessageStream, Budget.Lease)] = [:]
  private var buffer = [UInt8](repeating: 0, count: 65536)

  init(
    loop: EventLoop, resolver: Resolver, budget: Budget, _ datagrams: FileReference, _ listening: FileReference,
    report: @escaping (String) -> Void
  ) throws(SystemError) {
    self.resolver = resolver
    self.budget = budget
    socket = datagrams
    super.init()
    _ = try loop.add(socket.rawValue, [.readable], self)
    listener = try Listener(loop: loop, socket: listening, report: report) { [unowned self] client, _ in
      do throws(SystemError) {
        try accepted(client, loop)
      } catch {
        report("dns: \(error)")
      }
    }
  }

  override func ready(_ events: EventSet, tag: Int) {
    for _ in 0..<Self.turnLimit {
      let (result, from) = buffer.withUnsafeMutableBytes { receiveDatagram(socket.rawValue, $0) }
      guard case .bytes(let count) = result else { return }
      guard let from, let query = DNSMessage(Array(buffer[..<count])), !query.isResponse else { continue }
      let limit = query.udpLimit
      resolver.resolve(query, for: 0) { [socket] response in
        let fitting = response.bytes.count > limit ? response.truncated() : response
        sendDatagram(socket.rawValue, fitting.bytes, to: from)
      }
    }
  }

  private func accepted(_ client: FileReference, _ loop: EventLoop) throws(SystemError) {
    guard let lease = budget.lease(.resolvers, for: 0) else { return budget.refused(.resolvers, 0) }
    let messages = try MessageStream(
      loop: loop, socket: client, idleTimeout: .seconds(30), outputLimit: budget.limits.answerBytes,
      readsWhileItWrites: false
    ) { [unowned self] in
      guard let query = DNSMessage($1), !query.isResponse else { return $0.close() }
      resolver.resolve(query, for: 0) { [weak stream = $0] response in stream?.send(response.bytes) }
    } closed: { [unowned self] in
      clients[ObjectIdentifier($0)] = nil
    }
    clients[ObjectIdentifier(messages)] = (messages, lease)
  }
}
