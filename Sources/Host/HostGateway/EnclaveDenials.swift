import LogText
import Wire

/// Reads in the enclave's log what its proxy has denied, for `tombolo status`: the host side sees nothing of that otherwise.
final class EnclaveDenials {
  private let counters: HostCounters
  private var lines: [String: LineAssembler] = [:]
  /// Enclaves whose lines are put together at a time.
  private static let enclaveLimit = 64

  init(_ counters: HostCounters) { self.counters = counters }

  /// - Parameter label: of the enclave.
  func take(_ record: LogRecord, label: String) {
    guard record.source == .proxy, case .output(let bytes) = record.body else { return }
    if lines[label] == nil, lines.count >= Self.enclaveLimit { lines = [:] }
    let origin = LineOrigin(time: record.time, received: 0, sequence: record.sequence)
    bytes.withUnsafeBytes { chunk in
      lines[label, default: LineAssembler()].add(chunk, origin) { line, _ in
        // The longest sentence has two names.
        if line.count <= 2048 { counters.denied(String(decoding: line, as: UTF8.self), isHost: false) }
      }
    }
  }
}
