import CLinux
import LinuxSystem

/// What an epoll event is about: these values, or a stream's token.
enum EventToken {
  static let stop = UInt64.max
  static let monitorListener = UInt64.max - 1
  static let monitor = UInt64.max - 2
  static let receiveKick = UInt64.max - 3
  static let transmitKick = UInt64.max - 4
  static let hybridListener = UInt64.max - 5
}

/// A virtio-vsock device for a virtual machine monitor, outside of it: vhost-user on one side, Unix sockets on the other.
///
/// Theory of operation. The monitor (QEMU) connects to `socketPath` and hands over the guest's memory, two virtqueues
/// and their eventfds. From then on data moves without it, in one epoll loop:
///
/// 1. A packet in the guest's transmit queue is written straight from the guest's memory to its stream's Unix socket.
///    What the socket does not take is kept. How much that can be, the guest is told (`buf_alloc`), and it learns of more
///    room only as bytes are taken (`fwd_cnt`); all streams together have a limit (`CreditPool`). A guest that sends more
///    all the same has its stream reset.
/// 2. What a Unix socket has for the guest is read straight into its receive buffers, several packets by one call, and
///    never more than the guest has said it can hold. Streams take turns.
/// 3. Control packets (accept, refuse, shut down, credit) wait as bits of their stream, so their number is bounded by
///    that of the streams; refusals of streams that never were wait in a short list, and while that is full the
///    transmit queue is not read.
///
/// The Unix side is the hybrid convention of Firecracker and Cloud Hypervisor: a guest's connection to port N is a
/// connection to `<hybridPath>_N` (nobody there: the guest is refused at once; who it is: `HybridPeerName`); a program
/// that connects to `hybridPath` and writes `CONNECT N\n` is answered `OK <port>\n` when the guest has accepted, and
/// closed when it has not. Halves end separately in both directions.
///
/// Why it has a loop and calls of its own, and not `EventLoop` and the sockets of `LinuxSystem`:
///
/// - Its work is two rings in shared memory. While there is work the guest is told not to kick, so no event tells of more:
///   the rings are looked at behind every batch of events, whatever it was about, and the loop may sleep only when each ring
///   has been asked to kick and was empty once more after that. `EventLoop` sleeps when no source has asked for a turn.
/// - A stream is a number here, slot and generation in the event's own 64 bits. There can be 16,384 of them, and one that
///   ends in the middle of a batch has to be out of the table at once, since the guest may open the next one under the same
///   ports in the same batch.
/// - EAGAIN, EPIPE and ECONNREFUSED are the everyday answers here, several for each packet, and each means another packet to
///   the guest. So calls give negative errno values, and errors with sentences (`SystemError`) are made only for what ends
///   the device. Most are calls that nothing else in this package makes: reads and writes over lists of pieces of the
///   guest's memory, a connection from an abstract name, a peek at a line.
///
/// What is the same elsewhere (clocks, removal of files, descriptors passed over sockets) comes from there.
///
/// Nothing that the guest writes is trusted: each index, address and length is checked against its memory. A guest that
/// breaks the rules ends `run` with a sentence; a stream that does is reset.
///
/// Sources: virtio 1.2, 2.7 and 5.10; QEMU's docs/interop/vhost-user.rst; Firecracker's docs/vsock.md.
public final class VhostVsockDevice: @unchecked Sendable {
  public struct Options: Sendable {
    /// The parent's CID that connections from the host come from: 3 as on Nitro; 2 on most other hypervisors. A guest
    /// may connect to either.
    public var parentCID: UInt32 = 3
    /// Streams at the same time, including those being set up; more are refused.
    public var mostStreams = 16384
    /// Bytes kept for one stream whose Unix socket is slower than the guest, at the most.
    public var bufferSize = 262_144
    /// Bytes kept for all streams together, at the most (`CreditPool`).
    public var heldSize = 128 << 20
    /// `run` returns when the monitor has disconnected, instead of waiting for the next one.
    public var endsWithMonitor = false
    /// Milliseconds that `run` waits at its end for slow readers of what the guest had sent.
    public var drainTime: Int32 = 2000
    public init() {}
  }

  let guestCID: UInt32
  let hybridPath: String
  let options: Options
  let epoll: OwnedFileDescriptor
  private let monitorListener: UnixListener
  let hybridListener: UnixListener
  var session: VhostUserSession?

  // Streams: a table of slots, found by key for packets and by token (slot, generation) for events.
  var slots: ContiguousArray<VsockStream?> = []
  var generations: ContiguousArray<UInt32> = []
  var freeSlots: ContiguousArray<Int> = []
  var streams: [StreamKey: VsockStream] = [:]
  /// Streams with something for the guest, in turn; each at most once.
  var ready = TokenQueue()
  /// Resets for packets that belong to no stream.
  var refusals: ContiguousArray<VsockHeader> = []
  static let mostRefusals = 256
  /// Streams whose Unix socket had a full backlog.
  var retrying: [UInt64] = []
  /// No descriptor was left for a new connection: none is accepted until then (monotonic milliseconds).
  var acceptPausedUntil: Int64?
  var nextHostPort: UInt32 = 1 << 30
  var connectionCount: UInt64 = 0
  /// What streams may have us hold.
  var credit: CreditPool
  private static let leastFloor = 1024
  /// Buffers of full size that are not in use now.
  var spareBuffers: [ByteRing] = []
  static let mostSpareBuffers = 16

  // Reused for every packet.
  let chainVectors = VectorList.allocate()
  let payloadVectors = VectorList.allocate()
  let chains = UnsafeMutablePointer<ReceiveChain>.allocate(capacity: mostChains)
  let headerBytes = UnsafeMutableRawBufferPointer.allocate(byteCount: VsockHeader.size, alignment: 8)
  static let mostChains = 32
  private let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: mostEvents)
  private static let mostEvents = 128

  /// Listens on both paths. Nothing moves before `run`.
  /// - Parameters:
  ///   - socketPath: where the monitor connects (`-chardev socket,path=…`); at most 107 bytes.
  ///   - guestCID: 3 to 4294967294.
  ///   - hybridPath: at most 96 bytes, because `_4294967295` must fit after it.
  public init(
    socketPath: String, guestCID: UInt32, hybridPath: String, options: Options = Options()
  ) throws(VhostVsockError) {
    guard guestCID >= 3, guestCID != UInt32.max else {
      throw .configuration("CID \(guestCID) cannot be a guest's; 3 to 4294967294 can")
    }
    guard options.parentCID == 2 || options.parentCID == 3 else {
      throw .configuration("CID \(options.parentCID) cannot be the parent's; 2 and 3 can")
    }
    guard options.bufferSize >= 65536, options.bufferSize <= 1 << 30, options.mostStreams > 0 else {
      throw .configuration("a stream's buffer must have 65536 bytes to 1 GiB, and there must be room for one stream")
    }
    guard options.heldSize / 2 / options.mostStreams >= Self.leastFloor else {
      throw .configuration(
        "what is held for all streams must be at least \(2 * Self.leastFloor) bytes for each of them")
    }
    var options = options
    // A guest with CID 3 would take a connection from CID 3 for one of its own.
    if guestCID == 3 { options.parentCID = 2 }
    self.guestCID = guestCID
    self.hybridPath = hybridPath
    self.options = options
    credit = CreditPool(total: options.heldSize, window: options.bufferSize, streams: options.mostStreams)
    monitorListener = try UnixListener(path: socketPath, backlog: 1)
    hybridListener = try UnixListener(path: hybridPath, room: 11, backlog: 1024)
    let descriptor = clinux_vhost_epoll_create()
    guard descriptor >= 0 else { throw .system(SystemError("epoll_create1", errno: -descriptor)) }
    epoll = OwnedFileDescriptor(descriptor)
    refusals.reserveCapacity(Self.mostRefusals)
    chains.initialize(repeating: ReceiveChain(), count: Self.mostChains)
    try watch(monitorListener.fd, EventToken.monitorListener)
    try watch(hybridListener.fd, EventToken.hybridListener)
  }

  deinit {
    session = nil
    for stream in slots { if let stream, stream.fd >= 0 { _ = clinux_vhost_close(stream.fd) } }
    chainVectors.deallocate()
    payloadVectors.deallocate()
    chains.deallocate()
    headerBytes.deallocate()
    events.deallocate()
  }

  /// Serves the guest until `stop` can be read from (an eventfd, a signalfd; it is not read). Call it on one thread, once.
  /// - Throws: where the guest or the monitor breaks the rules, or the machine has no resources left.
  public func run(until stop: Int32) throws(VhostVsockError) {
    try watch(stop, EventToken.stop)
    defer { _ = clinux_vhost_epoll_control(epoll.rawValue, EPOLL_CTL_DEL, stop, 0, 0) }
    defer { end() }
    var busy = false
    while true {
      let waiting: Int32 = busy ? 0 : !retrying.isEmpty || acceptPausedUntil != nil ? 5 : -1
      for index in 0..<Int(try wait(waiting)) {
        let token = clinux_vhost_epoll_token(events + index)
        switch token {
        case EventToken.stop: return
        case EventToken.monitorListener: try acceptMonitor()
        case EventToken.monitor:
          try receiveFromMonitor()
          if session == nil, options.endsWithMonitor { return }
        case EventToken.receiveKick: drain(session?.receiveQueue.kick)
        case EventToken.transmitKick: drain(session?.transmitQueue.kick)
        case EventToken.hybridListener: acceptHybrid()
        default: if let stream = stream(token) { handle(stream, (events + index).pointee.events) }
        }
      }
      retryConnects()
      busy = try pump()
    }
  }

  private func wait(_ milliseconds: Int32) throws(VhostVsockError) -> Int32 {
    let count = clinux_vhost_epoll_wait(epoll.rawValue, events, Int32(Self.mostEvents), milliseconds)
    guard count >= 0 else { throw .system(SystemError("epoll_wait", errno: -count)) }
    return count
  }

  /// Closes every stream; what the guest had sent before it went is given `drainTime` to be taken.
  private func end() {
    endSession()
    let deadline = monotonicMilliseconds() + Int64(options.drainTime)
    while slots.contains(where: { $0?.state == .draining }) {
      let left = deadline - monotonicMilliseconds()
      guard left > 0, let count = try? wait(Int32(truncatingIfNeeded: min(left, 20))) else { break }
      for index in 0..<Int(count) {
        let token = clinux_vhost_epoll_token(events + index)
        if let stream = stream(token), stream.state == .draining { handle(stream, (events + index).pointee.events) }
      }
    }
    for stream in slots { if let stream { remove(stream) } }
  }

  func watch(_ fd: Int32, _ token: UInt64) throws(VhostVsockError) {
    let result = clinux_vhost_epoll_control(epoll.rawValue, EPOLL_CTL_ADD, fd, EPOLLIN.rawValue, token)
    if result < 0 { throw .system(SystemError("epoll_ctl", errno: -result)) }
  }

  private func drain(_ eventfd: Int32?) {
    var count: UInt64 = 0
    if let eventfd { _ = clinux_read(eventfd, &count, 8) }
  }

  // MARK: - The monitor

  private func acceptMonitor() throws(VhostVsockError) {
    let fd = clinux_accept(monitorListener.fd, nil)
    guard fd >= 0 else { return }
    guard session == nil else {
      // One guest each: a second monitor sees its connection closed.
      _ = clinux_vhost_close(fd)
      return
    }
    let made = VhostUserSession(fd: fd, epoll: epoll.rawValue, guestCID: guestCID)
    session = made
    try watch(fd, EventToken.monitor)
  }

  private func receiveFromMonitor() throws(VhostVsockError) {
    guard let session else { return }
    // A guest that has just been switched off may have left its last words in the queue.
    if session.isRunning { try takeLastPackets(session) }
    let there = try session.receive()
    if session.wasStopped {
      session.wasStopped = false
      guestHasGone()
    }
    if !there { endSession() }
  }

  private func endSession() {
    guard let session else { return }
    if session.isRunning { try? takeLastPackets(session) }
    self.session = nil
    guestHasGone()
  }

  // MARK: - Work

  /// Moves packets both ways. True where more can be moved at once; otherwise the driver has been asked to kick.
  private func pump() throws(VhostVsockError) -> Bool {
    guard let session, session.isRunning else { return false }
    session.transmitQueue.suppressKick()
    session.receiveQueue.suppressKick()
    for _ in 0..<16 {
      let sent = try serviceTransmit(session)
      let received = try serviceReceive(session)
      if sent || received { continue }
      var more = false
      if refusals.count < Self.mostRefusals { more = try session.transmitQueue.requestKick() }
      if !ready.isEmpty || !refusals.isEmpty { more = try session.receiveQueue.requestKick() || more }
      if !more { return false }
    }
    return true
  }
}

func monotonicMilliseconds() -> Int64 { Int64(clamping: monotonicNanoseconds() / 1_000_000) }

/// A first-in first-out list of stream tokens in one reused ring.
struct TokenQueue {
  private var ring = ContiguousArray<UInt64>(repeating: 0, count: 64)
  private var start = 0
  private(set) var count = 0
  var isEmpty: Bool { count == 0 }

  mutating func append(_ token: UInt64) {
    if count == ring.count {
      let old = ring
      ring = ContiguousArray(repeating: 0, count: old.count * 2)
      for index in 0..<count { ring[index] = old[(start + index) % old.count] }
      start = 0
    }
    ring[(start + count) % ring.count] = token
    count += 1
  }

  mutating func popFirst() -> UInt64? {
    guard count > 0 else { return nil }
    let token = ring[start]
    start = (start + 1) % ring.count
    count -= 1
    return token
  }
}
