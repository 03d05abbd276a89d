/// Bytes of a stream that came and have not been read: what a decoder of messages holds between two reads.
struct StreamBuffer: Sendable {
  private var bytes: [UInt8] = []
  private var start = 0

  var count: Int { bytes.count - start }

  mutating func append(_ new: some Collection<UInt8>) {
    if start > 0 {
      bytes.removeFirst(start)
      start = 0
    }
    bytes += new
  }

  /// - Parameters:
  ///   - index: of an unread byte; below `count`.
  subscript(index: Int) -> UInt8 { bytes[start + index] }

  /// - Parameter range: of unread bytes; within `count`.
  subscript(range: Range<Int>) -> ArraySlice<UInt8> { bytes[start + range.lowerBound..<start + range.upperBound] }

  /// What is before `end` has been read.
  mutating func skip(_ end: Int) { start += end }
}
