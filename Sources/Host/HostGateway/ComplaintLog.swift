import EventLoop
import LinuxSystem
import LogText

/// What the other side can make us say, as often as it likes.
enum Complaint: String {
  case brokenHellos = "streams that began with no hello"
  case refusedRequests = "requests of the enclave refused"
  case deniedConnections = "connections denied"
  case deniedNames = "names denied"
  case failedConnections = "connections that failed here"
  case brokenSessions = "sessions that broke the protocol"
  case tooManyBoots = "boots for which there was no room"
  case givenAddresses = "addresses given"
  case brokenStreams = "streams that broke the protocol"
  case overLimit = "things that an enclave may not have so many of"
  case lostClients = "clients that did not reach the enclave"
}

/// Sentences that somebody foreign causes: the first few of each kind in ten seconds, and then how many there were.
final class ComplaintLog: EventSource {
  private let loop: EventLoop
  private let log: (String) -> Void
  private var complaints = Complaints<Complaint>()
  private var isScheduled = false

  init(loop: EventLoop, log: @escaping (String) -> Void) {
    self.loop = loop
    self.log = log
  }

  func say(_ kind: Complaint, _ sentence: @autoclosure () -> String) {
    let now = monotonicNanoseconds()
    end(now)
    if complaints.admits(kind, at: now) { log(sentence()) } else { schedule(now) }
  }

  /// Says what is still to be counted.
  func finish() { end(.max) }

  private func end(_ now: UInt64) {
    for remainder in complaints.end(at: now) { log("\(remainder.kind.rawValue): \(remainder.sentence)") }
  }

  private func schedule(_ now: UInt64) {
    guard !isScheduled, let due = complaints.due else { return }
    isScheduled = true
    loop.schedule(after: .nanoseconds(Int64(clamping: due &- now)), self)
  }

  override func timerFired(_ key: Int) {
    isScheduled = false
    let now = monotonicNanoseconds()
    end(now)
    schedule(now)
  }
}
