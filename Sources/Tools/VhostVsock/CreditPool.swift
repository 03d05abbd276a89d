/// How much the guest may have the device hold in all, shared out among its streams.
///
/// Each stream that there can be has `floor` bytes for itself at any time. The rest is lent: a stream that asks gets up to
/// its window, and no more than an eighth of what is left, so that the first streams have full windows, later ones smaller
/// ones, and the last one is never without. What a stream has been promised cannot be taken back (Linux computes its credit
/// without a sign, virtio_transport_get_credit of net/vmw_vsock/virtio_transport_common.c), so it counts until the bytes have
/// come and are passed on.
struct CreditPool {
  let floor: Int
  private let window: Int
  private let most: Int
  /// Above the floors.
  private(set) var lent = 0

  /// - Parameters:
  ///   - total: bytes of all streams; half of them are for the floors.
  ///   - window: the most for one stream.
  ///   - streams: how many there can be.
  init(total: Int, window: Int, streams: Int) {
    self.window = window
    floor = min(window, total / 2 / streams)
    most = total / 2
  }

  private func excess(_ reserved: Int) -> Int { max(0, reserved - floor) }

  /// How many bytes ahead a stream may be let that has `reserved` now.
  func grant(having reserved: Int) -> Int { min(window, floor + (most - lent + excess(reserved)) / 8) }

  mutating func change(from old: Int, to new: Int) { lent += excess(new) - excess(old) }
}

extension VhostVsockDevice {
  /// Counts anew what a stream may have us hold: what the guest may still send and what is kept, or the memory for that.
  func settle(_ stream: VsockStream) {
    let promised = stream.fd >= 0 && stream.state != .draining ? stream.promised : 0
    let reserved = max(promised, stream.buffer?.capacity ?? 0)
    credit.change(from: stream.reserved, to: reserved)
    stream.reserved = reserved
  }

  /// Lets the guest send on as far as there is room.
  func extend(_ stream: VsockStream) {
    guard stream.fd >= 0, stream.state != .draining else { return }
    let news = ahead(stream)
    if news > 0 { stream.limit &+= UInt32(truncatingIfNeeded: news) }
    settle(stream)
  }

  /// Bytes by which the guest could be let further than it knows.
  private func ahead(_ stream: VsockStream) -> Int { credit.grant(having: stream.reserved) - stream.promised }

  /// Tells the guest of room once a quarter of its window is new since it was last told.
  func advertise(_ stream: VsockStream) {
    settle(stream)
    let news = ahead(stream)
    guard news > 0, news >= credit.grant(having: stream.reserved) / 4 else { return }
    stream.pending.insert(.creditUpdate)
    enqueue(stream)
  }

  /// Keeps what the socket has not taken. False where that is more than was promised.
  func keep(_ payload: borrowing VectorList, skipping: Int, of stream: VsockStream) -> Bool {
    let wanted = stream.buffered + payload.bytes - skipping
    guard wanted <= stream.promised else { return false }
    if let buffer = stream.buffer {
      if buffer.capacity < wanted { buffer.resize(to: stream.promised) }
    } else {
      let isFull =
        stream.promised > options.bufferSize / 2 && credit.grant(having: stream.reserved) == options.bufferSize
      stream.buffer =
        isFull ? spareBuffers.popLast() ?? ByteRing(capacity: options.bufferSize) : ByteRing(capacity: stream.promised)
    }
    return stream.buffer?.append(payload, skipping: skipping) ?? false
  }

  func releaseBuffer(_ stream: VsockStream) {
    if let buffer = stream.buffer {
      stream.buffer = nil
      buffer.removeAll()
      if buffer.capacity == options.bufferSize, spareBuffers.count < Self.mostSpareBuffers {
        spareBuffers.append(buffer)
      }
    }
    settle(stream)
  }
}
