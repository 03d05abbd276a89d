import CLinux

/// What a guest has sent and the Unix socket would not take yet: a ring.
final class ByteRing {
  private(set) var capacity: Int
  private var base: UnsafeMutableRawPointer
  private var start = 0
  private(set) var count = 0

  init(capacity: Int) {
    self.capacity = capacity
    // Not page-aligned: an allocation of 4096's alignment: glibc looks far longer for one.
    base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
  }

  deinit { base.deallocate() }

  func removeAll() {
    start = 0
    count = 0
  }

  /// - Parameter size: at least `count`.
  func resize(to size: Int) {
    guard size >= count else { return }
    let made = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    let first = min(count, capacity - start)
    made.copyMemory(from: base + start, byteCount: first)
    (made + first).copyMemory(from: base, byteCount: count - first)
    base.deallocate()
    (base, capacity, start) = (made, size, 0)
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
