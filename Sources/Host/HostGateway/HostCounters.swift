import HostStatus
import Relaying

/// Everything that a host side counts, in one place. The servers write into it; `HostStatus` shows it.
final class HostCounters {
  /// Connections that have ended; those under way count for themselves (`Connections`).
  var traffic = HostStatus.Traffic()
  var names = HostStatus.Names()
  var foreigners = Strangers(what: "a stream of somebody else than the enclave")
  var strangers = Strangers(what: "a stream that does not prove that it belongs to the enclave's boot")
  var impostors = Strangers(what: "a session that is not this boot's own")

  /// What was refused because there was too much of it, by kind (`Holding`).
  var overLimit: [String: UInt64] = [:]

  /// Streams that were not the enclave's.
  var refused: UInt64 { foreigners.count &+ strangers.count &+ impostors.count }

  func write(to status: inout HostStatus) {
    status.refused = refused
    status.overLimit = overLimit.isEmpty ? nil : overLimit
    status.traffic = traffic
    status.names = names
  }
}

extension HostStatus.Traffic {
  mutating func add(_ totals: Relay.Totals) {
    bytesFromEnclave &+= totals.fromTransport
    bytesToEnclave &+= totals.toTransport
  }
}
