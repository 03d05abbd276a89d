import CLinux
import EnclaveConfig
import LinuxSystem
import LogForwarding
import Logging
import SystemText
import Wire

/// Where PID 1's own log lines go: the log channel once there is one, standard error until then.
///
/// One thread runs everything in this process, so the handlers that swift-log copies share this without a lock.
final class EnclaveLogTarget: @unchecked Sendable {
  var forwarder: LogForwarder?
  /// Our own lines go to standard error too, which is the console: it is all there is if the host never comes.
  var console = false
  /// What the console gets when the log's stream is begun: a serial line is slow, and the program's start waits for it.
  private var held: String? = ""

  func release() {
    if let held, !held.isEmpty { writeToStandardError(held) }
    held = nil
  }

  func write(_ sentence: String) {
    let line = shownText(sentence)
    if console, forwarder != nil {
      let text = "tombolo-init: \(line)\n"
      if held == nil { writeToStandardError(text) } else { held?.append(text) }
    }
    if let forwarder {
      forwarder.append(.initProcess, Array((line + "\n").utf8))
    } else {
      writeToStandardError("tombolo-init: \(line)\n")
    }
  }
}

func writeToStandardError(_ text: String) { _ = try? writeAll(2, Array(shownText(text).utf8)) }

/// swift-log's handler for the enclave.
struct EnclaveLogHandler: LogHandler {
  let target: EnclaveLogTarget
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    target.write("\(event.level.rawValue): \(event.message)")
  }
}

extension Logger.Level {
  init(_ level: Configuration.LogLevel) {
    switch level {
    case .debug: self = .debug
    case .info: self = .info
    case .warning: self = .warning
    case .error: self = .error
    }
  }
}
