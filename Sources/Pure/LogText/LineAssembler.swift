/// Where a line comes from in time: what is known of the record in which it began.
package struct LineOrigin: Equatable, Sendable {
  /// Nanoseconds since 1970, by the enclave's clock.
  package var time: UInt64
  /// The same by the host's, when the record arrived.
  package var received: UInt64
  package var sequence: UInt64

  package init(time: UInt64, received: UInt64, sequence: UInt64) {
    self.time = time
    self.received = received
    self.sequence = sequence
  }
}

/// Puts chunks together to lines.
package struct LineAssembler {
  /// A longer line is cut, in bytes; not within a character.
  package static let limit = 64 * 1024
  private var partial: [UInt8] = []
  private var since = LineOrigin(time: 0, received: 0, sequence: 0)

  package init() {}

  /// - Parameter emit: takes each line, without its newline.
  @inline(__always)
  package mutating func add(
    _ bytes: UnsafeRawBufferPointer, _ origin: LineOrigin, _ emit: (UnsafeRawBufferPointer, LineOrigin) -> Void
  ) {
    var rest = bytes
    while !rest.isEmpty {
      let room = UnsafeRawBufferPointer(rebasing: rest.prefix(Self.limit - partial.count))
      let newline = firstNewline(room)
      if let newline, partial.isEmpty {
        emit(UnsafeRawBufferPointer(rebasing: room[..<newline]), origin)
      } else {
        if partial.isEmpty { since = origin }
        partial += UnsafeRawBufferPointer(rebasing: room[..<(newline ?? room.count)])
        if newline != nil {
          take(leaving: 0, emit)
        } else if partial.count == Self.limit {
          take(leaving: partial.withUnsafeBytes(unfinishedTail), emit)
          since = origin
        }
      }
      rest = UnsafeRawBufferPointer(rebasing: rest[(newline.map { $0 + 1 } ?? room.count)...])
    }
  }

  private mutating func take(leaving tail: Int, _ emit: (UnsafeRawBufferPointer, LineOrigin) -> Void) {
    let end = partial.count - tail
    partial.withUnsafeBytes { emit(UnsafeRawBufferPointer(rebasing: $0[..<end]), since) }
    partial.removeFirst(end)
  }

  /// What has no newline yet.
  package mutating func flush(_ emit: (UnsafeRawBufferPointer, LineOrigin) -> Void) {
    if !partial.isEmpty { take(leaving: 0, emit) }
  }
}
