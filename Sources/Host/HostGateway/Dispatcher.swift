import EventLoop
import HostNetwork
import LinuxSystem
import Relaying
import Wire

/// A stream that has been admitted: whose it is, and what it asks for.
struct AdmittedStream {
  var stream: FileHandle
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
  private let complaints: ComplaintLog
  private let log: (String) -> Void

  init(
    loop: EventLoop, peers: PeerRule, sessions: SessionServer, servers: [Channel: any ChannelServer],
    counters: HostCounters, complaints: ComplaintLog, log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.peers = peers
    self.sessions = sessions
    self.servers = servers
    self.counters = counters
    self.complaints = complaints
    self.log = log
  }

  func accept(_ stream: FileHandle) {
    guard let peer = peers.peer(of: stream) else { return counters.foreigners.refused(log) }
    do throws(SystemError) {
      _ = try StreamServing(loop: loop, stream: stream) { [unowned self] _, outcome in
        switch outcome {
        case .hello(let stream, let hello, let early): serve(stream, hello, early, peer)
        case .failed(let sentence): complaints.say(.brokenHellos, "a stream from the enclave: \(sentence)")
        case .probed: break
        }
      }
    } catch {
      complaints.say(.failedConnections, "a stream from the enclave: \(error)")
    }
  }

  private func serve(_ stream: FileHandle, _ hello: Hello, _ early: [UInt8], _ peer: PeerKey) {
    do {
      if hello.channel == .session { return try sessions.serve(stream, hello, early, from: peer) }
      guard let boot = sessions.check(stream, hello, from: peer) else { return }
      guard let server = servers[hello.channel] else { return answer(stream, Answer(.unsupported)) }
      try server.serve(AdmittedStream(stream: stream, hello: hello, early: early, peer: peer, boot: boot))
    } catch {
      complaints.say(.refusedRequests, "a \(hello.channel) stream from the enclave: \(error)")
      answer(stream, Answer(error is WireError ? .badRequest : error is HostTunnelError ? .denied : .noResources))
    }
  }
}
