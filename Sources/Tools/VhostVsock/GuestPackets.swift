import CLinux
import LinuxSystem

/// Packets from the guest.
extension VhostVsockDevice {
  /// Takes up to 64 packets from the transmit queue. True where it took any.
  func serviceTransmit(_ session: VhostUserSession) throws(VhostVsockError) -> Bool {
    guard let memory = session.memory else { return false }
    var left = min(try session.transmitQueue.availableCount(), 64)
    var any = false
    var chain = VectorList(storage: chainVectors)
    while left > 0, refusals.count < Self.mostRefusals {
      left &-= 1
      any = true
      chain.removeAll()
      let head = try session.transmitQueue.head()
      let bytes = try session.transmitQueue.readChain(head, .readable, in: memory, to: &chain)
      guard bytes >= VsockHeader.size else { throw .guest("a packet of \(bytes) bytes, less than its header") }
      // Copied out before it is looked at: the guest may go on writing to it.
      chain.copy(to: headerBytes)
      let header = VsockHeader(reading: UnsafeRawBufferPointer(headerBytes))
      guard Int(header.length) <= bytes &- VsockHeader.size else {
        throw .guest("a packet that says \(header.length) bytes and has \(bytes - VsockHeader.size)")
      }
      var payload = VectorList(storage: payloadVectors)
      _ = chain.append(skipping: VsockHeader.size, length: Int(header.length), to: &payload)
      receive(header, payload)
      session.transmitQueue.finish(head, length: 0)
    }
    if any { session.transmitQueue.publish() }
    return any
  }

  /// What a stopping guest has already queued, once around the ring at most.
  func takeLastPackets(_ session: VhostUserSession) throws(VhostVsockError) {
    var rounds = Int(session.transmitQueue.size) / 64 + 1
    while rounds > 0, try serviceTransmit(session) { rounds -= 1 }
  }

  private func receive(_ header: VsockHeader, _ payload: borrowing VectorList) {
    // A packet in another guest's name is dropped, as the kernel's vhost-vsock does.
    guard header.sourceCID == UInt64(guestCID) else { return }
    guard header.type == VsockHeader.stream, header.destinationCID == 2 || header.destinationCID == 3 else {
      if header.operation != VsockOperation.reset { refusals.append(header.refusal) }
      return
    }
    let key = StreamKey(
      hostCID: UInt32(truncatingIfNeeded: header.destinationCID), hostPort: header.destinationPort,
      guestPort: header.sourcePort)
    guard let stream = streams[key] else {
      switch header.operation {
      case VsockOperation.request: connectToHost(key, header)
      case VsockOperation.reset: break
      default: refusals.append(header.refusal)
      }
      return
    }
    stream.peerBufferSize = header.bufferSize
    stream.peerForwarded = header.forwarded
    switch header.operation {
    case VsockOperation.data: receiveData(stream, payload)
    case VsockOperation.creditUpdate: break
    case VsockOperation.creditRequest:
      stream.pending.insert(.creditUpdate)
      enqueue(stream)
    case VsockOperation.response: guestAccepted(stream)
    case VsockOperation.shutdown:
      guestShutDown(stream, ShutdownFlags(rawValue: header.flags).intersection(.both))
    case VsockOperation.reset: guestReset(stream)
    default: reset(stream)
    }
    if stream.wantsToSend, stream.credit > 0 { enqueue(stream) }
  }

  private func receiveData(_ stream: VsockStream, _ payload: borrowing VectorList) {
    switch stream.state {
    case .established: break
    case .hostGone, .resetting, .draining: return
    case .readingLine, .retryingConnect, .requested: return reset(stream)
    }
    // More than was allowed, or after the guest had said that no more would come.
    guard !stream.guestShutdown.contains(.send), payload.bytes <= stream.promised - stream.buffered else {
      return reset(stream)
    }
    if payload.bytes == 0 { return }
    if stream.hostRefusesData {
      stream.forwarded &+= UInt32(truncatingIfNeeded: payload.bytes)
      return advertise(stream)
    }
    var written = 0
    if stream.buffered == 0 {
      let result = clinux_vhost_send_vectors(stream.fd, payload.base, Int32(payload.count))
      if result >= 0 {
        written = result
      } else if result == -Int(EPIPE) {
        stream.forwarded &+= UInt32(truncatingIfNeeded: payload.bytes)
        return hostRefusesData(stream)
      } else if result != -Int(EAGAIN) {
        return reset(stream)
      }
      stream.forwarded &+= UInt32(truncatingIfNeeded: written)
    }
    if written < payload.bytes {
      guard keep(payload, skipping: written, of: stream) else { return reset(stream) }
      awaitWritable(stream, true)
    }
    advertise(stream)
  }

  private func guestAccepted(_ stream: VsockStream) {
    guard stream.state == .requested, !stream.pending.contains(.request) else { return reset(stream) }
    let answer = Array("OK \(stream.key.hostPort)\n".utf8)
    guard answer.withUnsafeBytes({ clinux_send(stream.fd, $0.baseAddress, $0.count, 0) }) == answer.count else {
      return reset(stream)
    }
    stream.state = .established
    stream.readable = true
  }

  private func guestShutDown(_ stream: VsockStream, _ flags: ShutdownFlags) {
    let news = flags.subtracting(stream.guestShutdown)
    stream.guestShutdown.formUnion(flags)
    switch stream.state {
    case .established:
      if news.contains(.receive) {
        // A program on the host that goes on writing gets EPIPE.
        _ = clinux_vhost_shutdown(stream.fd, Int32(SHUT_RD))
        stream.pending.remove(.creditRequest)
      }
      endWriting(stream)
      if stream.state == .established, stream.hungUp, stream.guestShutdown.contains(.receive) { hostLeft(stream) }
    case .hostGone:
      if stream.guestShutdown == .both { reset(stream) }
    case .resetting, .draining: break
    case .readingLine, .retryingConnect, .requested: reset(stream)
    }
  }

  /// Carries the guest's end of sending on, once everything before it is written.
  func endWriting(_ stream: VsockStream) {
    guard stream.state == .established, stream.buffered == 0 else { return }
    if stream.guestShutdown == .both {
      // The guest has closed and waits for this answer.
      reset(stream)
    } else if stream.guestShutdown.contains(.send), !stream.writingEnded {
      stream.writingEnded = true
      _ = clinux_vhost_shutdown(stream.fd, Int32(SHUT_WR))
    }
  }

  private func guestReset(_ stream: VsockStream) {
    // After an orderly close the reset is only the guest's impatience: what it had sent is still delivered.
    guard stream.state == .established, stream.guestShutdown == .both, stream.buffered > 0 else {
      return remove(stream)
    }
    startDraining(stream)
  }

  func startDraining(_ stream: VsockStream) {
    stream.state = .draining
    stream.pending = []
    if streams[stream.key] === stream { streams[stream.key] = nil }
    settle(stream)
  }
}
