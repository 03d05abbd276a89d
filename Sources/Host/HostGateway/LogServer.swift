import EventLoop
import LinuxSystem
import Relaying
import Wire

/// The home of the logs: records to the sinks, acknowledgements back.
final class LogServer: ChannelServer {
  private let loop: EventLoop
  private let complaints: ComplaintLog
  /// Whether the lines say which enclave they are of.
  private let labels: Bool
  private let denials: EnclaveDenials
  private var sinks: LogSinks!
  private var receivers: [LogReceiver] = []
  /// Of each enclave the boot that was admitted last.
  private var positions: [PeerKey: (boot: BootID, position: LogPosition)] = [:]

  /// The program's exit status, as a record of the log.
  var onExit: ((UInt8) -> Void)?
  var onStreamClosed: (() -> Void)?

  /// - Parameter keepsUnwritten: as `LogSinks` has it.
  init(
    loop: EventLoop, sinks: [any LogSink], keepsUnwritten: Bool, labels: Bool, counters: HostCounters,
    complaints: ComplaintLog
  ) {
    denials = EnclaveDenials(counters)
    self.loop = loop
    self.complaints = complaints
    self.labels = labels
    self.sinks = LogSinks(sinks, keepsUnwritten: keepsUnwritten) { [unowned self] in
      for receiver in receivers { loop.enqueue(receiver) }
    }
  }

  var isConnected: Bool { !receivers.isEmpty }
  var isDelivered: Bool { sinks.isEmpty && receivers.isEmpty }

  func serve(_ admitted: AdmittedStream) throws {
    let known = positions[admitted.peer].flatMap { $0.boot == admitted.boot ? $0.position : nil }
    let position = known ?? LogPosition()
    position.advance(to: sinks.acknowledged)
    if positions.count >= BootAdmission.limit {
      positions = positions.filter { known in receivers.contains { $0.position === known.value.position } }
    }
    positions[admitted.peer] = (admitted.boot, position)
    // A boot has one log. It opens another stream when it has lost the one before, which we may not know yet.
    for old in receivers where old.position === position { old.close(nil) }
    var last: [UInt8] = []
    last.append(integer: position.acknowledged)
    admitted.answer(.ok, parameters: last)
    receivers.append(
      try LogReceiver(
        loop: loop, stream: admitted.stream, early: admitted.early, position: position, sinks: sinks,
        label: labels ? "\(admitted.peer)/" : "", denials: denials
      ) { [unowned self] in
        onExit?($0)
      } closed: { [unowned self] receiver, problem in
        if let problem { complaints.say(.brokenStreams, problem) }
        receivers.removeAll { $0 === receiver }
        onStreamClosed?()
      })
  }
}
