/// Where a log record came from.
public enum LogSource: UInt8, Sendable, CaseIterable, CustomStringConvertible {
  case programOutput = 1
  case programError = 2
  case initProcess = 3
  case proxy = 4
  case service = 5
  case kernel = 6

  public var description: String {
    switch self {
    case .programOutput: "stdout"
    case .programError: "stderr"
    case .initProcess: "init"
    case .proxy: "proxy"
    case .service: "service"
    case .kernel: "kernel"
    }
  }
}

/// One record of the log channel. On the wire: length of the rest (u32), kind, source, reserved (u16), sequence (u64),
/// time (u64, nanoseconds since 1970), payload.
public struct LogRecord: Equatable, Sendable {
  public enum Body: Equatable, Sendable {
    /// Bytes as they were written; lines may be cut anywhere.
    case output([UInt8])
    /// What had to be dropped before this record.
    case gap(records: UInt64, bytes: UInt64)
    /// How the program ended, as a shell sees it: 0 to 255, 128 + n for signal n. Always the last record.
    case exit(UInt8)
    /// The enclave's services are ready and the program has been started.
    case started
  }

  public static let headerLength = 20
  /// The longest payload, in bytes.
  public static let payloadLimit = 65536

  /// Counts from 1 for each start of the enclave; a gap record takes the place of the last record it stands for.
  public var sequence: UInt64
  /// Nanoseconds since 1970 by the enclave's clock.
  public var time: UInt64
  public var source: LogSource
  public var body: Body

  public init(sequence: UInt64, time: UInt64, source: LogSource, body: Body) {
    self.sequence = sequence
    self.time = time
    self.source = source
    self.body = body
  }

  public func encoded() -> [UInt8] {
    var payload: [UInt8] = []
    let kind: UInt8
    switch body {
    case .output(let bytes):
      kind = 1
      payload = bytes
    case .gap(let records, let bytes):
      kind = 2
      payload.append(integer: records)
      payload.append(integer: bytes)
    case .exit(let status):
      kind = 3
      payload = [status]
    case .started: kind = 4
    }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(4 + Self.headerLength + payload.count)
    bytes.append(integer: UInt32(Self.headerLength + payload.count))
    bytes += [kind, source.rawValue, 0, 0]
    bytes.append(integer: sequence)
    bytes.append(integer: time)
    bytes += payload
    return bytes
  }

  init(_ bytes: ArraySlice<UInt8>) throws(WireError) {
    var reader = ByteReader(bytes)
    let kind: UInt8 = try reader.integer()
    let code: UInt8 = try reader.integer()
    guard let source = LogSource(rawValue: code) else { throw .unknownSource(code) }
    self.source = source
    guard try reader.integer(UInt16.self) == 0 else { throw .badValue(what: "reserved field") }
    sequence = try reader.integer()
    time = try reader.integer()
    switch kind {
    case 1: body = .output(reader.remainder())
    case 2: body = .gap(records: try reader.integer(), bytes: try reader.integer())
    case 3: body = .exit(try reader.integer())
    case 4: body = .started
    default: throw .unknownRecord(kind)
    }
    try reader.finish()
  }
}

/// Finds the records in a stream however it was cut; never holds more than one record's length.
public struct LogRecordDecoder: Sendable {
  private var buffer = StreamBuffer()

  public init() {}

  public mutating func append(_ bytes: some Collection<UInt8>) { buffer.append(bytes) }

  /// The next whole record, or nil where more bytes must come.
  public mutating func next() throws(WireError) -> LogRecord? {
    guard buffer.count >= 4 else { return nil }
    let length = buffer[0..<4].reduce(0) { $0 << 8 | Int($1) }
    let limit = LogRecord.headerLength + LogRecord.payloadLimit
    guard length <= limit else { throw .badLength(what: "log record", found: length, limit: limit) }
    guard buffer.count >= 4 + length else { return nil }
    let record = try LogRecord(buffer[4..<4 + length])
    buffer.skip(4 + length)
    return record
  }
}

/// What the host sends back on a log stream: u64 after u64, each the sequence of the last record that it has. The hello
/// of a log stream has no parameters: its token says which boot it is of.
public enum LogAcknowledgement {
  public static let length = 8
}
