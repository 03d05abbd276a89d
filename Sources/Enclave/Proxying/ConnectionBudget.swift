import LinuxSystem
import Policy

/// Gives out connections; one that is too many is refused, and nothing stops to accept.
final class ConnectionBudget {
  typealias Direction = ConnectionLedger.Direction

  /// One that is held; given back when this object goes.
  final class Lease {
    private let budget: ConnectionBudget
    private let direction: Direction

    fileprivate init(_ budget: ConnectionBudget, _ direction: Direction) {
      self.budget = budget
      self.direction = direction
    }

    deinit { budget.ledger.giveBack(direction) }
  }

  private var ledger: ConnectionLedger
  private var refusals = DenialBudget("were refused")
  private let log: (String) -> Void

  init(_ limits: ConnectionLimits, log: @escaping (String) -> Void) {
    let openFiles = openFilesLimit()
    ledger = ConnectionLedger(limits, openFiles: openFiles)
    self.log = log
    let wanted = max(limits.outgoing ?? 0, limits.incoming ?? 0)
    let most = ConnectionLedger.most(openFiles: openFiles)
    if wanted > most {
      log(
        "\(wanted) connections are more than there are descriptors for: about \(most) of one direction, because the proxy may"
          + " have \(openFiles) files open (RLIMIT_NOFILE) and could not be given more")
    }
  }

  /// nil where there are too many, which is said.
  func lease(_ direction: Direction) -> Lease? {
    guard let bound = ledger.take(direction) else { return Lease(self, direction) }
    if let more = refusals.admit(at: monotonicNanoseconds()) {
      let (key, way) = direction == .outgoing ? ("network.max_outgoing", "out") : ("network.max_incoming", "in")
      let reason =
        switch bound {
        case .limit(let limit): "\(key) is \(limit)"
        case .openFiles(let count): "the proxy may have \(count) files open (RLIMIT_NOFILE)"
        }
      log("a connection \(way) was refused: there are \(ledger.count(direction)), and \(reason)\(more)")
    }
    return nil
  }
}
