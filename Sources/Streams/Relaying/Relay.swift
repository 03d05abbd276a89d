import CLinux
import EventLoop
import LinuxSystem
import Wire

// Theory of operation.
//
// A relay joins a plain socket (the program's or the endpoint's TCP connection) to a framed one (the transport's
// stream), or to a second plain one. Data goes, in each direction, through the loop's one scratch buffer:
//
//   plain ──read──▶ scratch[4…] ──header before it──▶ framed        1 read, 1 send per chunk, no copy
//   framed ──read──▶ scratch ──frames found, gathered──▶ plain       1 read, 1 sendmsg per chunk, no copy
//
// What a socket cannot take is copied into that direction's queue, and that direction is not read again until the
// queue is empty: so at most one scratch buffer's worth waits per direction, and the back-pressure reaches the far
// end. (A stream that has been closed is read to its end all the same: that is as much again as a socket holds.) Both
// descriptors are registered once, edge triggered. `RelayState` remembers what may be read or written and how far the
// ends have come, and says what is next; here it is done.
//
// The two directions end independently. `end` frames carry a FIN, `reset` frames an RST; a transport stream that
// closes without either was lost, and the plain socket is reset. A socket that takes no more is read to its end all the
// same: a server that answers 413 and closes has said why, and so has a stream with a reset in it. The plain socket is
// reset-on-close until both directions have ended in order, so that even SIGKILL of this process reaches the program as
// a reset.
//
// An urgent byte (MSG_OOB) stops a read in front of it, and is passed on as a frame of its own. It stays at its place in the
// stream; so it does not overtake what waits before it, as TCP's pointer to it does.
//
// What came before a reset is delivered before it. Linux keeps what is in a socket's receive queue when an RST comes
// (tcp_reset in net/ipv4/tcp_input.c leaves it, tcp_recvmsg gives it before the error), but a close that sends an RST
// throws away what is still in the send queue (tcp_disconnect). So before such a close the relay waits until the peer
// has acknowledged everything (SIOCOUTQ, tcp(7)). It waits for a peer that takes nothing at all for `patience`, and no
// longer: without a relay the reset would not have waited either.
//
// Nor does a reset follow at the heels of data. A server that refuses an upload answers, and closes a little later; a
// relay that was busy with the upload reads both at once. A client that is between its poll and its write then meets the
// reset and never looks for the answer (curl: "Send failure"). So the two are kept apart by `gap`.

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

  /// What a stream has to carry before it becomes wide: then it is one that waits for room, not for somebody's next word.
  private static let wideAfter: UInt64 = 1 << 20
  /// SO_SNDBUF of such a stream, if net.core.wmem_max allows it (socket(7)); the system's own is mostly 208 KiB, less than
  /// one read gives, so that the two processes would wait for each other at every turn. Twice as much is more than a
  /// processor's second cache, and slower.
  private static let wideRoom: Int32 = 1 << 19
  /// Reads before the next relay has its turn.
  private static let turnLimit = 8
  /// How long a reset waits for a peer that takes none of what is to go before it.
  public static let patience: Duration = .seconds(5)
  /// Milliseconds at least between data and a reset.
  private static let gap: Int32 = 5
  /// How often it is looked whether the peer has taken some, in nanoseconds: twice as long each time.
  private static let looks: ClosedRange<UInt64> = 1_000_000...50_000_000

  private let loop: EventLoop
  private let buffer: RelayBuffer
  private let plain: FileReference
  private let stream: FileReference
  private let framed: Bool
  private let patience: UInt64
  private let silenceIsReset: Bool
  private var plainRegistration: Registration?
  private var streamRegistration: Registration?
  private let onEnd: (Relay, End) -> Void
  private let pressure: RelayPressure?
  private var quiet: RelayQuiet?
  /// What `pressure` knows of this relay.
  private var reported = 0

  private var state: RelayState
  private var decoder = FrameDecoder()
  private var toStream = ByteQueue()
  private var toPlain = ByteQueue()
  /// Where in `toPlain` the last urgent byte is. Of an earlier one an ordinary byte remains, as in a kernel's own queue.
  private var mark: Int?
  /// The next read of the plain side could begin at an urgent byte of which no event has told yet.
  private var isUnsure = true
  /// While a reset waits: the timer, its delay, how long nothing has moved, and what had moved before that.
  private var watch: TimerToken?
  private var delay: UInt64 = 0
  private var idle: UInt64 = 0
  private var lastTotals = Totals()
  private var lastWaiting = 0
  private var isWide = false
  public private(set) var ended = false
  public private(set) var totals = Totals()

  /// Takes over two connected sockets; both become this relay's own.
  /// - Parameters:
  ///   - framed: speaks frames; what comes from it counts as from the transport.
  ///   - early: bytes of the framed stream that came with its handshake.
  ///   - patience: how long a reset waits for a peer that takes nothing of what goes before it.
  ///   - pressure: what this relay shares with others.
  ///   - timeouts: when it is reset although nothing is wrong.
  ///   - onEnd: called once, from the loop; the descriptors close when this object goes.
  public convenience init(
    loop: EventLoop, buffer: RelayBuffer, plain: FileReference, framed: FileReference, early: [UInt8] = [],
    patience: Duration = Relay.patience, pressure: RelayPressure? = nil, timeouts: RelayTimeouts? = nil,
    onEnd: @escaping (Relay, End) -> Void
  ) throws(SystemError) {
    try self.init(loop, buffer, plain, framed, framed: true, patience, pressure, timeouts, silenceIsReset: false, onEnd)
    if !early.isEmpty { early.withUnsafeBytes { deliver($0) } }
  }

  /// Joins two plain sockets: each one's end and reset become the other's.
  /// - Parameter silenceIsReset: the other one cannot reset; where it closes both ways without ever having said a byte, that
  ///   is what it means.
  public convenience init(
    loop: EventLoop, buffer: RelayBuffer, plain: FileReference, other: FileReference,
    patience: Duration = Relay.patience, pressure: RelayPressure? = nil, timeouts: RelayTimeouts? = nil,
    silenceIsReset: Bool = false, onEnd: @escaping (Relay, End) -> Void
  ) throws(SystemError) {
    setNoDelay(other.rawValue)
    setResetOnClose(other.rawValue, true)
    try self.init(
      loop, buffer, plain, other, framed: false, patience, pressure, timeouts, silenceIsReset: silenceIsReset, onEnd)
  }

  private init(
    _ loop: EventLoop, _ buffer: RelayBuffer, _ plain: FileReference, _ stream: FileReference, framed: Bool,
    _ patience: Duration, _ pressure: RelayPressure?, _ timeouts: RelayTimeouts?, silenceIsReset: Bool,
    _ onEnd: @escaping (Relay, End) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.buffer = buffer
    self.plain = plain
    self.stream = stream
    self.framed = framed
    self.patience = patience.nanoseconds
    self.onEnd = onEnd
    self.pressure = pressure
    self.silenceIsReset = silenceIsReset
    state = RelayState(framed: framed)
    super.init()
    setNoDelay(plain.rawValue)
    setResetOnClose(plain.rawValue, true)
    let interest: EventSet = [.readable, .writable, .readHangup, .priority, .edgeTriggered]
    plainRegistration = try loop.add(plain.rawValue, interest, self, tag: Self.tag(.plain))
    do throws(SystemError) {
      streamRegistration = try loop.add(stream.rawValue, interest, self, tag: Self.tag(.stream))
    } catch {
      if let registration = plainRegistration { loop.remove(registration) }
      throw error
    }
    if let timeouts {
      let quiet = RelayQuiet(timeouts, now: monotonicNanoseconds())
      quiet.timer = loop.schedule(after: quiet.look, self, key: Self.quietKey)
      self.quiet = quiet
    }
    // Data may have come before the registration.
    loop.enqueue(self)
  }

  /// Of the timer; that of `watch` has 0.
  private static let quietKey = 1

  private static func tag(_ side: RelaySide) -> Int { side == .plain ? 0 : 1 }

  override public func ready(_ events: EventSet, tag: Int) {
    var bits: RelayState.Bits = []
    if !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error]) { bits.insert(.readable) }
    if !events.isDisjoint(with: [.readHangup, .hangup, .error]) { bits.insert(.hangup) }
    if !events.isDisjoint(with: [.writable, .hangup, .error]) { bits.insert(.writable) }
    if events.contains(.error) { bits.insert(.broken) }
    if events.contains(.priority) { bits.formUnion([.readable, .urgent]) }
    state.happened(bits, tag == Self.tag(.plain) ? .plain : .stream)
    resume()
  }

  override public func resume() {
    guard !ended else { return }
    var turns = Self.turnLimit
    steps: while !ended {
      switch state.next {
      case .wait: break steps
      case .read(let side):
        if turns == 0 {
          loop.enqueue(self)
          break steps
        }
        turns -= 1
        if side == .stream, framed { readFrames() } else { readBare(side) }
      case .write(let side): flush(side)
      case .shut(let side): shut(side)
      case .tell(let side, let end):
        if case .reset(let status) = end { queue(Frame.reset(status), side) }
        state.didTell(side)
      case .ask(let side):
        let code = socketError(descriptor(side))
        state.asked(side, code == 0 ? nil : .reset(Status(errno: code)))
      case .settle(let side):
        if unacknowledgedBytes(descriptor(side)) == 0, !hasJustSpoken(to: side) {
          finish(state.ending?.end ?? .transportLost)
        } else {
          break steps
        }
      case .finish(let end): finish(end)
      }
    }
    if !ended, watch == nil, state.isImpatient { startWatch() }
    report()
  }

  @inline(__always) private func report() {
    guard let pressure else { return }
    let held = ended ? 0 : toPlain.held + toStream.held
    guard held != reported else { return }
    pressure.change(by: held - reported)
    reported = held
  }

  /// How much of the buffer may be filled by one read.
  @inline(__always) private var room: Int {
    guard let pressure else { return buffer.memory.count }
    return min(buffer.memory.count, pressure.room)
  }

  @inline(__always) private func descriptor(_ side: RelaySide) -> Int32 {
    side == .plain ? plain.rawValue : stream.rawValue
  }

  private func hasJustSpoken(to side: RelaySide) -> Bool {
    (side == .plain ? totals.fromTransport : totals.toTransport) > 0 && sentData(within: Self.gap, descriptor(side))
  }

  // MARK: from a plain side

  private func readBare(_ side: RelaySide) {
    let isFramed = side == .plain && framed
    if isFramed, isUnsure || state[side].contains(.urgent), passUrgent() { return }
    let header = isFramed ? Frame.headerLength : 0
    let room = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[header..<room])
    switch readBytes(descriptor(side), room) {
    case .bytes(0): if isRefusal(side) { state.conclude(.reset(.reset), by: side) } else { state.ended(side) }
    case .bytes(let count):
      state.gave(side, short: count < room.count)
      if isFramed { isUnsure = count == room.count }
      guard state.takes(side.other) else { return }
      if side == .plain { totals.toTransport &+= UInt64(count) } else { totals.fromTransport &+= UInt64(count) }
      if header > 0 { Frame.writeDataHeader(count, to: buffer.memory) }
      send(UnsafeRawBufferPointer(rebasing: buffer.memory[..<(header + count)]), side.other)
    case .wouldBlock: state.drained(side)
    case .failed(let code): state.conclude(state.failure(side) ?? .reset(Status(errno: code)), by: side)
    }
  }

  /// Where the plain side's next byte is an urgent one it goes as such: a read would leave it out.
  private func passUrgent() -> Bool {
    isUnsure = false
    guard let byte = receiveUrgent(plain.rawValue) else { return false }
    guard state.takes(.stream) else { return true }
    totals.toTransport &+= 1
    Frame.urgent(byte).withUnsafeBytes { send($0, .stream) }
    return true
  }

  /// The other socket has closed both ways before it has said anything.
  private func isRefusal(_ side: RelaySide) -> Bool {
    silenceIsReset && side == .stream && totals.fromTransport == 0 && !state[side].contains(.finSent)
      && takesNothing(stream.rawValue)
  }

  private func send(_ bytes: UnsafeRawBufferPointer, _ side: RelaySide) {
    var sent = 0
    while sent < bytes.count {
      switch sendBytes(descriptor(side), UnsafeRawBufferPointer(rebasing: bytes[sent...])) {
      case .bytes(let count): sent += count
      case .wouldBlock:
        state.wouldBlock(side)
        if side == .stream { widen() }
        if side == .plain {
          toPlain.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        } else {
          toStream.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        }
        state.setQueued(side, true)
        return
      case .failed(let code): return refused(side, code)
      }
    }
  }

  private func widen() {
    guard framed, !isWide, totals.toTransport >= Self.wideAfter, buffer.takeWide() else { return }
    isWide = true
    _ = clinux_set_option(stream.rawValue, SOL_SOCKET, SO_SNDBUF, Self.wideRoom)
  }

  // MARK: from the framed side

  private func readFrames() {
    let room = UnsafeMutableRawBufferPointer(rebasing: buffer.memory[..<room])
    switch readBytes(stream.rawValue, room) {
    case .bytes(0), .failed: state.closed(.stream)
    case .bytes(let count):
      state.gave(.stream, short: count < room.count)
      deliver(UnsafeRawBufferPointer(rebasing: buffer.memory[..<count]))
    case .wouldBlock: state.drained(.stream)
    }
  }

  /// Passes the payload of the frames in `bytes` on, gathered in as few calls as possible.
  private func deliver(_ bytes: UnsafeRawBufferPointer) {
    var offset = 0
    var vectorCount = 0
    var payload = 0
    var end: End?
    do throws(WireError) {
      frames: while let event = try decoder.next(in: bytes, offset: &offset) {
        switch event {
        case .data(let range):
          if vectorCount == buffer.vectors.count {
            write(vectorCount, payload)
            vectorCount = 0
            payload = 0
          }
          buffer.vectors[vectorCount] = iovec(
            iov_base: UnsafeMutableRawPointer(mutating: bytes.baseAddress.map { $0 + range.lowerBound }),
            iov_len: range.count)
          vectorCount += 1
          payload += range.count
        case .urgent(let byte):
          if vectorCount > 0 { write(vectorCount, payload) }
          vectorCount = 0
          payload = 0
          writeUrgent(byte)
        case .end: state.ended(.stream)
        case .reset(let status):
          end = .reset(status)
          break frames
        }
      }
    } catch {
      end = .protocolError(error)
    }
    if vectorCount > 0 { write(vectorCount, payload) }
    if let end { state.conclude(end, by: .stream) }
  }

  private func write(_ vectorCount: Int, _ payload: Int) {
    guard state.takes(.plain) else { return }
    totals.fromTransport &+= UInt64(payload)
    var written = 0
    if toPlain.isEmpty {
      switch IOResult(clinux_send_vectors(plain.rawValue, buffer.vectors.baseAddress, vectorCount)) {
      case .bytes(let count): written = count
      case .wouldBlock: state.wouldBlock(.plain)
      case .failed(let code): return refused(.plain, code)
      }
    }
    guard written < payload else { return }
    for vector in buffer.vectors[..<vectorCount] {
      let skip = min(written, vector.iov_len)
      written -= skip
      toPlain.append(UnsafeRawBufferPointer(start: vector.iov_base + skip, count: vector.iov_len - skip))
    }
    state.setQueued(.plain, true)
  }

  private func writeUrgent(_ byte: UInt8) {
    guard state.takes(.plain) else { return }
    totals.fromTransport &+= 1
    if toPlain.isEmpty {
      switch sendUrgent(plain.rawValue, byte) {
      case .bytes: return
      case .wouldBlock: state.wouldBlock(.plain)
      case .failed(let code): return refused(.plain, code)
      }
    }
    mark = toPlain.count
    queue([byte], .plain)
  }

  // MARK: to either side

  /// Up to the urgent byte, or that one.
  private func flush(to mark: Int) {
    let fd = plain.rawValue
    let result = toPlain.withBytes { bytes in
      if mark == 0, let byte = bytes.first { return sendUrgent(fd, byte) }
      return sendBytes(fd, UnsafeRawBufferPointer(rebasing: bytes.prefix(mark)))
    }
    switch result {
    case .bytes(let count):
      toPlain.consume(count)
      self.mark = count > mark ? nil : mark - count
      state.setQueued(.plain, !toPlain.isEmpty)
    case .wouldBlock: state.wouldBlock(.plain)
    case .failed(let code): refused(.plain, code)
    }
  }

  private func flush(_ side: RelaySide) {
    if side == .plain, let mark { return flush(to: mark) }
    let fd = descriptor(side)
    switch side == .plain ? toPlain.withBytes({ sendBytes(fd, $0) }) : toStream.withBytes({ sendBytes(fd, $0) }) {
    case .bytes(let count):
      if side == .plain { toPlain.consume(count) } else { toStream.consume(count) }
      state.setQueued(side, !(side == .plain ? toPlain.isEmpty : toStream.isEmpty))
    case .wouldBlock: state.wouldBlock(side)
    case .failed(let code): refused(side, code)
    }
  }

  private func queue(_ bytes: [UInt8], _ side: RelaySide) {
    if side == .plain { toPlain.append(bytes) } else { toStream.append(bytes) }
    state.setQueued(side, true)
  }

  private func shut(_ side: RelaySide) {
    state.happened(.finSent, side)
    if side == .stream, framed { queue(Frame.end, side) } else { shutdownSending(descriptor(side)) }
  }

  private func refused(_ side: RelaySide, _ code: Int32) {
    if side == .plain {
      toPlain = ByteQueue()
      mark = nil
    } else {
      toStream = ByteQueue()
    }
    state.refused(side, side == .stream && framed ? .transportLost : .reset(Status(errno: code)))
  }

  // MARK: a reset that waits

  private func startWatch() {
    delay = Self.looks.lowerBound
    idle = 0
    lastTotals = totals
    lastWaiting = waiting
    watch = loop.schedule(after: .nanoseconds(Int64(delay)), self)
  }

  /// Bytes that have not arrived yet.
  private var waiting: Int {
    var count = toPlain.count + toStream.count + unacknowledgedBytes(plain.rawValue)
    if !framed { count += unacknowledgedBytes(stream.rawValue) }
    return count
  }

  override public func timerFired(_ key: Int) {
    resume()
    guard !ended else { return }
    if key == Self.quietKey { return lookWhetherQuiet() }
    guard state.isImpatient else {
      watch = nil
      return
    }
    let moved = totals != lastTotals || waiting != lastWaiting
    idle = moved ? 0 : idle + delay
    guard idle < patience else { return giveUp() }
    lastTotals = totals
    lastWaiting = waiting
    delay = min(delay * 2, Self.looks.upperBound)
    watch = loop.schedule(after: .nanoseconds(Int64(delay)), self)
  }

  private func giveUp() {
    if let end = state.ending?.end ?? state.failure(.plain) ?? state.failure(.stream) { return finish(end) }
    let code = socketError(plain.rawValue)
    finish(.reset(Status(errno: code != 0 || framed ? code : socketError(stream.rawValue))))
  }

  // MARK: a connection on which nothing happens

  private func lookWhetherQuiet() {
    guard let quiet else { return }
    guard !quiet.isOver(totals, isHalfClosed: state.isHalfClosed, now: monotonicNanoseconds()) else {
      // What waits is not taken: without it the stream ends in the middle, which is as good as a reset.
      if framed, toStream.isEmpty {
        _ = Frame.reset(.timedOut).withUnsafeBytes { sendBytes(stream.rawValue, $0) }
      }
      return finish(.reset(.timedOut))
    }
    quiet.timer = loop.schedule(after: quiet.look, self, key: Self.quietKey)
  }

  // MARK: the end

  private func finish(_ end: End) {
    guard !ended else { return }
    ended = true
    if let registration = plainRegistration { loop.remove(registration) }
    if let registration = streamRegistration { loop.remove(registration) }
    if let watch { loop.cancel(watch) }
    if isWide { buffer.giveWide() }
    if let timer = quiet?.timer { loop.cancel(timer) }
    if end == .completed {
      setResetOnClose(plain.rawValue, false)
      if !framed { setResetOnClose(stream.rawValue, false) }
    }
    report()
    onEnd(self, end)
  }

  /// Ends the relay with a reset of the plain side, whatever its state.
  public func abort() { finish(.transportLost) }
}
