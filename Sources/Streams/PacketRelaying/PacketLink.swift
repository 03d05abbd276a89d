import CLinux
import EventLoop
import LinuxSystem
import Packets

/// A frame from the other side, as far as it is safe from it.
struct IncomingFrame {
  /// In our own memory, where nobody else writes: of `length` bytes, the first `copied` are there.
  var start: UnsafeRawPointer
  var length: Int
  var copied: Int
  /// Where the bytes behind them are, which the other side may still change.
  var rest: UnsafeRawPointer?

  /// For whoever looks at headers alone: behind `copied` there is memory, but not the frame's.
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: length) }
}

/// How the frames of one queue get to the other side and from there, and whether its stream is still open.
class PacketLink {
  final let stream: FileHandle
  final var readable = true
  final var writable = true
  /// No edge will follow the one that told of the stream's end: it is read until the end is found.
  private(set) final var isEnding = false

  init(_ stream: FileHandle) { self.stream = stream }

  /// Events of the stream, edge-triggered.
  final func note(_ events: EventSet) {
    if !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error]) { readable = true }
    if !events.isDisjoint(with: [.readHangup, .hangup, .error]) { isEnding = true }
    if !events.isDisjoint(with: [.writable, .hangup, .error]) { writable = true }
  }

  /// - Returns: bytes that were read; 0 for none at the moment.
  final func read(_ buffer: UnsafeMutableRawPointer, _ room: Int) throws(PacketQueue.Loss) -> Int {
    let result = clinux_read(stream.rawValue, buffer, room)
    return try received(result, of: room)
  }

  final func received(_ result: Int, of room: Int) throws(PacketQueue.Loss) -> Int {
    switch result {
    case 1...:
      // Less than there was room for: the socket was empty, and an edge will tell of more. But for the end, whose edge may
      // have come together with these bytes.
      readable = isEnding || result == room
      return result
    case 0: throw .closed
    case -Int(EAGAIN):
      readable = false
      return 0
    default: throw .failed(SystemError("read", "packets", errno: Int32(truncatingIfNeeded: 0 &- result)))
    }
  }

  /// Whether frames can be sent and come, or will once there is room.
  var isReady: Bool { true }
  /// Whether the other side has what it needs of this one.
  var isConfirmed: Bool { true }
  /// What of the stream is to be waited for.
  var interest: EventSet { [.readable, .writable, .readHangup, .edgeTriggered] }

  /// Whether the other side can change what was put at `room`.
  var isShared: Bool { false }

  // MARK: out

  /// Where the next frame can be put, `PacketGuard.frameLimit` bytes; nil while there is no room.
  func room() throws(PacketQueue.Loss) -> UnsafeMutableRawPointer? { nil }
  /// A frame of that length is at `room`.
  func commit(_ length: Int) {}
  /// Sends what was committed.
  /// - Returns: whether anything moved.
  func flush() throws(PacketQueue.Loss) -> Bool { false }

  // MARK: in

  /// Looks for frames.
  /// - Returns: whether there is something to look at with `next`.
  func fetch() throws(PacketQueue.Loss) -> Bool { false }
  /// - Parameter whole: copies all of a frame, wherever it is.
  func next(whole: Bool) throws(PacketQueue.Loss) -> IncomingFrame? { nil }
  /// The frame that `next` gave is done with.
  func release() {}
}

/// Frames as bytes on the stream, each behind its length (u32, network order).
///
/// Both buffers are small enough to stay in a core's second-level cache: a packet is written to the stream while the
/// cache still has it from the device. What the stream cannot take stays in the out buffer, and while that is full there
/// is no room.
final class StreamLink: PacketLink {
  private static let prefix = 4

  private let batch: Int
  private let out: UnsafeMutableRawBufferPointer
  private var outStart = 0
  private var outEnd = 0
  private let incoming: UnsafeMutableRawBufferPointer
  private var inStart = 0
  private var inEnd: Int
  /// Of the frame that `next` gave, its own prefix included.
  private var taken = 0

  /// - Parameter early: what came behind the handshake.
  init(_ stream: FileHandle, early: [UInt8], _ settings: PacketQueue.Settings) {
    batch = settings.batch
    let frame = Self.prefix + PacketGuard.frameLimit
    out = .allocate(byteCount: settings.batch + frame, alignment: 16)
    incoming = .allocate(byteCount: settings.readSize + frame, alignment: 16)
    inEnd = min(early.count, incoming.count)
    incoming.copyBytes(from: early.prefix(inEnd))
    super.init(stream)
    if settings.sendBuffer > 0,
      clinux_set_option(stream.rawValue, SOL_SOCKET, SO_SNDBUFFORCE, settings.sendBuffer) < 0
    {
      _ = clinux_set_option(stream.rawValue, SOL_SOCKET, SO_SNDBUF, settings.sendBuffer)
    }
  }

  deinit {
    out.deallocate()
    incoming.deallocate()
  }

  override func room() -> UnsafeMutableRawPointer? {
    outEnd >= batch ? nil : out.baseAddress.map { $0 + outEnd + Self.prefix }
  }

  override func commit(_ length: Int) {
    out.storeBytes(of: UInt32(truncatingIfNeeded: length).bigEndian, toByteOffset: outEnd, as: UInt32.self)
    outEnd += Self.prefix + length
  }

  override func flush() throws(PacketQueue.Loss) -> Bool {
    guard outEnd > 0, writable, let base = out.baseAddress else { return false }
    let result = clinux_send(stream.rawValue, base + outStart, outEnd - outStart, 0)
    guard result > 0 else {
      guard result == -Int(EAGAIN) else {
        throw .failed(SystemError("send", "packets", errno: Int32(truncatingIfNeeded: 0 &- result)))
      }
      writable = false
      return false
    }
    outStart += result
    if outStart == outEnd {
      outStart = 0
      outEnd = 0
    }
    return true
  }

  override func fetch() throws(PacketQueue.Loss) -> Bool {
    // What came early, or was left.
    if try frameLength() != nil { return true }
    compact()
    guard readable, let base = incoming.baseAddress else { return false }
    let count = try read(base + inEnd, incoming.count - inEnd)
    inEnd += count
    return count > 0
  }

  /// Moves what is left of the last frame to the front.
  private func compact() {
    guard inStart > 0, let base = incoming.baseAddress else { return }
    if inStart < inEnd { base.copyMemory(from: base + inStart, byteCount: inEnd - inStart) }
    inEnd -= inStart
    inStart = 0
  }

  /// The length of the next frame, if all of it is there.
  private func frameLength() throws(PacketQueue.Loss) -> Int? {
    guard inEnd - inStart >= Self.prefix else { return nil }
    let length = Int(UInt32(bigEndian: incoming.loadUnaligned(fromByteOffset: inStart, as: UInt32.self)))
    guard length > 0, length <= PacketGuard.frameLimit else { throw .badFrame(length) }
    return inEnd - inStart - Self.prefix >= length ? length : nil
  }

  override func next(whole: Bool) throws(PacketQueue.Loss) -> IncomingFrame? {
    guard let length = try frameLength(), let base = incoming.baseAddress else { return nil }
    taken = Self.prefix + length
    return IncomingFrame(
      start: UnsafeRawPointer(base + inStart + Self.prefix), length: length, copied: length, rest: nil)
  }

  override func release() {
    inStart += taken
    taken = 0
  }
}

/// Frames in memory that both sides have (`PacketMemory`); the stream wakes the side that sleeps, and ends it.
final class MemoryLink: PacketLink {
  /// Longer than every header that `PacketGuard` looks at, where there are no extension headers.
  static let headLength = 256

  private struct Rings {
    let memory: PacketMemory
    var outgoing: RingWriter
    var incoming: RingReader
  }

  private var rings: Rings?
  private let head: UnsafeMutableRawBufferPointer
  private var taken = 0
  /// How the stream has ended. What was there before is still taken.
  private var end: PacketQueue.Loss?
  /// The other side has said something: it has the memory.
  private var hasAnswered = false

  /// The enclave's side: passes the memory over.
  init(_ stream: FileHandle, passing memory: PacketMemory) throws(SystemError) {
    head = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    super.init(stream)
    guard let file = memory.file else { throw SystemError("sendmsg", "packet memory", errno: EBADF) }
    var descriptor = file.rawValue
    let sent = withUnsafePointer(to: 1 as UInt8) {
      clinux_send_with_descriptors(stream.rawValue, $0, 1, &descriptor, 1)
    }
    guard sent == 1 else {
      throw SystemError("sendmsg", "packet memory", errno: Int32(truncatingIfNeeded: 0 &- sent))
    }
    take(memory)
  }

  /// The host's side: the first byte has the memory with it. Until then it is not ready.
  override init(_ stream: FileHandle) {
    head = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    super.init(stream)
  }

  deinit { head.deallocate() }

  private func take(_ made: PacketMemory) {
    made.releaseFile()
    rings = Rings(memory: made, outgoing: made.outgoing, incoming: made.incoming)
  }

  private func receiveMemory() throws(PacketQueue.Loss) {
    var byte: UInt8 = 0
    var descriptor: Int32 = -1
    var count: Int32 = 0
    let result = clinux_receive_with_descriptors(stream.rawValue, &byte, 1, &descriptor, 1, &count)
    let file = count == 1 ? FileHandle(OwnedFileDescriptor(descriptor)) : nil
    if result == -Int(EMSGSIZE) { throw .badMemory(SystemError("recvmsg", "one file", errno: EMSGSIZE)) }
    guard try received(result, of: 1) > 0 else { return }
    guard let file else { throw .noMemory }
    do throws(SystemError) {
      take(try PacketMemory(file, .host))
    } catch {
      throw .badMemory(error)
    }
    hasAnswered = true
    ring()
  }

  /// Where the bell cannot take a byte, there are enough in it; where nobody hears it, the stream's end is there to be read.
  private func ring() {
    _ = withUnsafePointer(to: 1 as UInt8) { clinux_send(stream.rawValue, $0, 1, 0) }
  }

  override var isReady: Bool { rings != nil }
  override var isConfirmed: Bool { hasAnswered }
  override var isShared: Bool { true }
  /// A bell has always room enough.
  override var interest: EventSet { [.readable, .readHangup, .edgeTriggered] }

  override func room() throws(PacketQueue.Loss) -> UnsafeMutableRawPointer? {
    do throws(BadRing) { return try rings?.outgoing.room() } catch { throw .badRing }
  }

  override func commit(_ length: Int) { if rings?.outgoing.publish(length) == true { ring() } }

  override func fetch() throws(PacketQueue.Loss) -> Bool {
    if !isReady {
      if readable { try receiveMemory() }
      guard isReady else { return false }
    }
    if readable, end == nil { try hear() }
    let found: Bool?
    do throws(BadRing) { found = try rings?.incoming.look() } catch { throw .badRing }
    if found == true { return true }
    if let end { throw end }
    // There may be more bells, or the end behind them, of which no edge would tell.
    return readable
  }

  /// Once a turn, however much the other side rings.
  private func hear() throws(PacketQueue.Loss) {
    guard let base = head.baseAddress else { return }
    do throws(PacketQueue.Loss) {
      if try read(base, head.count) > 0 { hasAnswered = true }
    } catch {
      // A side that has not read all bells when it ends is a reset (unix_release_sock of net/unix/af_unix.c).
      guard hasAnswered else { throw error.isEnd ? .memoryRefused : error }
      end = error.isEnd ? .closed : error
    }
  }

  override func next(whole: Bool) throws(PacketQueue.Loss) -> IncomingFrame? {
    let frame: UnsafeRawBufferPointer?
    do throws(BadRing) { frame = try rings?.incoming.next() } catch { throw .badRing }
    guard let frame, let source = frame.baseAddress, let start = head.baseAddress else { return nil }
    taken = frame.count
    var copied = whole ? frame.count : min(frame.count, Self.headLength)
    start.copyMemory(from: source, byteCount: copied)
    if copied < frame.count, PacketGuard.mayReachFar(UnsafeRawBufferPointer(start: start, count: copied)) {
      (start + copied).copyMemory(from: source + copied, byteCount: frame.count - copied)
      copied = frame.count
    }
    return IncomingFrame(
      start: UnsafeRawPointer(start), length: frame.count, copied: copied,
      rest: copied < frame.count ? source + copied : nil)
  }

  override func release() { if rings?.incoming.release(taken) == true { ring() } }
}
