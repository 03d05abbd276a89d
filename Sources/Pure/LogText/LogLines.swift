import Wire

// Theory of operation.
//
//   record ─▶ LineAssembler (one for each source) ─▶ what stands before the line, made once a record ─▶ escape ─▶ bytes
//
// The formats, for those who read them, are described in the README. No line has memory of its own: it is read in the
// record and written at the end of what already waits for the descriptor.

/// How the host shows what the enclave logs.
public enum LogFormat: String, CaseIterable, Sendable {
  /// The program's own bytes to stdout and stderr, as they are.
  case raw
  /// One line each, with times, sequence and source.
  case text
  /// One JSON object per line.
  case json
}

/// The log of one enclave or of several as lines in one format.
public struct LogLines {
  private let format: LogFormat
  private var assemblers: [Source: LineAssembler] = [:]
  private var head = Head()

  /// A source of one enclave; the label tells enclaves apart, empty where there is one.
  private struct Source: Hashable {
    var label: String
    var source: LogSource
  }

  public init(_ format: LogFormat) { self.format = format }

  /// Whether a record's bytes belong to standard output, and not to standard error.
  public func isForOutput(_ record: LogRecord) -> Bool { format != .raw || record.source == .programOutput }

  /// Writes what a record adds to the log.
  /// - Parameters:
  ///   - label: put before the source, such as "16/"; empty where there is one enclave.
  ///   - received: nanoseconds since 1970 by the host's clock.
  public mutating func add(
    _ record: LogRecord, label: String = "", received: UInt64, to bytes: inout OutgoingBytes
  ) {
    let source = Source(label: label, source: record.source)
    let origin = LineOrigin(time: record.time, received: received, sequence: record.sequence)
    switch record.body {
    case .output(let chunk):
      if format == .raw, record.source == .programOutput || record.source == .programError {
        chunk.withUnsafeBytes { bytes.append($0) }
      } else {
        assemble(chunk, source, origin, to: &bytes)
      }
    case .gap(let records, let dropped):
      note(
        "\(records) log records (\(dropped) bytes) were dropped: the host was away or too slow", source, origin,
        fields: #","event":"gap","records":\#(records),"bytes":\#(dropped)"#, to: &bytes)
    case .exit(let status):
      flush(label, to: &bytes)
      // In raw the status is the end of `tombolo run`, and a line of `tombolo host` itself.
      guard format != .raw else { return }
      note(
        "the program ended with status \(status)", source, origin, fields: #","event":"exit","status":\#(status)"#,
        to: &bytes)
    case .started:
      break
    }
  }

  private mutating func assemble(
    _ chunk: [UInt8], _ source: Source, _ origin: LineOrigin, to bytes: inout OutgoingBytes
  ) {
    let format = format
    chunk.withUnsafeBytes {
      assemblers[source, default: LineAssembler()].add($0, origin) { line, origin in
        head.prepare(format, source.label, source.source, origin)
        Self.write(line, format, head.bytes, to: &bytes)
      }
    }
  }

  /// Ends what has no newline yet.
  private mutating func flush(_ label: String, to bytes: inout OutgoingBytes) {
    for source in LogSource.allCases {
      guard var assembler = assemblers.removeValue(forKey: Source(label: label, source: source)) else { continue }
      assembler.flush { line, origin in
        head.prepare(format, label, source, origin)
        Self.write(line, format, head.bytes, to: &bytes)
      }
    }
  }

  /// A line of our own about the log.
  private mutating func note(
    _ sentence: String, _ source: Source, _ origin: LineOrigin, fields: String, to bytes: inout OutgoingBytes
  ) {
    head.prepare(format, source.label, source.source, origin)
    Array(sentence.utf8).withUnsafeBytes { Self.write($0, format, head.bytes, fields: fields, to: &bytes) }
  }

  @inline(__always)
  private static func write(
    _ line: UnsafeRawBufferPointer, _ format: LogFormat, _ head: [UInt8], fields: String = "",
    to bytes: inout OutgoingBytes
  ) {
    // Escaped, and once more in base 64, which takes less than two bytes for one.
    let limit = head.count + line.count * (Escaping.growth + 2) + fields.utf8.count + 64
    let room = bytes.room(limit)
    guard let base = room.baseAddress else { return }
    head.withUnsafeBytes { room.copyMemory(from: $0) }
    var count = head.count
    let behind = UnsafeMutableRawBufferPointer(rebasing: room[count...])
    func put(_ text: StaticString) {
      (base + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
      count += text.utf8CodeUnitCount
    }
    if format == .json {
      let written = escape(line, as: .json, to: behind)
      count += written.count
      put("\"")
      if !written.isUTF8 {
        put(",\"base64\":\"")
        count += putBase64(line, base + count)
        put("\"")
      }
      for byte in fields.utf8 {
        base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
        count += 1
      }
      put("}\n")
    } else {
      count += escape(line, as: .text, to: behind).count
      put("\n")
    }
    bytes.commit(count)
  }
}

/// What stands before a line. It is the same for all lines that begin in one record.
private struct Head {
  private(set) var bytes: [UInt8] = []
  private var origin: LineOrigin?
  private var source = LogSource.programOutput
  private var label = ""
  private var time = Timestamp()
  private var received = Timestamp()

  @inline(__always)
  mutating func prepare(_ format: LogFormat, _ label: String, _ source: LogSource, _ origin: LineOrigin) {
    guard origin != self.origin || source != self.source || label != self.label else { return }
    make(format, label, source, origin)
  }

  private mutating func make(_ format: LogFormat, _ label: String, _ source: LogSource, _ origin: LineOrigin) {
    self.origin = origin
    self.source = source
    self.label = label
    bytes.removeAll(keepingCapacity: true)
    switch format {
    case .raw:
      put("tombolo ")
      put(label, source)
      put(": ")
    case .text:
      received.append(origin.received, to: &bytes)
      put(" ")
      time.append(origin.time, to: &bytes)
      put(" ")
      put(origin.sequence)
      put(" ")
      put(label, source)
      put(" | ")
    case .json:
      put("{\"received\":\"")
      received.append(origin.received, to: &bytes)
      put("\",\"time\":\"")
      time.append(origin.time, to: &bytes)
      put("\",\"sequence\":")
      put(origin.sequence)
      put(",\"source\":\"")
      put(label, source)
      put("\",\"line\":\"")
    }
  }

  private mutating func put(_ text: StaticString) {
    bytes += UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
  }

  private mutating func put(_ label: String, _ source: LogSource) {
    bytes += label.utf8
    bytes += source.description.utf8
  }

  private mutating func put(_ number: UInt64) {
    let start = bytes.count
    var rest = number
    repeat {
      bytes.append(0x30 + UInt8(rest % 10))
      rest /= 10
    } while rest > 0
    bytes[start...].reverse()
  }
}
