import CLinux
import DNS
import EventLoop
import HostStatus
import Inet
import LinuxSystem
import LogText
import NameService
import Policy
import Relaying

/// Asks the host's resolvers on behalf of an enclave: each query over UDP from a port of its own with an id of its
/// own, then over TCP where the answer was cut (RFC 7766).
final class Resolver {
  private let loop: EventLoop
  private let configuration: () -> ResolverConfiguration
  private let counters: HostCounters
  private let policy: HostPolicy
  private let budget: Budget
  private let complaints: ComplaintLog

  /// - Parameter configuration: asked for every query, so that a changed resolv.conf counts at once.
  init(
    loop: EventLoop, policy: HostPolicy, counters: HostCounters, budget: Budget, complaints: ComplaintLog,
    configuration: @escaping () -> ResolverConfiguration
  ) {
    self.loop = loop
    self.policy = policy
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.configuration = configuration
  }

  /// - Parameter peer: whose query it is.
  func resolve(_ query: DNSMessage, for peer: PeerKey, reply: @escaping (DNSMessage) -> Void) {
    counters.names.queries &+= 1
    switch policy.judge(query) {
    case .answer(let response): reply(response)
    case .denied(let response, let sentence):
      complaints.say(.deniedNames, "name: \(sentence)")
      counters.denied("name: \(sentence)", isHost: true)
      reply(response)
    case .ask(let message): ask(message, for: query, of: peer, reply)
    }
  }

  private func ask(
    _ message: DNSMessage, for query: DNSMessage, of peer: PeerKey, _ reply: @escaping (DNSMessage) -> Void
  ) {
    guard let lease = budget.lease(.queries, bytes: query.bytes.count, for: peer) else {
      budget.refused(.queries, peer)
      counters.names.failed &+= 1
      reply(query.errorResponse(code: 2))
      return
    }
    counters.names.underway += 1
    UpstreamQuery(loop: loop, configuration: configuration(), query: message) { [unowned self, lease] response in
      _ = lease
      counters.names.underway -= 1
      guard let response else {
        counters.names.failed &+= 1
        return reply(query.errorResponse(code: 2))
      }
      let review = policy.review(response, to: query)
      if let sentence = review.sentence { complaints.say(.deniedNames, "name: \(sentence)") }
      if review.response.code == 0, let question = query.question { counters.used.add(.query(question.domain)) }
      reply(review.response)
    }.start()
  }
}

/// One query, through its attempts.
final class UpstreamQuery: EventSource {
  private let loop: EventLoop
  private let configuration: ResolverConfiguration
  private let query: DNSMessage
  private var message: DNSMessage
  private let completion: (DNSMessage?) -> Void
  private var attempt = 0
  private var socket: FileReference?
  private var registration: Registration?
  private var timer: TimerToken?
  private var stream: MessageStream?
  private var connecting: PlainConnecting?
  private var done = false

  init(
    loop: EventLoop, configuration: ResolverConfiguration, query: DNSMessage,
    completion: @escaping (DNSMessage?) -> Void
  ) {
    self.loop = loop
    self.configuration = configuration
    self.query = query
    self.completion = completion
    message = query
  }

  func start() { nextAttempt() }

  private var server: IPEndpoint { configuration.servers[attempt % configuration.servers.count] }

  private func nextAttempt() {
    closeAttempt()
    guard !configuration.servers.isEmpty, attempt < configuration.attempts * configuration.servers.count else {
      finish(nil)
      return
    }
    message.id = UInt16.random(in: .min ... .max)
    do throws(SystemError) {
      let made = FileReference(try connectDatagram(server))
      socket = made
      registration = try loop.add(made.rawValue, [.readable], self)
      timer = loop.schedule(after: .seconds(configuration.timeout), self)
      if case .failed = sendDatagram(made.rawValue, message.bytes, to: nil) { failAttempt() }
    } catch {
      failAttempt()
    }
  }

  private func failAttempt() {
    attempt += 1
    nextAttempt()
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard let socket, !done else { return }
    let (result, bytes) = readChunk(socket.rawValue, limit: 65536)
    switch result {
    case .bytes:
      guard let response = accept(bytes) else { return }
      if response.isTruncated {
        askOverTCP()
      } else {
        finish(response)
      }
    case .wouldBlock: break
    // A port that answers "unreachable": the next server, at once.
    case .failed: failAttempt()
    }
  }

  /// A response to this very query, or nil: forged and late ones are passed over.
  private func accept(_ bytes: [UInt8]) -> DNSMessage? {
    guard let response = DNSMessage(bytes), response.isResponse, response.id == message.id,
      response.hasQuestion(of: query)
    else { return nil }
    return response
  }

  private func askOverTCP() {
    closeAttempt()
    timer = loop.schedule(after: .seconds(configuration.timeout), self)
    let attempt = PlainConnecting(
      loop: loop, address: .ip(server), timeout: .seconds(configuration.timeout)
    ) { [unowned self] _, result in
      self.connecting = nil
      switch result {
      case .success(let socket): ask(over: socket)
      case .failure: failAttempt()
      }
    }
    connecting = attempt
    attempt.start()
  }

  private func ask(over socket: FileReference) {
    do throws(SystemError) {
      let made = try MessageStream(loop: loop, socket: socket) { [weak self] _, bytes in
        guard let self, let response = accept(bytes) else { return }
        finish(response)
      } closed: { [weak self] closed in
        guard let self, !done, stream === closed else { return }
        stream = nil
        failAttempt()
      }
      stream = made
      made.send(message.bytes)
    } catch {
      failAttempt()
    }
  }

  override func timerFired(_ key: Int) { failAttempt() }

  private func closeAttempt() {
    if let registration { loop.remove(registration) }
    if let timer { loop.cancel(timer) }
    registration = nil
    timer = nil
    socket = nil
    connecting?.cancel()
    connecting = nil
    let old = stream
    stream = nil
    old?.close()
  }

  private func finish(_ response: DNSMessage?) {
    guard !done else { return }
    done = true
    closeAttempt()
    var answer = response
    answer?.id = query.id
    completion(answer)
  }
}

/// The host's resolver: the server that was named, or the machine's own resolv.conf as it is at that moment.
public func resolverConfiguration(_ nameServer: IPAddress?) -> () -> ResolverConfiguration {
  if let nameServer {
    let fixed = ResolverConfiguration(servers: [IPEndpoint(nameServer, 53)])
    return { fixed }
  }
  let path = "/etc/resolv.conf"
  var known: (stamp: FileStamp?, configuration: ResolverConfiguration)?
  return {
    // Before it is read: should it change in between, it is read again.
    let stamp = FileStamp(path)
    if let known, known.stamp == stamp { return known.configuration }
    let read = ResolverConfiguration(resolvConf: (try? readText(path, limit: 65536)) ?? "")
    known = (stamp, read)
    return read
  }
}
