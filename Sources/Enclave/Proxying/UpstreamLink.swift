import EventLoop
import LinuxSystem
import Policy
import Relaying
import Roles
import Wire

/// The proxy's end of the pair to the DNS client: gives it queries and connections, takes responses.
final class UpstreamLink {
  /// Connections at a time, one for each server: more than there are would be the wish of a client that was taken over.
  private static let connectionLimit = UpstreamServer.limit * 2
  /// Longer than the client waits.
  private static let connectTimeout: Duration = .seconds(10)

  /// What it calls; set before the loop runs.
  struct Calls {
    /// A response, or something else.
    var received: ([UInt8]) -> Void
    /// What was asked for before is lost.
    var restarted: () -> Void
  }

  private let loop: EventLoop
  private let link: MessageLink
  private let servers: [UpstreamServer]
  private let target: StreamTarget
  private let token: Token
  private let report: (String) -> Void
  private let buffer: RelayBuffer
  private var connections = 0
  var calls = Calls(received: { _ in }, restarted: {})

  init(
    loop: EventLoop, socket: FileReference, servers: [UpstreamServer], target: StreamTarget, token: Token,
    buffer: RelayBuffer, report: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    link = try MessageLink(loop: loop, socket: socket, longest: UpstreamMessage.limit)
    self.servers = servers
    self.target = target
    self.token = token
    self.buffer = buffer
    self.report = report
    link.received = { [unowned self] bytes, _ in received(bytes) }
  }

  /// - Returns: false where the client does not take it: too many wait for it already.
  func send(_ query: [UInt8]) -> Bool { link.send(UpstreamMessage.message(query).bytes) }

  private func received(_ bytes: [UInt8]) {
    switch UpstreamMessage(bytes) {
    case .message(let response): calls.received(response)
    case .connect(let server): connect(server)
    case .started: calls.restarted()
    case .connection, .refusal, nil: report("dns: the DNS client sent something that is no message of its own")
    }
  }

  /// Only to the servers that the configuration names: the measured key is the rule that allows it, and to nobody else.
  private func connect(_ number: UInt8) {
    guard servers.indices.contains(Int(number)), connections < Self.connectionLimit else {
      return refuse(number, "no more connections to name servers")
    }
    connections += 1
    let request = ConnectRequest(.endpoint(servers[Int(number)].endpoint))
    StreamOpening(
      loop: loop, target: target, hello: request.hello.proven(by: token), timeout: Self.connectTimeout
    ) { [unowned self] outcome in
      switch outcome {
      case .opened(let stream, _, let early): join(number, stream, early)
      case .refused(let status): end(number, "\(status)")
      case .failed(let sentence): end(number, sentence)
      }
    }.start()
  }

  private func join(_ number: UInt8, _ stream: FileReference, _ early: [UInt8]) {
    do throws(SystemError) {
      let (own, other) = try makeSocketPair()
      try own.descriptor.setNonblocking()
      try other.descriptor.setNonblocking()
      _ = try Relay(loop: loop, buffer: buffer, plain: own, framed: stream, early: early) { [unowned self] _, _ in
        connections -= 1
      }
      // Where the client does not take it, the pair ends with this.
      link.send(UpstreamMessage.connection(server: number).bytes, passing: other)
    } catch {
      end(number, "\(error)")
    }
  }

  private func end(_ number: UInt8, _ reason: String) {
    connections -= 1
    refuse(number, reason)
  }

  private func refuse(_ number: UInt8, _ reason: String) {
    link.send(UpstreamMessage.refusal(server: number, reason: reason).bytes)
  }
}
