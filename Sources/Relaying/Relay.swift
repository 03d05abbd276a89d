import CLinux
import EventLoop
import LinuxSystem
import Wire

// Theory of operation.
//
// A relay joins a plain socket (the program's or the endpoint's TCP connection) to a framed one (the transport's
// stream). Data goes, in each direction, through the loop's one scratch buffer:
//
//   plain ──read──▶ scratch[4…] ──header before it──▶ framed        1 read, 1 send per chunk, no copy
//   framed ──read──▶ scratch ──frames found, gathered──▶ plain       1 read, 1 writev per chunk, no copy
//
// What a socket cannot take is copied into that direction's queue, and that direction is not read again until the
// queue is empty: so at most one scratch buffer's worth waits per direction, and the back-pressure reaches the far
// end. Both descriptors are registered once, edge triggered; what may be read or written is remembered here.
//
// The two directions end independently. `end` frames carry a FIN, `reset` frames an RST; a transport stream that
// closes without either was lost, and the plain socket is reset. A socket that takes no more is read to its end all the
// same: a server that answers 413 and closes has said why, and so has a stream with a reset in it. The plain socket is
// reset-on-close until both directions have ended in order, so that even SIGKILL of this process reaches the program as
// a reset.

/// Memory shared by all relays of a loop.
public final class RelayBuffer {
  /// Bytes moved by one read at most.
  public static let chunk = 256 * 1024
  let memory: UnsafeMutableRawBufferPointer
  let vectors: UnsafeMutableBufferPointer<iovec>

  public init() {
    memory = .allocate(byteCount: Self.chunk, alignment: 16)
    vectors = .allocate(capacity: 64)
  }

  deinit {
    memory.deallocate()
    vectors.deallocate()
  }
}

/// One relayed connection.
public final class Relay: EventSource {
  /// How a relay ended.
  public enum End: Equatable, Sendable {
    case completed
    /// One of the endpoints reset the connection.
    case reset(Status)
    /// The transport's stream was lost.
    case transportLost
    case protocolError(WireError)
  }

  public struct Totals: Equatable, Sendable {
    public var toTransport: UInt64 = 0
    public var fromTransport: UInt64 = 0
  }

  private static let plainTag = 0
  private static let framedTag = 1
  /// Reads per direction before the next relay has its turn.
  private static let turnLimit = 4

  private let loop: EventLoop
  private let buffer: RelayBuffer
  private let plain: FileHandle
  private let framed: FileHandle
  private var plainRegistration: Registration?
  private var framedRegistration: Registration?
  private let onEnd: (Relay, End) -> Void

  private var decoder = FrameDecoder()
  private var toFramed = ByteQueue()
  private var toPlain = ByteQueue()
  private var plainReadable = true
  private var plainWritable = true
  private var framedReadable = true
  private var framedWritable = true
  private var plainHangup = false
  private var framedHangup = false
  /// The plain side has sent its FIN, and an `end` frame is on its way.
  private var plainEnded = false
  /// The `end` frame of the other side has come.
  private var framedEnded = false
  /// That end has been passed on to the plain socket.
  private var plainShut = false
  /// A reset frame is in `toFramed`: the relay ends when it has been sent.
  private var resetting: Status?
  /// The plain socket takes nothing any more; what it still has to say is read, then comes the reset.
  private var plainFailure: Status?
  /// The stream takes nothing any more; what it still has to say is read.
  private var framedFailed = false
  public private(set) var ended = false
  public private(set) var totals = Totals()

  /// Takes over two connected sockets; both become this relay's own.
  /// - Parameter early: bytes of the framed stream that came with its handshake.
  /// - Parameter onEnd: called once; the descriptors close when this object goes.
  public init(
    loop: EventLoop, buffer: RelayBuffer, plain: FileHandle, framed: FileHandle, early: [UInt8] = [],
    onEnd: @escaping (Relay, End) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.buffer = buffer
    self.plain = plain
    self.framed = framed
    self.onEnd = onEnd
    super.init()
    setNoDelay(plain.rawValue)
    setResetOnClose(plain.rawValue, true)
    let interest: EventSet = [.readable, .writable, .readHangup, .edgeTriggered]
    plainRegistration = try loop.add(plain.rawValue, interest, self, tag: Self.plainTag)
    do throws(SystemError) {
      framedRegistration = try loop.add(framed.rawValue, interest, self, tag: Self.framedTag)
    } catch {
      if let registration = plainRegistration { loop.remove(registration) }
      throw error
    }
    if !early.isEmpty { early.withUnsafeBytes { deliver($0) } }
    // Data may have come before the registration, or wait behind `early`.
    if !ended { loop.enqueue(self) }
  }

  override public func ready(_ events: EventSet, tag: Int) {
    let readable = !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error])
    let hangup = !events.isDisjoint(with: [.readHangup, .hangup, .error])
    let writable = !events.isDisjoint(with: [.writable, .hangup, .error])
    if tag == Self.plainTag {
      plainReadable = plainReadable || readable
      plainWritable = plainWritable || writable
      plainHangup = plainHangup || hangup
    } else {
      framedReadable = framedReadable || readable
      framedWritable = framedWritable || writable
      framedHangup = framedHangup || hangup
    }
    resume()
  }

  override public func resume() {
    guard !ended else { return }
    flushToFramed()
    if !ended { flushToPlain() }
    var turns = Self.turnLimit
    while !ended, turns > 0 {
      let out = canReadPlain
      if out { readPlain() }
      let back = !ended && canReadFramed
      if back { readFramed() }
      guard out || back else { break }
      turns -= 1
    }
    if !ended, canReadPlain || canReadFramed { loop.enqueue(self) }
  }

  private var canReadPlain: Bool {
    plainReadable && !plainEnded && toFramed.isEmpty && resetting == nil && !framedFailed
  }
  private var canReadFramed: Bool {
    framedReadable && toPlain.isEmpty && resetting == nil && plainFailure == nil
  }

  // MARK: plain → framed

  private func readPlain() {
    let payload = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[Frame.headerLength...])
    switch readBytes(plain.rawValue, payload) {
    case .bytes(0):
      if let plainFailure { return reset(plainFailure) }
      plainEnded = true
      toFramed.append(Frame.end)
      flushToFramed()
    case .bytes(let count):
      // A short read means that the socket is empty: the next edge tells. Not so when an end is already known.
      if count < payload.count, !plainHangup { plainReadable = false }
      totals.toTransport &+= UInt64(count)
      Frame.writeDataHeader(count, to: buffer.memory)
      send(UnsafeRawBufferPointer(rebasing: buffer.memory[..<(Frame.headerLength + count)]))
    case .wouldBlock:
      plainReadable = false
      if let plainFailure { reset(plainFailure) }
    case .failed(let code):
      reset(plainFailure ?? Status(errno: code))
    }
  }

  private func send(_ bytes: UnsafeRawBufferPointer) {
    var sent = 0
    while sent < bytes.count {
      switch sendBytes(framed.rawValue, UnsafeRawBufferPointer(rebasing: bytes[sent...])) {
      case .bytes(let count): sent += count
      case .wouldBlock:
        framedWritable = false
        toFramed.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        return
      case .failed:
        framedTakesNoMore()
        return
      }
    }
  }

  private func framedTakesNoMore() {
    framedFailed = true
    toFramed = ByteQueue()
    framedReadable = true
    framedHangup = true
    // A reset that cannot be passed on is the end all the same.
    if let status = resetting ?? plainFailure { finish(.reset(status)) } else { loop.enqueue(self) }
  }

  private func flushToFramed() {
    while !toFramed.isEmpty, framedWritable {
      switch toFramed.withBytes({ sendBytes(framed.rawValue, $0) }) {
      case .bytes(let count): toFramed.consume(count)
      case .wouldBlock: framedWritable = false
      case .failed:
        framedTakesNoMore()
        return
      }
    }
    if toFramed.isEmpty, let resetting {
      finish(.reset(resetting))
    } else {
      finishIfBothEnded()
    }
  }

  // MARK: framed → plain

  private func readFramed() {
    switch readBytes(framed.rawValue, buffer.memory) {
    case .bytes(0):
      // After both ends have been exchanged the other side closes first: that is the regular end.
      finish(framedEnded && plainEnded && toFramed.isEmpty && !framedFailed ? .completed : .transportLost)
    case .bytes(let count):
      if count < buffer.memory.count, !framedHangup { framedReadable = false }
      deliver(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count]))
    case .wouldBlock:
      framedReadable = false
      if framedFailed { finish(.transportLost) }
    case .failed:
      finish(.transportLost)
    }
  }

  /// Passes the payload of the frames in `bytes` on, gathered in as few calls as possible.
  private func deliver(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    var vectorCount = 0
    var payload = 0
    do throws(WireError) {
      while let event = try decoder.next(in: bytes, offset: &offset) {
        switch event {
        case .data(let range):
          if vectorCount == buffer.vectors.count {
            write(vectorCount, payload)
            guard !ended, resetting == nil, plainFailure == nil else { return }
            vectorCount = 0
            payload = 0
          }
          buffer.vectors[vectorCount] = iovec(
            iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress.map { $0 + range.lowerBound }),
            iov_len: range.count)
          vectorCount += 1
          payload += range.count
        case .end:
          framedEnded = true
        case .reset(let status):
          finish(.reset(status))
          return
        }
      }
    } catch {
      finish(.protocolError(error))
      return
    }
    if vectorCount > 0 { write(vectorCount, payload) }
    if !ended, resetting == nil { flushToPlain() }
  }

  private func write(_ vectorCount: Int, _ payload: Int) {
    totals.fromTransport &+= UInt64(payload)
    var written = 0
    if toPlain.isEmpty {
      switch IOResult(clinux_writev(plain.rawValue, buffer.vectors.baseAddress, Int32(vectorCount))) {
      case .bytes(let count): written = count
      case .wouldBlock: plainWritable = false
      case .failed(let code):
        plainTakesNoMore(Status(errno: code))
        return
      }
    }
    guard written < payload else { return }
    for vector in buffer.vectors[..<vectorCount] {
      let skip = min(written, vector.iov_len)
      written -= skip
      toPlain.append(UnsafeRawBufferPointer(start: vector.iov_base + skip, count: vector.iov_len - skip))
    }
  }

  private func flushToPlain() {
    guard plainFailure == nil else { return }
    while !toPlain.isEmpty, plainWritable {
      switch toPlain.withBytes({ sendBytes(plain.rawValue, $0) }) {
      case .bytes(let count): toPlain.consume(count)
      case .wouldBlock: plainWritable = false
      case .failed(let code):
        plainTakesNoMore(Status(errno: code))
        return
      }
    }
    if framedEnded, toPlain.isEmpty, !plainShut {
      plainShut = true
      shutdownSending(plain.rawValue)
    }
    finishIfBothEnded()
  }

  // MARK: the end

  private func plainTakesNoMore(_ status: Status) {
    guard plainFailure == nil else { return }
    plainFailure = status
    toPlain = ByteQueue()
    plainReadable = true
    plainHangup = true
    if plainEnded || framedFailed { reset(status) } else { loop.enqueue(self) }
  }

  /// The plain side was reset: say so to the other side, then end.
  private func reset(_ status: Status) {
    guard resetting == nil else { return }
    resetting = status
    if framedFailed { return finish(.reset(status)) }
    toFramed.append(Frame.reset(status))
    flushToFramed()
  }

  private func finishIfBothEnded() {
    if plainEnded, toFramed.isEmpty, plainShut, !framedFailed { finish(.completed) }
  }

  private func finish(_ end: End) {
    guard !ended else { return }
    ended = true
    if let registration = plainRegistration { loop.remove(registration) }
    if let registration = framedRegistration { loop.remove(registration) }
    if end == .completed { setResetOnClose(plain.rawValue, false) }
    onEnd(self, end)
  }

  /// Ends the relay with a reset of the plain side, whatever its state.
  public func abort() { finish(.transportLost) }
}
