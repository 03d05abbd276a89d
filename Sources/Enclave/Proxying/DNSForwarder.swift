import CLinux
import DNS
import EventLoop
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Policy
import Relaying
import Wire

/// Takes the program's DNS queries, over UDP and TCP and whatever server they were for, and passes those that the policy
/// allows over one resolve stream to the host, or to the DNS client, with ids that are unique there. What is decided about them
/// is `NameService`.
final class DNSForwarder {
  private enum Client {
    case datagram(DatagramSource, from: DatagramPeer, limit: Int)
    case stream(MessageStream)
  }

  private struct Pending {
    var client: Client
    var query: DNSMessage
    var deadline: UInt64
  }

  /// Queries under way at most; one more is answered SERVFAIL.
  private static let pendingLimit = 4096
  /// Bytes of them; a query is a few dozen.
  private static let pendingBytesLimit = 1 << 20
  /// Longer than the host takes with all its attempts would mean a client that has given up.
  private static let queryTimeout: Duration = .seconds(30)
  /// Bytes of answers that wait for one client that does not read them.
  private static let answersLimit = 256 * 1024
  /// Clients over TCP.
  private static let clientLimit = 512
  private static let servfail: UInt8 = 2

  private let loop: EventLoop
  private let target: StreamTarget
  private let token: Token
  private let names: Locked<NameService>
  private var denials = DenialBudget()
  private var failures = DenialBudget("failed")
  private let report: (String) -> Void
  /// Called with each question that was answered.
  var onUse: ((DNSMessage.Question) -> Void)?
  private var pending: [UInt16: Pending] = [:]
  private var pendingBytes = 0
  private var nextID = UInt16.random(in: .min ... .max)
  /// nil: the host is asked.
  private let upstreams: UpstreamLink?
  private var stream: MessageStream?
  private var opening = false
  private var waiting: [[UInt8]] = []
  private var sources: [EventSource] = []
  private var clients: [ObjectIdentifier: MessageStream] = [:]
  private var sweepScheduled = false

  init(
    loop: EventLoop, target: StreamTarget, token: Token, names: Locked<NameService>, datagramSockets: [FileReference],
    listeners: [FileReference], upstreams: UpstreamLink? = nil,
    report: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.target = target
    self.token = token
    self.names = names
    self.report = report
    self.upstreams = upstreams
    upstreams?.calls = .init(
      received: { [unowned self] in
        if !received($0) { report("dns: the DNS client sent something that is not a DNS response") }
      }, restarted: { [unowned self] in if !pending.isEmpty { lost("the DNS client was started again") } })
    let room = DatagramRoom()
    for socket in datagramSockets {
      let source = DatagramSource(loop: loop, socket: socket, room: room) { [unowned self] in
        datagram($0, from: $1, on: $2)
      }
      sources.append(source)
      _ = try loop.add(socket.rawValue, [.readable], source)
    }
    for socket in listeners {
      sources.append(
        try Listener(loop: loop, socket: socket, report: report) { [unowned self] in self.accepted($0, $1) })
    }
  }

  private func datagram(_ bytes: [UInt8], from: DatagramPeer, on source: DatagramSource) {
    guard let query = DNSMessage(bytes), !query.isResponse else { return }
    judge(query, .datagram(source, from: from, limit: query.udpLimit))
  }

  private func accepted(_ socket: FileReference, _ peer: IPEndpoint?) {
    // The one that is accepted is closed: its resolver asks again, or another way.
    guard clients.count < Self.clientLimit else { return }
    do throws(SystemError) {
      let client = try MessageStream(
        loop: loop, socket: socket, idleTimeout: .seconds(30), outputLimit: Self.answersLimit, readsWhileItWrites: false
      ) { [unowned self] in
        guard let query = DNSMessage($1), !query.isResponse else { return $0.close() }
        judge(query, .stream($0))
      } closed: { [unowned self] in
        clients[ObjectIdentifier($0)] = nil
      }
      clients[ObjectIdentifier(client)] = client
    } catch {
      fail("\(error)")
    }
  }

  private func fail(_ sentence: String) {
    if let more = failures.admit(at: monotonicNanoseconds()) { report("dns: \(sentence)\(more)") }
  }

  /// In seconds.
  private var now: UInt64 { monotonicNanoseconds() / 1_000_000_000 }

  private func judge(_ query: DNSMessage, _ client: Client) {
    switch names.with({ $0.judge(query, now: now) }) {
    case .answer(let response):
      used(query, response)
      reply(response, to: client)
    case .denied(let response, let sentence):
      say(sentence)
      reply(response, to: client)
    case .ask(let message): forward(message, for: query, client)
    }
  }

  /// A program that asks again and again must not fill the log.
  private func say(_ sentence: String) {
    if let more = denials.admit(at: monotonicNanoseconds()) { report("dns: \(sentence)\(more)") }
  }

  private func forward(_ asked: DNSMessage, for query: DNSMessage, _ client: Client) {
    guard pending.count < Self.pendingLimit, pendingBytes + query.bytes.count <= Self.pendingBytesLimit else {
      reply(query.errorResponse(code: Self.servfail), to: client)
      return
    }
    while pending[nextID] != nil { nextID &+= 1 }
    let id = nextID
    nextID &+= 1
    pendingBytes += query.bytes.count
    pending[id] = Pending(
      client: client, query: query, deadline: monotonicNanoseconds() &+ Self.queryTimeout.nanoseconds)
    scheduleSweep()
    var message = asked
    message.id = id
    if let upstreams {
      if !upstreams.send(message.bytes) { fail(id) }
    } else if let stream {
      stream.send(message.bytes)
    } else {
      waiting.append(message.bytes)
      openStream()
    }
  }

  private func fail(_ id: UInt16) {
    guard let entry = pending.removeValue(forKey: id) else { return }
    pendingBytes -= entry.query.bytes.count
    reply(entry.query.errorResponse(code: Self.servfail), to: entry.client)
  }

  private func openStream() {
    guard !opening else { return }
    opening = true
    StreamOpening(loop: loop, target: target, hello: Hello(.resolve, token: token), timeout: .seconds(5)) {
      [unowned self] in
      opening = false
      switch $0 {
      case .opened(let socket, _, let early):
        adopt(socket, early)
      case .refused(let status): lost("the host refused to resolve: \(status)")
      case .failed(let sentence): lost(sentence)
      }
    }.start()
  }

  private func adopt(_ socket: FileReference, _ early: [UInt8]) {
    do throws(SystemError) {
      stream = try MessageStream(loop: loop, socket: socket, early: early) { [unowned self] in
        guard !received($1) else { return }
        // The host is not trusted: a stream that carries something else than answers ends.
        report("dns: the host sent something that is not a DNS response")
        $0.close()
      } closed: { [unowned self] _ in
        stream = nil
        lost("the resolve stream to the host was lost")
      }
      let messages = waiting
      waiting = []
      for message in messages { stream?.send(message) }
    } catch {
      lost("\(error)")
    }
  }

  /// Every query under way is answered, so that the program's resolver need not wait for its own time-out.
  private func lost(_ sentence: String) {
    fail(sentence)
    waiting = []
    let failed = pending
    pending = [:]
    pendingBytes = 0
    for entry in failed.values { reply(entry.query.errorResponse(code: Self.servfail), to: entry.client) }
  }

  /// - Returns: false for what is no response.
  private func received(_ bytes: [UInt8]) -> Bool {
    guard let response = DNSMessage(bytes), response.isResponse else { return false }
    guard let entry = pending[response.id], response.answers(entry.query) else { return true }
    pending[response.id] = nil
    pendingBytes -= entry.query.bytes.count
    let review = names.with { $0.review(response, to: entry.query, now: now) }
    if let sentence = review.sentence { say(sentence) }
    used(entry.query, review.response)
    reply(review.response, to: entry.client)
    return true
  }

  /// A name that does not exist is not used: resolvers try names below each domain of `search`.
  private func used(_ query: DNSMessage, _ response: DNSMessage) {
    if let onUse, response.code == 0, let question = query.question, question.networkClass == 1 { onUse(question) }
  }

  private func reply(_ response: DNSMessage, to client: Client) {
    switch client {
    case .datagram(let source, let from, let limit):
      source.send(response.bytes.count <= limit ? response.bytes : response.truncated().bytes, to: from)
    case .stream(let stream):
      stream.send(response.bytes)
    }
  }

  private func scheduleSweep() {
    guard !sweepScheduled else { return }
    sweepScheduled = true
    let sweep = TimerSource { [unowned self] in
      sweepScheduled = false
      let now = monotonicNanoseconds()
      pending = pending.filter { $0.value.deadline > now }
      pendingBytes = pending.values.reduce(0) { $0 + $1.query.bytes.count }
      if !pending.isEmpty { scheduleSweep() }
    }
    loop.schedule(after: .seconds(5), sweep)
  }
}
