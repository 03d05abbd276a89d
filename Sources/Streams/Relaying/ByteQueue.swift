/// Bytes that a socket could not take yet. Empty most of the time, and then without memory of its own.
struct ByteQueue {
  private var bytes: [UInt8] = []
  private var start = 0

  var count: Int { bytes.count - start }
  var isEmpty: Bool { start == bytes.count }
  /// Memory that it takes.
  var held: Int { bytes.capacity }

  mutating func append(_ buffer: UnsafeRawBufferPointer) {
    compact()
    bytes.append(contentsOf: buffer)
  }

  mutating func append(_ array: [UInt8]) {
    compact()
    bytes += array
  }

  mutating func append(_ first: UInt8, _ second: UInt8) {
    compact()
    bytes.append(first)
    bytes.append(second)
  }

  /// A queue that is never quite empty must not keep all that has gone through it.
  private mutating func compact() {
    guard start > 65536, start > bytes.count / 2 else { return }
    bytes.removeFirst(start)
    start = 0
  }

  mutating func consume(_ count: Int) {
    start += count
    if start >= bytes.count {
      // A connection that was slow once must not hold its buffer for the rest of its life.
      bytes = []
      start = 0
    }
  }

  func withBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
    bytes.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[start...])) }
  }
}
