import EventLoop
import HostStatus
import LinuxSystem
import Relaying
import Wire

/// The relayed connections of both directions, with the buffer that they share and what they have carried.
final class Connections {
  private let loop: EventLoop
  private let buffer = RelayBuffer()
  private let counters: HostCounters
  private let complaints: ComplaintLog
  private let debug: (String) -> Void
  /// Those under way, for the bytes that they have carried.
  private var relays: [ObjectIdentifier: Relay] = [:]

  /// - Parameter debug: told how each connection ended.
  init(loop: EventLoop, counters: HostCounters, complaints: ComplaintLog, debug: @escaping (String) -> Void) {
    self.loop = loop
    self.counters = counters
    self.complaints = complaints
    self.debug = debug
  }

  /// Joins a client or an endpoint with the enclave's stream.
  /// - Parameters:
  ///   - open: counts it while it lasts.
  ///   - what: names it.
  func relay(
    plain: FileHandle, framed: FileHandle, early: [UInt8], _ open: WritableKeyPath<HostStatus.Traffic, Int>,
    _ what: @autoclosure @escaping () -> String
  ) {
    counters.traffic[keyPath: open] += 1
    // The program's own probes end at the proxy inside; without these nobody would notice a peer that has vanished.
    setKeepAlive(plain.rawValue)
    do throws(SystemError) {
      let made = try Relay(loop: loop, buffer: buffer, plain: plain, framed: framed, early: early) {
        [unowned self] relay, end in
        counters.traffic[keyPath: open] -= 1
        counters.traffic.add(relay.totals)
        relays[ObjectIdentifier(relay)] = nil
        switch end {
        case .completed, .reset, .transportLost:
          debug("\(what()): \(end), \(relay.totals.fromTransport) bytes out, \(relay.totals.toTransport) in")
        case .protocolError(let error):
          complaints.say(.brokenStreams, "\(what()): the enclave broke the protocol: \(error)")
        }
      }
      if !made.ended { relays[ObjectIdentifier(made)] = made }
    } catch {
      counters.traffic[keyPath: open] -= 1
      complaints.say(.failedConnections, "\(what()): \(error)")
    }
  }

  /// Adds what the connections under way have carried so far.
  func add(to traffic: inout HostStatus.Traffic) {
    for relay in relays.values { traffic.add(relay.totals) }
  }
}
