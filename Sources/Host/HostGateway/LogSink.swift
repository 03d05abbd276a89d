import Wire

/// Somewhere that the log goes.
protocol LogSink: AnyObject {
  /// Takes the next record, also when it is full.
  /// - Parameters:
  ///   - label: put before the source, such as "16/"; empty where there is one enclave.
  ///   - received: nanoseconds since 1970 by our clock, when the record arrived.
  func write(_ record: LogRecord, label: String, received: UInt64)
  /// There are no more records for now: what was kept to be written together goes out.
  func flush()
  /// How many of the records that it was given, from the first, it has for good: they need not be sent again if this
  /// process dies now. Never less than before.
  var written: UInt64 { get }
  /// It is slower than the enclave: it is to be given no more for now.
  var isFull: Bool { get }
  /// Nothing waits in it.
  var isEmpty: Bool { get }
  /// It takes nothing any more.
  var hasFailed: Bool { get }
  /// Called in the loop when one of these has changed by itself; not during `write`.
  var changed: (() -> Void)? { get set }
}

/// All the sinks of a host side, as one. The slowest says how far the log has come: a record is acknowledged when every sink
/// has it, and no more are read while one of them is full. A sink that has failed is not waited for.
final class LogSinks {
  private let sinks: [any LogSink]
  private let keepsUnwritten: Bool
  /// Records given to the sinks so far.
  private(set) var given: UInt64 = 0
  private var reached: UInt64 = 0

  /// - Parameter keepsUnwritten: when every sink has failed, what none of them has is not acknowledged, and stays with the
  ///   enclave. Otherwise it is lost, and the enclave can go on to its end.
  init(_ sinks: [any LogSink], keepsUnwritten: Bool, changed: @escaping () -> Void) {
    self.sinks = sinks
    self.keepsUnwritten = keepsUnwritten
    for sink in sinks { sink.changed = changed }
  }

  var isFull: Bool { sinks.contains { !$0.hasFailed && $0.isFull } }
  var isEmpty: Bool { sinks.allSatisfy { $0.isEmpty } }

  func write(_ record: LogRecord, label: String, received: UInt64) {
    given &+= 1
    for sink in sinks { sink.write(record, label: label, received: received) }
  }

  func flush() { for sink in sinks { sink.flush() } }

  /// How many records, from the first, may be acknowledged.
  var acknowledged: UInt64 {
    let slowest = sinks.lazy.filter { !$0.hasFailed }.map(\.written).min()
    reached = max(reached, slowest ?? (keepsUnwritten ? reached : given))
    return reached
  }
}

/// Where the log of one boot stands; outlives its streams.
final class LogPosition {
  /// The last record that has come, and the last that every sink has.
  private(set) var received: UInt64 = 0
  private(set) var acknowledged: UInt64 = 0
  /// How many records the sinks had been given with which of them; oldest first.
  private var waiting: [(given: UInt64, sequence: UInt64)] = []

  func took(_ sequence: UInt64) { received = sequence }

  /// What has been taken is record `given` for the sinks.
  func mark(_ given: UInt64) {
    guard received > waiting.last?.sequence ?? acknowledged else { return }
    waiting.append((given, received))
  }

  /// - Parameter reached: of `LogSinks.acknowledged`.
  func advance(to reached: UInt64) {
    let done = waiting.prefix { $0.given <= reached }
    if let last = done.last { acknowledged = last.sequence }
    waiting.removeFirst(done.count)
  }
}
