import LogText
import Wire

/// Reads in the enclave's log what its proxy has denied, for `tombolo status`: the host side sees nothing of that otherwise.
final class EnclaveDenials {
  private let counters: HostCounters
  private var lines: [String: LineAssembler] = [:]
  /// In bytes. The longest sentence has two names and is shorter; and all that are counted fit into one answer to `tombolo
  /// status`, however many of their bytes have to be escaped.
  private static let lineLimit = 1024
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
        if line.count <= Self.lineLimit { counters.denied(String(decoding: line, as: UTF8.self), isHost: false) }
      }
    }
  }
}
