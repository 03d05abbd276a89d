import Wire

/// The records that the host has not acknowledged yet, oldest first, bounded in bytes. When there is no room the
/// oldest go, and a gap record with their count takes their place.
public struct LogBuffer: Sendable {
  struct Entry {
    var sequence: UInt64
    var bytes: [UInt8]
    /// What this record counts for in a gap: (records, payload bytes).
    var weight: (records: UInt64, bytes: UInt64)
    var isGap: Bool
  }

  public let capacity: Int
  private var entries: [Entry] = []
  /// Index of the first entry that is still needed.
  private var head = 0
  /// Index of the next entry to be sent.
  private var cursor = 0
  private var nextSequence: UInt64 = 1
  public private(set) var size = 0
  public private(set) var droppedRecords: UInt64 = 0
  public private(set) var droppedBytes: UInt64 = 0

  public init(capacity: Int) { self.capacity = capacity }

  public var isEmpty: Bool { head == entries.count }
  public var hasUnsent: Bool { cursor < entries.count }
  /// More than three quarters: the time to hold a fast program up, if at all.
  public var isNearlyFull: Bool { size > capacity / 4 * 3 }

  public mutating func append(time: UInt64, source: LogSource, body: LogRecord.Body) {
    let record = LogRecord(sequence: nextSequence, time: time, source: source, body: body)
    nextSequence += 1
    var payload = 0
    if case .output(let bytes) = body { payload = bytes.count }
    let encoded = record.encoded()
    entries.append(
      Entry(
        sequence: record.sequence, bytes: encoded, weight: (1, UInt64(payload)), isGap: false))
    size += encoded.count
    if size > capacity { makeRoom(time) }
  }

  /// Drops the oldest records and puts one gap record in their place; the newest (at the end: the exit status) stays.
  /// A record that is being sent is not torn: the forwarder has its own copy of it.
  private mutating func makeRoom(_ time: UInt64) {
    var gap: (records: UInt64, bytes: UInt64) = (0, 0)
    var last: UInt64 = 0
    var index = head
    // Down to seven eighths, so that not every record after a full buffer costs a gap of its own.
    let goal = capacity / 8 * 7
    while size > goal, index < entries.count - 1 {
      let entry = entries[index]
      gap.records += entry.weight.records
      gap.bytes += entry.weight.bytes
      if !entry.isGap {
        droppedRecords += 1
        droppedBytes += entry.weight.bytes
      }
      size -= entry.bytes.count
      last = entry.sequence
      entries[index].bytes = []
      index += 1
    }
    guard gap.records > 0 else { return }
    let record = LogRecord(
      sequence: last, time: time, source: .initProcess, body: .gap(records: gap.records, bytes: gap.bytes))
    let encoded = record.encoded()
    index -= 1
    entries[index] = Entry(sequence: last, bytes: encoded, weight: gap, isGap: true)
    size += encoded.count
    let cursorWasInside = cursor <= index
    head = index
    if cursorWasInside || cursor < head { cursor = head }
    compact()
  }

  /// The next record to be sent, once.
  public mutating func next() -> [UInt8]? {
    guard cursor < entries.count else { return nil }
    defer { cursor += 1 }
    return entries[cursor].bytes
  }

  /// The host has everything up to and including `sequence`.
  public mutating func acknowledge(_ sequence: UInt64) {
    while head < cursor, entries[head].sequence <= sequence {
      size -= entries[head].bytes.count
      entries[head].bytes = []
      head += 1
    }
    compact()
  }

  /// A new stream: what the host does not have yet is sent again.
  public mutating func rewind(after sequence: UInt64) {
    cursor = entries.count
    acknowledge(sequence)
    cursor = head
  }

  private mutating func compact() {
    guard head > 1024 || head == entries.count else { return }
    entries.removeFirst(head)
    cursor -= head
    head = 0
  }
}
