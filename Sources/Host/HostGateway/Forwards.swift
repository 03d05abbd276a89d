import EventLoop
import HostStatus
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying

// Theory of operation.
//
//   out: plain stream of the enclave ▶ its peer ▶ a lease ▶ addresses ▶ policy ▶ connect(2), one address after the other ▶ relay
//   in:  client ▶ a lease ▶ plain stream to the enclave's port ▶ relay
//
// There is no hello and no answer: a stream that cannot be served is closed, a client is reset.

/// `--forward` and `--forward-in`.
final class Forwards {
  private static let timeout: Duration = .seconds(130)
  /// While there is another address to try.
  private static let shortTimeout: Duration = .seconds(5)

  private let loop: EventLoop
  private let place: HostPlace
  private let policy: HostPolicy
  private let resolver: Resolver
  private let connections: Connections
  private let counters: HostCounters
  private let budget: Budget
  private let complaints: ComplaintLog
  private let log: (String) -> Void
  private let debug: (String) -> Void
  private var listeners: [Listener] = []
  private var tallies: [(forward: HostForward, tally: ForwardTally)] = []
  /// nil where this host side may connect to the enclave itself.
  var connector: EnclaveConnector?

  init(
    loop: EventLoop, place: HostPlace, _ forwards: [(HostForward, FileReference)], inherited: InheritedSockets,
    policy: HostPolicy,
    resolver: Resolver, connections: Connections, counters: HostCounters, budget: Budget, complaints: ComplaintLog,
    log: @escaping (String) -> Void, debug: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.place = place
    self.policy = policy
    self.resolver = resolver
    self.connections = connections
    self.counters = counters
    self.budget = budget
    self.complaints = complaints
    self.log = log
    self.debug = debug
    for (forward, socket) in forwards {
      setResetOnClose(socket.rawValue, true)
      let tally = ForwardTally()
      tallies.append((forward, tally))
      let accepted: (FileReference, IPEndpoint?) -> Void
      switch forward.way {
      case .out(let host, let port):
        let destination = ForwardDestination(host, resolver)
        accepted = { [unowned self] stream, _ in fromEnclave(stream, destination, port, forward, tally) }
      case .incoming:
        accepted = { [unowned self] client, from in toEnclave(client, from, forward, tally) }
      }
      listeners.append(
        try Listener(
          loop: loop, socket: socket, isShared: inherited.contains(socket), report: { log("\(forward): \($0)") },
          accepted: accepted))
    }
  }

  /// Accepts nothing from now on, on either side.
  func drain() {
    for listener in listeners { listener.end() }
  }

  // MARK: out

  private func fromEnclave(
    _ stream: FileReference, _ destination: ForwardDestination, _ port: UInt16, _ forward: HostForward,
    _ tally: ForwardTally
  ) {
    guard let peer = place.peers.peer(of: stream) else { return counters.foreigners.refused(log) }
    counters.traffic.outgoing.total &+= 1
    tally.total &+= 1
    guard let lease = budget.lease(.outgoing, for: peer) else {
      counters.traffic.outgoing.failed &+= 1
      tally.failed &+= 1
      return budget.refused(.outgoing, peer)
    }
    destination.look(for: peer) { [unowned self] addresses in
      guard !addresses.isEmpty else {
        counters.traffic.outgoing.failed &+= 1
        tally.failed &+= 1
        return complaints.say(.failedConnections, "\(forward): the name has no address now")
      }
      connect(stream, addresses[...], destination, port, peer, lease, forward, tally)
    }
  }

  private func connect(
    _ stream: FileReference, _ addresses: ArraySlice<IPAddress>, _ destination: ForwardDestination, _ port: UInt16,
    _ peer: PeerKey, _ lease: Budget.Lease, _ forward: HostForward, _ tally: ForwardTally
  ) {
    guard let address = addresses.first else { return }
    let rest = addresses.dropFirst()
    let endpoint = IPEndpoint(address, port)
    let shown = destination.name.map { "\(endpoint) (\($0))" } ?? "\(endpoint)"
    if case .deny(let reason) = policy.egress(to: endpoint, isNamed: destination.name == nil) {
      guard rest.isEmpty else { return connect(stream, rest, destination, port, peer, lease, forward, tally) }
      counters.traffic.outgoing.denied &+= 1
      tally.denied &+= 1
      let sentence = "connection to \(shown) denied: \(reason)"
      complaints.say(.deniedConnections, sentence)
      return counters.denied(sentence, isHost: true)
    }
    PlainConnecting(
      loop: loop, address: .ip(endpoint), timeout: rest.isEmpty ? Self.timeout : Self.shortTimeout
    ) { [unowned self] _, result in
      switch result {
      case .success(let connection):
        counters.used.add(.init(endpoint, destination.name))
        connections.relay(
          plain: connection, other: stream, lease, of: peer, \.outgoing.open, tally,
          "\(forward): connection to \(shown)")
      case .failure(let error):
        guard rest.isEmpty else { return connect(stream, rest, destination, port, peer, lease, forward, tally) }
        counters.traffic.outgoing.failed &+= 1
        tally.failed &+= 1
        let sentence = "\(forward): connection to \(shown): \(error)"
        if error.isExhaustion { complaints.say(.failedConnections, sentence) } else { debug(sentence) }
      }
    }.start()
  }

  // MARK: in

  private func toEnclave(
    _ client: FileReference, _ from: IPEndpoint?, _ forward: HostForward, _ tally: ForwardTally
  ) {
    counters.traffic.incoming.total &+= 1
    tally.total &+= 1
    let peer = place.peers.enclave
    let port = forward.vsockPort
    guard let lease = budget.lease(.incoming, for: peer), let target = place.enclave.atPort(port) else {
      counters.traffic.incoming.failed &+= 1
      tally.failed &+= 1
      return budget.refused(.incoming, peer)
    }
    // Not by Optional.map, over which the compiler (6.3.1) ends.
    var connect: (() throws(SystemError) -> FileReference)?
    if let connector {
      let bytes = EnclaveConnector.bytes(of: port)
      connect = { () throws(SystemError) in try connector.connect(bytes) }
    }
    PlainOpening(loop: loop, target: target, connect: connect) { [unowned self] result in
      let what = "client \(from?.description ?? "?") of \(forward)"
      switch result {
      case .success(let stream):
        connections.relay(plain: client, other: stream, lease, of: peer, \.incoming.open, tally, what)
      case .failure(let failure):
        counters.traffic.incoming.failed &+= 1
        tally.failed &+= 1
        complaints.say(.lostClients, "\(what): \(failure)")
      }
    }.start()
  }

  func write(to status: inout HostStatus) {
    guard !tallies.isEmpty else { return }
    status.forwards = tallies.map { forward, tally in
      var shown: HostStatus.Forward
      switch forward.way {
      case .out(let host, let port):
        shown = .init(way: "out", vsockPort: forward.vsockPort, address: "\(host.bracketed):\(port)")
      case .incoming(let listen): shown = .init(way: "in", vsockPort: forward.vsockPort, address: "\(listen)")
      }
      tally.write(to: &shown)
      return shown
    }
  }
}
