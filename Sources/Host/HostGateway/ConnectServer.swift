import EventLoop
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Wire

/// Connections of the program to the outside: the policy is asked, then connect(2), the answer, and a relay.
final class ConnectServer: ChannelServer {
  private let loop: EventLoop
  private let policy: HostPolicy
  private let connections: Connections
  private let timeout: Duration
  private let counters: HostCounters
  private let budget: Budget
  private let complaints: ComplaintLog
  private let debug: (String) -> Void
  /// No connection is made any more.
  var isDraining = false

  init(
    loop: EventLoop, policy: HostPolicy, connections: Connections, timeout: Duration, counters: HostCounters,
    budget: Budget,
    complaints: ComplaintLog,
    debug: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.policy = policy
    self.connections = connections
    self.timeout = timeout
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.debug = debug
  }

  func serve(_ admitted: AdmittedStream) throws {
    let request = try ConnectRequest(parameters: admitted.hello.parameters)
    counters.traffic.outgoing.total &+= 1
    guard case .endpoint(let destination) = request.destination else {
      counters.traffic.outgoing.failed &+= 1
      return admitted.answer(.badRequest)
    }
    if case .deny(let reason) = policy.egress(to: destination) {
      counters.traffic.outgoing.denied &+= 1
      let sentence = "connection to \(request.target) denied: \(reason)"
      complaints.say(.deniedConnections, sentence)
      counters.denied(sentence, isHost: true)
      return admitted.answer(.denied)
    }
    guard !isDraining else {
      counters.traffic.outgoing.failed &+= 1
      return admitted.answer(.refused)
    }
    counters.used.add(.init(destination, request.name))
    guard let lease = budget.lease(.outgoing, for: admitted.peer) else {
      counters.traffic.outgoing.failed &+= 1
      budget.refused(.outgoing, admitted.peer)
      return admitted.answer(.noResources)
    }
    PlainConnecting(loop: loop, address: .ip(destination), timeout: timeout) { [unowned self] _, result in
      switch result {
      case .success(let endpoint):
        admitted.answer(.ok)
        connections.relay(
          plain: endpoint, framed: admitted.stream, early: admitted.early, lease, of: admitted.peer, \.outgoing.open,
          "connection to \(request.target)")
      case .failure(let error):
        counters.traffic.outgoing.failed &+= 1
        let sentence = "connection to \(request.target): \(error)"
        if error.isExhaustion { complaints.say(.failedConnections, sentence) } else { debug(sentence) }
        admitted.answer(Status(errno: error.errno))
      }
    }.start()
  }
}
