import HostStatus
import LogText
import Policy
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

  /// What the enclave uses, and what either side has denied it.
  var used = BoundedCounts<FirstUses.Use>(limit: destinationLimit)
  var denied = BoundedCounts<Denied>(limit: destinationLimit)
  /// In `tombolo status`; what comes behind them is counted together.
  private static let destinationLimit = 128

  struct Denied: Hashable {
    var subject: Sighting.Subject
    /// Which side has refused it.
    var isHost: Bool
    var reason: String
  }

  /// Streams that were not the enclave's.
  var refused: UInt64 { foreigners.count &+ strangers.count &+ impostors.count }

  func write(to status: inout HostStatus) {
    status.refused = refused
    status.overLimit = overLimit.isEmpty ? nil : overLimit
    status.traffic = traffic
    status.names = names
    status.used = Self.list(used) { .init(destination: Sighting.Subject($0).description, count: $1) }
    status.denied = Self.list(denied) {
      .init(destination: "\($0.subject)", count: $1, side: $0.isHost ? "host" : "enclave", reason: $0.reason)
    }
  }

  private static func list<Key>(
    _ counts: BoundedCounts<Key>, _ entry: (Key, UInt64) -> HostStatus.Destination
  ) -> HostStatus.Destinations? {
    counts.isEmpty ? nil : .init(counts.counts.map { entry($0.key, $0.value) }, others: counts.others)
  }

  /// - Parameter sentence: as it is in the log.
  func denied(_ sentence: String, isHost: Bool) {
    guard let sighting = Sighting(sentence), !sighting.isAllowed else { return }
    denied.add(Denied(subject: sighting.subject, isHost: isHost, reason: sighting.reason))
    denied.addOthers(sighting.more)
  }
}

extension HostStatus.Traffic {
  mutating func add(_ totals: Relay.Totals) {
    bytesFromEnclave &+= totals.fromTransport
    bytesToEnclave &+= totals.toTransport
  }
}
