import EventLoop
import HostStatus
import LinuxSystem
import Policy
import Relaying
import Wire

/// The relayed connections of both directions, with the buffer that they share and what they have carried.
final class Connections {
  private let loop: EventLoop
  private let buffer = RelayBuffer()
  private let limits: HostLimits
  private let timeouts: RelayTimeouts?
  private var pressures: [PeerKey: RelayPressure] = [:]
  private let counters: HostCounters
  private let complaints: ComplaintLog
  private let debug: (String) -> Void
  /// Those under way, for the bytes that they have carried.
  private let relays = OpenRelays()

  /// - Parameter debug: told how each connection ended.
  init(
    loop: EventLoop, limits: HostLimits, times: ConnectionLimits, counters: HostCounters, complaints: ComplaintLog,
    debug: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.limits = limits
    timeouts = RelayTimeouts(idle: times.idle, halfClosed: times.halfClosed)
    self.counters = counters
    self.complaints = complaints
    self.debug = debug
  }

  /// Joins a client or an endpoint with the enclave's stream.
  /// - Parameters:
  ///   - lease: held as long as the connection's descriptors.
  ///   - open: counts it while it lasts.
  ///   - what: names it.
  func relay(
    plain: FileReference, framed: FileReference, early: [UInt8], _ lease: Budget.Lease, of peer: PeerKey,
    _ open: WritableKeyPath<HostStatus.Traffic, Int>,
    _ what: @autoclosure @escaping () -> String
  ) {
    carry(plain, lease, open, nil, what()) { [loop, buffer, timeouts] (ended) throws(SystemError) in
      try Relay(
        loop: loop, buffer: buffer, plain: plain, framed: framed, early: early, pressure: pressure(of: peer),
        timeouts: timeouts, onEnd: ended)
    }
  }

  /// The same where the enclave's stream is a plain one.
  /// - Parameter tally: counts it for its forward.
  func relay(
    plain: FileReference, other: FileReference, _ lease: Budget.Lease, of peer: PeerKey,
    _ open: WritableKeyPath<HostStatus.Traffic, Int>, _ tally: ForwardTally, _ what: @autoclosure @escaping () -> String
  ) {
    carry(plain, lease, open, tally, what()) { [loop, buffer, timeouts] (ended) throws(SystemError) in
      try Relay(
        loop: loop, buffer: buffer, plain: plain, other: other, pressure: pressure(of: peer), timeouts: timeouts,
        silenceIsReset: true, onEnd: ended)
    }
  }

  private func carry(
    _ plain: FileReference, _ lease: Budget.Lease, _ open: WritableKeyPath<HostStatus.Traffic, Int>,
    _ tally: ForwardTally?, _ what: @autoclosure @escaping () -> String,
    _ make: (@escaping (Relay, Relay.End) -> Void) throws(SystemError) -> Relay
  ) {
    counters.traffic[keyPath: open] += 1
    // The program's own probes end at the proxy inside; without these nobody would notice a peer that has vanished.
    setKeepAlive(plain.rawValue)
    do throws(SystemError) {
      let made = try make { [unowned self, lease] relay, end in
        _ = lease
        counters.traffic[keyPath: open] -= 1
        counters.traffic.add(relay.totals)
        relays.remove(relay)
        tally?.ended(relay)
        switch end {
        case .completed, .reset, .transportLost:
          debug("\(what()): \(end), \(relay.totals.fromTransport) bytes out, \(relay.totals.toTransport) in")
        case .protocolError(let error):
          complaints.say(.brokenStreams, "\(what()): the enclave broke the protocol: \(error)")
        }
      }
      relays.add(made)
      tally?.relays.add(made)
    } catch {
      counters.traffic[keyPath: open] -= 1
      complaints.say(.failedConnections, "\(what()): \(error)")
    }
  }

  private func pressure(of peer: PeerKey) -> RelayPressure {
    if let known = pressures[peer] { return known }
    if pressures.count >= BootAdmission.limit { pressures = pressures.filter { $0.value.held > 0 } }
    let made = RelayPressure(limit: limits.connectionBytes)
    pressures[peer] = made
    return made
  }

  /// Adds what the connections under way have carried so far.
  func add(to traffic: inout HostStatus.Traffic) {
    relays.forEach { traffic.add($0.totals) }
  }

  /// Resets all of them.
  func abort() { relays.abort() }
}

/// What has passed by one forward.
final class ForwardTally {
  let relays = OpenRelays()
  var total: UInt64 = 0
  var failed: UInt64 = 0
  var denied: UInt64 = 0
  private var fromEnclave: UInt64 = 0
  private var toEnclave: UInt64 = 0

  func ended(_ relay: Relay) {
    relays.remove(relay)
    fromEnclave &+= relay.totals.fromTransport
    toEnclave &+= relay.totals.toTransport
  }

  func write(to forward: inout HostStatus.Forward) {
    forward.open = relays.count
    (forward.total, forward.failed, forward.denied) = (total, failed, denied)
    (forward.bytesFromEnclave, forward.bytesToEnclave) = (fromEnclave, toEnclave)
    relays.forEach {
      forward.bytesFromEnclave &+= $0.totals.fromTransport
      forward.bytesToEnclave &+= $0.totals.toTransport
    }
  }
}
