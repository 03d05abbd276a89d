import CLinux
import LinuxSystem

/// One receive buffer of the guest's that is being filled.
struct ReceiveChain {
  var head: UInt16 = 0
  /// Its first entry in the device's chain vectors.
  var first = 0
  /// Payload that it may get.
  var room = 0
}

/// Packets to the guest.
extension VhostVsockDevice {
  /// Bytes for one stream before the next has its turn.
  private static let turn = 131_072

  /// Puts a stream into the list of those with something for the guest.
  @inline(__always) func enqueue(_ stream: VsockStream) {
    guard !stream.queued else { return }
    stream.queued = true
    ready.append(stream.token)
  }

  /// Fills receive buffers from refusals and the streams that are ready. True where it did anything.
  func serviceReceive(_ session: VhostUserSession) throws(VhostVsockError) -> Bool {
    guard let memory = session.memory, !ready.isEmpty || !refusals.isEmpty else { return false }
    var available = Int(try session.receiveQueue.availableCount())
    var any = false
    var budget = 128
    while available > 0, budget > 0 {
      if let refusal = refusals.first {
        try sendControl(refusal, session, memory)
        refusals.removeFirst()
        available -= 1
        budget -= 1
        any = true
        continue
      }
      guard let token = ready.popFirst() else { break }
      any = true
      budget -= 1
      guard let stream = stream(token) else { continue }
      stream.queued = false
      let used = try serve(stream, session, memory, available)
      available -= used
      budget -= used
      if slots[slot(stream.token)] === stream,
        !stream.pending.isEmpty || stream.wantsTurn
      {
        enqueue(stream)
      }
    }
    session.receiveQueue.publish()
    return any
  }

  /// One stream's turn. Returns how many receive buffers it took.
  private func serve(
    _ stream: VsockStream, _ session: VhostUserSession, _ memory: GuestMemory, _ available: Int
  ) throws(VhostVsockError) -> Int {
    if stream.pending.contains(.reset) {
      try sendControl(header(stream, VsockOperation.reset), session, memory)
      remove(stream)
      return 1
    }
    if stream.pending.contains(.request) {
      stream.pending.remove(.request)
      try sendControl(header(stream, VsockOperation.request), session, memory)
      return 1
    }
    if stream.pending.contains(.response) {
      stream.pending.remove(.response)
      try sendControl(header(stream, VsockOperation.response), session, memory)
      return 1
    }
    if stream.wantsToSend {
      if stream.credit > 0 {
        let used = try sendData(stream, session, memory, available)
        if used > 0 || stream.state != .established { return used }
      } else if !stream.askedForCredit {
        stream.askedForCredit = true
        stream.pending.insert(.creditRequest)
      }
    }
    if stream.pending.contains(.shutdown) {
      stream.pending.remove(.shutdown)
      var packet = header(stream, VsockOperation.shutdown)
      packet.flags = stream.hostShutdown.rawValue
      try sendControl(packet, session, memory)
      return 1
    }
    if stream.pending.contains(.creditRequest) {
      stream.pending.remove(.creditRequest)
      try sendControl(header(stream, VsockOperation.creditRequest), session, memory)
      return 1
    }
    if stream.pending.contains(.creditUpdate) {
      try sendControl(header(stream, VsockOperation.creditUpdate), session, memory)
      return 1
    }
    return 0
  }

  /// Reads from the Unix socket straight into the guest's receive buffers. Returns how many it filled.
  private func sendData(
    _ stream: VsockStream, _ session: VhostUserSession, _ memory: GuestMemory, _ available: Int
  ) throws(VhostVsockError) -> Int {
    var chain = VectorList(storage: chainVectors)
    var payload = VectorList(storage: payloadVectors)
    var room = min(stream.credit, Self.turn)
    var count = 0
    while room > 0, count < min(available, Self.mostChains), chain.count < VectorList.capacity / 2 {
      let head = try session.receiveQueue.head(ahead: UInt16(truncatingIfNeeded: count))
      let first = chain.count
      let bytes = try session.receiveQueue.readChain(head, .writable, in: memory, to: &chain)
      guard bytes > VsockHeader.size else { throw .guest("a receive buffer of \(bytes) bytes") }
      let part = chain.append(
        from: first, skipping: VsockHeader.size, length: min(bytes - VsockHeader.size, room), to: &payload)
      guard part > 0 else { break }
      chains[count] = ReceiveChain(head: head, first: first, room: part)
      room -= part
      count += 1
    }
    guard count > 0 else { return 0 }
    let result = clinux_vhost_readv(stream.fd, payload.base, Int32(payload.count))
    guard result > 0 else {
      if result == 0 {
        hostEnded(stream)
      } else if result == -Int(EAGAIN) {
        stream.readable = false
      } else {
        reset(stream)
      }
      return 0
    }
    stream.askedForCredit = false
    stream.sent &+= UInt32(truncatingIfNeeded: result)
    var packet = header(stream, VsockOperation.data)
    var left = result
    var used = 0
    while left > 0, used < count {
      let part = min(left, chains[used].room)
      packet.length = UInt32(truncatingIfNeeded: part)
      packet.write(to: headerBytes)
      chain.store(UnsafeRawBufferPointer(headerBytes), from: chains[used].first)
      session.receiveQueue.finish(
        chains[used].head, length: UInt32(truncatingIfNeeded: part + VsockHeader.size))
      left -= part
      used += 1
    }
    return used
  }

  private func sendControl(
    _ header: VsockHeader, _ session: VhostUserSession, _ memory: GuestMemory
  ) throws(VhostVsockError) {
    var chain = VectorList(storage: chainVectors)
    let head = try session.receiveQueue.head()
    let bytes = try session.receiveQueue.readChain(head, .writable, in: memory, to: &chain)
    guard bytes >= VsockHeader.size else { throw .guest("a receive buffer of \(bytes) bytes") }
    header.write(to: headerBytes)
    chain.store(UnsafeRawBufferPointer(headerBytes))
    session.receiveQueue.finish(head, length: UInt32(VsockHeader.size))
  }

  /// A packet of a stream's; every one tells the guest of its room.
  private func header(_ stream: VsockStream, _ operation: UInt16) -> VsockHeader {
    var header = VsockHeader()
    header.sourceCID = UInt64(stream.key.hostCID)
    header.destinationCID = UInt64(guestCID)
    header.sourcePort = stream.key.hostPort
    header.destinationPort = stream.key.guestPort
    header.operation = operation
    extend(stream)
    header.bufferSize = stream.limit &- stream.forwarded
    header.forwarded = stream.forwarded
    stream.pending.remove(.creditUpdate)
    return header
  }
}
