import DNS
import EventLoop
import LinuxSystem
import LogText
import Policy
import Relaying
import Roles
import Upstreams

// Theory of operation.
//
// One process, one thread, one loop. It has one socket, to the proxy, and is given a connection to a server when it asks for one
// by the server's number:
//
//   query from the proxy ▶ UpstreamQueries: which server ▶ its connection, or "connect" to the proxy
//   connection from the proxy ▶ TLS handshake, the certificate verified ▶ queries, many at a time
//   response ▶ id and question fit ▶ proxy           (DoH: the stream tells which query it is for)
//   lost, wrong, silent ▶ one line in the log ▶ the next server, or SERVFAIL; never the same server without TLS
//
// A connection stays open until the server ends it; the next query makes another.

/// Asks the servers of `dns.upstream`.
public final class DNSClient: EventSource {
  private static let sweepInterval: Duration = .milliseconds(500)
  private static let sweepKey = 0
  private static let complaintsKey = 1

  private enum Way {
    case none
    /// The proxy has been asked for it, at this time.
    case awaited(since: UInt64)
    case connected(UpstreamConnection)
  }

  /// The same complaint of the same server.
  private struct Complaint: Hashable {
    var server: Int
    var reason: String
  }

  private let loop: EventLoop
  private let servers: [UpstreamServer]
  private let roots: TLSRoots?
  private let link: MessageLink
  private let log: (String) -> Void
  private var queries: UpstreamQueries
  private var ways: [Way]
  private var complaints = Complaints<Complaint>()
  private var isSweeping = false
  private var awaitsComplaints = false

  /// - Parameters:
  ///   - link: to the proxy.
  ///   - log: takes sentences worth an operator's attention.
  public init(
    loop: EventLoop, servers: [UpstreamServer], roots: TLSRoots?, link: FileReference, log: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.servers = servers
    self.roots = roots
    self.log = log
    self.link = try MessageLink(loop: loop, socket: link, longest: UpstreamMessage.limit)
    queries = UpstreamQueries(servers: servers.count)
    ways = [Way](repeating: .none, count: servers.count)
    super.init()
    self.link.received = { [unowned self] in received($0, $1) }
  }

  /// To be called when nothing is to be given up any more.
  public func start() { link.send(UpstreamMessage.started.bytes) }

  private func received(_ bytes: [UInt8], _ file: FileReference?) {
    switch UpstreamMessage(bytes) {
    case .message(let query):
      guard let query = DNSMessage(query), let action = queries.add(query, now: monotonicNanoseconds()) else { return }
      perform([action])
      sweepLater()
    case .connection(let server): connected(Int(server), file)
    case .refusal(let server, let reason): refused(Int(server), reason)
    case .started, .connect, nil: break
    }
  }

  private func perform(_ actions: [UpstreamQueries.Action]) {
    for action in actions {
      switch action {
      case .fail(let response): link.send(UpstreamMessage.message(response.bytes).bytes)
      case .ask(let server): ask(server)
      }
    }
  }

  private func ask(_ server: Int) {
    switch ways[server] {
    case .awaited: break
    case .connected(let connection):
      guard connection.isOpen else { return }
      for query in queries.take(for: server) where !connection.submit(query) {
        // It has said that it goes away, and answers what it has.
        replace(connection, of: server)
        return
      }
    case .none: connect(server)
    }
  }

  private func connect(_ server: Int) {
    ways[server] = .awaited(since: monotonicNanoseconds())
    link.send(UpstreamMessage.connect(server: UInt8(truncatingIfNeeded: server)).bytes)
  }

  private func replace(_ connection: UpstreamConnection, of server: Int) {
    connection.close()
    ways[server] = .none
    perform(queries.lost(server, hasAnswered: connection.hasAnswered, now: monotonicNanoseconds()))
  }

  private func connected(_ server: Int, _ file: FileReference?) {
    // One that came too late closes.
    guard ways.indices.contains(server), case .awaited = ways[server], let file else { return }
    do {
      let connection = try UpstreamConnection(
        loop: loop, socket: file, server: servers[server], roots: roots,
        calls: .init(
          opened: { [unowned self] in ask(server) }, replied: { [unowned self] in replied($0, from: server) },
          ended: { [unowned self] in ended(server, $0) }))
      ways[server] = .connected(connection)
      connection.start()
    } catch {
      refused(server, "\(error)")
    }
  }

  private func refused(_ server: Int, _ reason: String) {
    guard ways.indices.contains(server), case .awaited = ways[server] else { return }
    ways[server] = .none
    say(server, reason)
    perform(queries.lost(server, hasAnswered: false, now: monotonicNanoseconds()))
  }

  private func replied(_ reply: UpstreamReply, from server: Int) {
    switch reply {
    case .response(let response):
      if queries.answered(response, by: server) { link.send(UpstreamMessage.message(response.bytes).bytes) }
    case .failure(let id, let reason):
      say(server, reason)
      if let action = queries.failed(id, at: server, now: monotonicNanoseconds()) { perform([action]) }
    }
  }

  private func ended(_ server: Int, _ reason: String?) {
    guard case .connected(let connection) = ways[server] else { return }
    ways[server] = .none
    let wasAsked = queries.isWaiting(for: server)
    if let reason {
      say(server, reason)
    } else if wasAsked, !connection.hasAnswered {
      say(server, "the server has ended the connection without an answer")
    }
    perform(queries.lost(server, hasAnswered: connection.hasAnswered, now: monotonicNanoseconds()))
  }

  // MARK: time

  private func sweepLater() {
    guard !isSweeping, !queries.isEmpty else { return }
    isSweeping = true
    loop.schedule(after: Self.sweepInterval, self, key: Self.sweepKey)
  }

  override public func timerFired(_ key: Int) {
    let now = monotonicNanoseconds()
    if key == Self.complaintsKey {
      awaitsComplaints = false
      sayWhatWasNotSaid(now)
      return awaitComplaints()
    }
    isSweeping = false
    let (late, actions) = queries.expired(now: now)
    for server in late {
      say(server, "no answer within \(UpstreamQueries.patience / 1_000_000_000) s")
      switch ways[server] {
      // It answers other queries: this one takes long.
      case .connected(let connection) where connection.lastHeard &+ UpstreamQueries.patience > now: continue
      case .connected(let connection): connection.close()
      case .awaited, .none: break
      }
      ways[server] = .none
      perform(queries.lost(server, hasAnswered: false, now: now))
    }
    perform(actions)
    sweepLater()
  }

  /// A server that does not do as it should must not fill the log.
  private func say(_ server: Int, _ reason: String) {
    let now = monotonicNanoseconds()
    sayWhatWasNotSaid(now)
    if complaints.admits(Complaint(server: server, reason: reason), at: now) {
      log("dns: \(servers[server]): \(reason)")
    }
    awaitComplaints()
  }

  private func sayWhatWasNotSaid(_ now: UInt64) {
    for remainder in complaints.end(at: now) {
      log("dns: \(servers[remainder.kind.server]): \(remainder.kind.reason): \(remainder.sentence)")
    }
  }

  private func awaitComplaints() {
    guard !awaitsComplaints, complaints.due != nil else { return }
    awaitsComplaints = true
    loop.schedule(
      after: .nanoseconds(Int64(clamping: Complaints<Complaint>.window)), self, key: Self.complaintsKey)
  }
}
