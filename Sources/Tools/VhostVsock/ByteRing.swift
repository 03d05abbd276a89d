import CLinux

/// What a guest has sent and the Unix socket would not take yet: a ring of fixed capacity.
final class ByteRing {
  let capacity: Int
  private let base: UnsafeMutableRawPointer
  private var start = 0
  private(set) var count = 0

  init(capacity: Int) {
    self.capacity = capacity
    // Not page-aligned: an allocation of 4096's alignment costs far more (docs/design).
    base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
  }

  deinit { base.deallocate() }

  func removeAll() {
    start = 0
    count = 0
  }

  /// Appends the bytes of `vectors` after the first `skipping`. False, with nothing appended, where they do not fit.
  func append(_ vectors: borrowing VectorList, skipping: Int) -> Bool {
    guard skipping >= 0, vectors.bytes - skipping <= capacity - count else { return false }
    var skip = skipping
    for index in 0..<vectors.count {
      guard var from = vectors.base[index].iov_base else { continue }
      var left = vectors.base[index].iov_len
      if skip >= left {
        skip -= left
        continue
      }
      from += skip
      left -= skip
      skip = 0
      while left > 0 {
        let end = (start + count) % capacity
        let piece = min(left, capacity - end)
        (base + end).copyMemory(from: from, byteCount: piece)
        from += piece
        left -= piece
        count += piece
      }
    }
    return true
  }

  /// Writes as much as the socket takes: bytes written, or a negative errno.
  func send(to fd: Int32) -> Int {
    let first = min(count, capacity - start)
    var pieces = (iovec(iov_base: base + start, iov_len: first), iovec(iov_base: base, iov_len: count - first))
    let written = withUnsafePointer(to: &pieces) {
      $0.withMemoryRebound(to: iovec.self, capacity: 2) { clinux_vhost_send_vectors(fd, $0, count > first ? 2 : 1) }
    }
    if written > 0 {
      start = (start + written) % capacity
      count -= written
    }
    return written
  }
}
