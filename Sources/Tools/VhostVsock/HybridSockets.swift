import CLinux
import LinuxSystem

/// The Unix sockets of the host's side.
extension VhostVsockDevice {
  /// How long a listener with a full backlog is tried: what Linux gives a connecting guest (VSOCK_DEFAULT_CONNECT_TIMEOUT).
  private static let connectPatience: Int64 = 2000
  /// EPOLLET: each change is told once, so what is unread or hung up does not wake the loop again and again.
  private static let interest = EPOLLIN.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue

  // MARK: - Guest to host

  /// The guest asks for a host port: a connection to `<hybridPath>_<port>`.
  func connectToHost(_ key: StreamKey, _ request: VsockHeader) {
    connectionCount &+= 1
    let peer = HybridPeerName(
      guestCID: guestCID, guestPort: key.guestPort, hostCID: key.hostCID, hostPort: key.hostPort)
    let fd = clinux_vhost_unix_stream("\(peer) \(getpid()).\(hybridListener.fd).\(connectionCount)")
    guard fd >= 0 else { return refusals.append(request.refusal) }
    let result = clinux_vhost_unix_connect(fd, "\(hybridPath)_\(key.hostPort)")
    let waits = result == -EAGAIN
    guard result == 0 || waits, let stream = addStream(key, waits ? .retryingConnect : .established, fd) else {
      _ = clinux_vhost_close(fd)
      return refusals.append(request.refusal)
    }
    stream.peerBufferSize = request.bufferSize
    stream.peerForwarded = request.forwarded
    if waits {
      stream.deadline = monotonicMilliseconds() + Self.connectPatience
      retrying.append(stream.token)
    } else {
      connected(stream)
    }
  }

  private func connected(_ stream: VsockStream) {
    stream.state = .established
    guard watchStream(stream) else { return reset(stream) }
    stream.readable = true
    stream.pending.insert(.response)
    enqueue(stream)
  }

  func retryConnects() {
    if let until = acceptPausedUntil, monotonicMilliseconds() >= until {
      acceptPausedUntil = nil
      try? watch(hybridListener.fd, EventToken.hybridListener)
    }
    guard !retrying.isEmpty else { return }
    let tokens = retrying
    retrying.removeAll(keepingCapacity: true)
    let now = monotonicMilliseconds()
    for token in tokens {
      guard let stream = stream(token), stream.state == .retryingConnect else { continue }
      let result = clinux_vhost_unix_connect(stream.fd, "\(hybridPath)_\(stream.key.hostPort)")
      if result == 0 {
        connected(stream)
      } else if result == -EAGAIN, now < stream.deadline {
        retrying.append(token)
      } else {
        reset(stream)
      }
    }
  }

  // MARK: - Host to guest

  func acceptHybrid() {
    for _ in 0..<64 {
      let fd = clinux_accept(hybridListener.fd, nil)
      if fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -ENOBUFS {
        // The listener would stay readable and keep the loop busy until a descriptor is free.
        _ = clinux_vhost_epoll_control(epoll.rawValue, EPOLL_CTL_DEL, hybridListener.fd, 0, 0)
        acceptPausedUntil = monotonicMilliseconds() + 100
      }
      guard fd >= 0 else { return }
      guard let port = assignHostPort(),
        let stream = addStream(
          StreamKey(hostCID: options.parentCID, hostPort: port, guestPort: UInt32.max), .readingLine, fd)
      else {
        _ = clinux_vhost_close(fd)
        continue
      }
      if !watchStream(stream) { remove(stream) }
    }
  }

  /// A port from 2^30 on that no stream has now: neither waiting for its line nor connected.
  private func assignHostPort() -> UInt32? {
    guard streams.count < options.mostStreams else { return nil }
    let port = nextHostPort
    // 2^30 connections until one comes round again; one that is still there then makes only this attempt fail.
    nextHostPort = port >= (1 << 31) - 1 ? 1 << 30 : port + 1
    return port
  }

  /// Reads `CONNECT <port>\n` and not one byte beyond it: what follows is for the guest.
  private func readLine(_ stream: VsockStream) {
    let most = 32
    while true {
      var bytes = [UInt8](repeating: 0, count: most)
      let wanted = most - stream.line.count
      let peeked = bytes.withUnsafeMutableBytes { clinux_vhost_peek(stream.fd, $0.baseAddress, wanted) }
      if peeked == -Int(EAGAIN) { return }
      guard peeked > 0 else { return remove(stream) }
      let end = bytes.prefix(peeked).firstIndex(of: UInt8(ascii: "\n"))
      let count = end.map { $0 + 1 } ?? peeked
      guard bytes.withUnsafeMutableBytes({ clinux_read(stream.fd, $0.baseAddress, count) }) == count else {
        return remove(stream)
      }
      stream.line += bytes.prefix(count)
      if end != nil { break }
      guard stream.line.count < most else { return remove(stream) }
    }
    let words = String(decoding: stream.line.dropLast(), as: UTF8.self).split(
      separator: " ", omittingEmptySubsequences: false)
    stream.line = []
    guard words.count == 2, words[0].uppercased() == "CONNECT", words[1].utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }),
      let port = UInt32(words[1]), port != UInt32.max, session?.isRunning == true
    else { return remove(stream) }
    let key = StreamKey(hostCID: stream.key.hostCID, hostPort: stream.key.hostPort, guestPort: port)
    guard streams[key] == nil else { return remove(stream) }
    streams[stream.key] = nil
    stream.key = key
    streams[key] = stream
    stream.state = .requested
    stream.pending.insert(.request)
    enqueue(stream)
  }

  // MARK: - Events of a stream's socket

  func handle(_ stream: VsockStream, _ events: UInt32) {
    if events & (EPOLLIN.rawValue | EPOLLRDHUP.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 {
      stream.readable = true
    }
    if events & EPOLLHUP.rawValue != 0 { stream.hungUp = true }
    switch stream.state {
    case .readingLine: readLine(stream)
    case .requested:
      if stream.hungUp {
        // The program did not wait for the guest's answer. Without our request the guest knows nothing yet.
        if stream.pending.contains(.request) { remove(stream) } else { reset(stream) }
      }
    case .established:
      if events & EPOLLOUT.rawValue != 0 { flush(stream) }
      guard stream.state == .established else { return }
      if stream.hungUp, stream.hostEnded || stream.guestShutdown.contains(.receive) {
        hostLeft(stream)
      } else if stream.wantsToSend {
        enqueue(stream)
      }
    case .draining:
      if events & EPOLLOUT.rawValue != 0 { flush(stream) }
      if stream.hungUp { remove(stream) }
    case .hostGone, .resetting, .retryingConnect: break
    }
  }

  /// Writes what was kept for the socket.
  private func flush(_ stream: VsockStream) {
    while let buffer = stream.buffer, buffer.count > 0 {
      let result = buffer.send(to: stream.fd)
      if result > 0 {
        stream.forwarded &+= UInt32(truncatingIfNeeded: result)
      } else if result == -Int(EAGAIN) {
        return advertise(stream)
      } else if stream.state == .draining {
        return remove(stream)
      } else if result == -Int(EPIPE) {
        return hostRefusesData(stream)
      } else {
        return reset(stream)
      }
    }
    releaseBuffer(stream)
    if stream.state == .draining { return remove(stream) }
    awaitWritable(stream, false)
    advertise(stream)
    endWriting(stream)
  }

  /// The socket has read end of file: the host has ended its half, or left.
  func hostEnded(_ stream: VsockStream) {
    stream.hostEnded = true
    stream.readable = false
    if stream.hungUp { return hostLeft(stream) }
    stream.hostShutdown.insert(.send)
    stream.pending.insert(.shutdown)
    enqueue(stream)
  }

  /// The host takes no more but may still send: the guest's writes fail, its reads go on.
  func hostRefusesData(_ stream: VsockStream) {
    stream.hostRefusesData = true
    stream.forwarded &+= UInt32(truncatingIfNeeded: stream.buffered)
    releaseBuffer(stream)
    awaitWritable(stream, false)
    stream.hostShutdown.insert(.receive)
    stream.pending.insert(.shutdown)
    enqueue(stream)
    endWriting(stream)
  }

  /// Both halves of the socket have ended and all it had is read: the guest is told and answers with a reset.
  func hostLeft(_ stream: VsockStream) {
    closeSocket(stream)
    if stream.guestShutdown == .both { return reset(stream) }
    stream.state = .hostGone
    stream.hostShutdown = .both
    stream.pending = stream.pending.intersection([.response]).union(.shutdown)
    enqueue(stream)
  }

  // MARK: - Ends

  /// Ends a stream at once on both sides; the guest is told as soon as it has a buffer for that.
  func reset(_ stream: VsockStream) {
    closeSocket(stream)
    stream.state = .resetting
    stream.pending = .reset
    enqueue(stream)
  }

  /// Ends a stream of which the guest knows nothing, or nothing more.
  func remove(_ stream: VsockStream) {
    closeSocket(stream)
    if streams[stream.key] === stream { streams[stream.key] = nil }
    let slot = slot(stream.token)
    guard slots.indices.contains(slot), slots[slot] === stream else { return }
    slots[slot] = nil
    generations[slot] &+= 1
    freeSlots.append(slot)
  }

  /// The guest has been switched off or reset: what it had sent is still written, everything else ends.
  func guestHasGone() {
    refusals.removeAll(keepingCapacity: true)
    for stream in slots {
      guard let stream, stream.state != .draining else { continue }
      if stream.state == .established, stream.buffered > 0 {
        startDraining(stream)
      } else {
        remove(stream)
      }
    }
  }

  private func closeSocket(_ stream: VsockStream) {
    if stream.fd >= 0 { _ = clinux_vhost_close(stream.fd) }
    stream.fd = -1
    stream.readable = false
    stream.awaitsWritable = false
    releaseBuffer(stream)
  }

  // MARK: - Table

  func slot(_ token: UInt64) -> Int { Int(token & 0xffff_ffff) }

  /// nil where that stream has ended, though an event of its socket may still have been under way.
  func stream(_ token: UInt64) -> VsockStream? {
    let slot = slot(token)
    guard slot < slots.count, let stream = slots[slot], stream.token == token else { return nil }
    return stream
  }

  private func addStream(_ key: StreamKey, _ state: VsockStream.State, _ fd: Int32) -> VsockStream? {
    guard slots.count - freeSlots.count < options.mostStreams, streams[key] == nil else { return nil }
    let slot: Int
    if let free = freeSlots.popLast() {
      slot = free
    } else {
      slot = slots.count
      slots.append(nil)
      generations.append(0)
    }
    let token = UInt64(generations[slot] & 0x7fff_ffff) << 32 | UInt64(slot)
    let stream = VsockStream(key: key, state: state, token: token, fd: fd)
    slots[slot] = stream
    streams[key] = stream
    return stream
  }

  private func watchStream(_ stream: VsockStream) -> Bool {
    clinux_vhost_epoll_control(epoll.rawValue, EPOLL_CTL_ADD, stream.fd, Self.interest, stream.token) == 0
  }

  func awaitWritable(_ stream: VsockStream, _ wanted: Bool) {
    guard stream.awaitsWritable != wanted, stream.fd >= 0 else { return }
    stream.awaitsWritable = wanted
    let events = wanted ? Self.interest | EPOLLOUT.rawValue : Self.interest
    _ = clinux_vhost_epoll_control(epoll.rawValue, EPOLL_CTL_MOD, stream.fd, events, stream.token)
  }
}
