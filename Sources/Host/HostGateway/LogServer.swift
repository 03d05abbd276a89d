import EventLoop
import LinuxSystem
import LogText
import Relaying
import Wire

/// The home of the logs: records to the sink, acknowledgements back.
final class LogServer: ChannelServer {
  private let loop: EventLoop
  private let complaints: ComplaintLog
  /// Whether the lines say which enclave they are of.
  private let labels: Bool
  private var sink: LogSink!
  private var receivers: [LogReceiver] = []
  /// Of each enclave the boot that was admitted last.
  private var positions: [PeerKey: (boot: BootID, position: LogPosition)] = [:]

  /// The program's exit status, as a record of the log.
  var onExit: ((UInt8) -> Void)?
  /// The sink takes no more; with EPIPE its reader has gone.
  var onOutputLost: ((SystemError) -> Void)?
  var onStreamClosed: (() -> Void)?

  /// - Parameter waitsForRoom: keeps the log while the disk it goes to is full, instead of calling that its loss.
  init(
    loop: EventLoop, format: LogFormat, waitsForRoom: Bool, labels: Bool, complaints: ComplaintLog,
    log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.complaints = complaints
    self.labels = labels
    let stalled: ((Int32) -> Void)? =
      waitsForRoom ? { log("the log waits: \(SystemError("write", "standard output", errno: $0))") } : nil
    sink = LogSink(loop: loop, format: format, stalled: stalled) { [unowned self] in
      for receiver in receivers { loop.enqueue(receiver) }
    } lost: { [unowned self] in
      onOutputLost?($0)
    }
  }

  var isConnected: Bool { !receivers.isEmpty }
  var isDelivered: Bool { sink.isEmpty && receivers.isEmpty }

  func serve(_ admitted: AdmittedStream) throws {
    let known = positions[admitted.peer].flatMap { $0.boot == admitted.boot ? $0.position : nil }
    let position = known ?? LogPosition()
    positions[admitted.peer] = (admitted.boot, position)
    var last: [UInt8] = []
    last.append(integer: position.last)
    admitted.answer(.ok, parameters: last)
    receivers.append(
      try LogReceiver(
        loop: loop, stream: admitted.stream, early: admitted.early, position: position, sink: sink,
        label: labels ? "\(admitted.peer)/" : ""
      ) { [unowned self] in
        onExit?($0)
      } closed: { [unowned self] receiver, problem in
        if let problem { complaints.say(.brokenStreams, problem) }
        receivers.removeAll { $0 === receiver }
        onStreamClosed?()
      })
  }
}
