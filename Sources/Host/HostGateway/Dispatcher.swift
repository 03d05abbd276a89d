import EventLoop
import HostNetwork
import LinuxSystem
import Relaying
import Wire

/// A stream that has been admitted: whose it is, and what it asks for.
struct AdmittedStream {
  var stream: FileReference
  var hello: Hello
  /// Bytes that came with the hello.
  var early: [UInt8]
  var peer: PeerKey
  var boot: BootID

  func answer(_ status: Status, parameters: [UInt8] = []) {
    Relaying.answer(stream, Answer(status, parameters: parameters))
  }
}

/// What serves the streams of one channel.
protocol ChannelServer: AnyObject {
  /// Answers the stream and keeps it as long as it needs it.
  /// - Throws: where there is no answer yet; the error says which it is to be.
  func serve(_ admitted: AdmittedStream) throws
}

/// Admits streams of enclaves: who is at the other end, what it says first, whether it proves that it belongs to the boot.
/// Then they are their channel's server's.
final class Dispatcher {
  private let loop: EventLoop
  private let peers: PeerRule
  private let sessions: SessionServer
  private let servers: [Channel: any ChannelServer]
  private let counters: HostCounters
  private let budget: Budget
  private var halfOpen: [PeerKey: HalfOpenStreams] = [:]
  private let complaints: ComplaintLog
  private let helloTimeout: Duration
  private let log: (String) -> Void

  init(
    loop: EventLoop, peers: PeerRule, sessions: SessionServer, servers: [Channel: any ChannelServer],
    counters: HostCounters, budget: Budget, complaints: ComplaintLog,
    helloTimeout: Duration = StreamServing.timeout, log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.peers = peers
    self.sessions = sessions
    self.servers = servers
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.helloTimeout = helloTimeout
    self.log = log
  }

  func accept(_ stream: FileReference) {
    guard let peer = peers.peer(of: stream) else { return counters.foreigners.refused(log) }
    accept(stream, from: peer)
  }

  func accept(_ stream: FileReference, from peer: PeerKey) {
    guard let lease = helloLease(peer) else { return budget.refused(.hellos, peer) }
    do throws(SystemError) {
      let number = halfOpen[peer, default: HalfOpenStreams()].next
      let serving = try StreamServing(loop: loop, stream: stream, timeout: helloTimeout) { [unowned self] _, outcome in
        // From here on it is counted as what it asks for.
        withExtendedLifetime(lease) { forget(number, peer) }
        switch outcome {
        case .hello(let stream, let hello, let early): serve(stream, hello, early, peer)
        case .failed(let sentence): complaints.say(.brokenHellos, "a stream from the enclave: \(sentence)")
        case .probed: break
        }
      }
      halfOpen[peer, default: HalfOpenStreams()].add(serving)
    } catch {
      complaints.say(.failedConnections, "a stream from the enclave: \(error)")
    }
  }

  /// Streams of the enclave's own say what they are at once. So where there are too many that do not, the one that has been
  /// silent longest goes.
  private func helloLease(_ peer: PeerKey) -> Budget.Lease? {
    if let lease = budget.lease(.hellos, for: peer) { return lease }
    guard halfOpen[peer]?.removeOldest() == true else { return nil }
    budget.refused(.hellos, peer)
    return budget.lease(.hellos, for: peer)
  }

  private func forget(_ number: UInt64, _ peer: PeerKey) {
    halfOpen[peer]?.remove(number)
    if halfOpen[peer]?.isEmpty == true { halfOpen[peer] = nil }
  }

  private func serve(_ stream: FileReference, _ hello: Hello, _ early: [UInt8], _ peer: PeerKey) {
    do {
      if hello.channel == .session { return try sessions.serve(stream, hello, early, from: peer) }
      guard let boot = sessions.check(stream, hello, from: peer) else { return }
      guard let server = servers[hello.channel] else { return answer(stream, Answer(.unsupported)) }
      try server.serve(AdmittedStream(stream: stream, hello: hello, early: early, peer: peer, boot: boot))
    } catch {
      complaints.say(.refusedRequests, "a \(hello.channel) stream from the enclave: \(error)")
      answer(stream, Answer(error is WireError ? .badRequest : error is RawGatewayError ? .denied : .noResources))
    }
  }
}
