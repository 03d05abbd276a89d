import CLinux
import EventLoop
import LinuxSystem
import Packets

/// Frames in memory that both sides have (`PacketMemory`); the stream wakes the side that sleeps, and ends it.
final class MemoryPath: FramePath {
  /// Longer than every header that `PacketGuard` looks at, where there are no extension headers.
  static let headLength = 256

  private struct Rings {
    let memory: PacketMemory
    var outgoing: RingWriter
    var incoming: RingReader
  }

  private var stream: PathStream
  private var rings: Rings?
  private let head: UnsafeMutableRawBufferPointer
  private var taken = 0
  /// How the stream has ended. What was there before is still taken.
  private var end: PacketQueue.Loss?
  /// The other side has said something: it has the memory.
  private var hasAnswered = false

  /// The enclave's side: passes the memory over.
  init(_ stream: FileReference, passing memory: PacketMemory) throws(SystemError) {
    head = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    self.stream = PathStream(stream)
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
  init(_ stream: FileReference) {
    head = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    self.stream = PathStream(stream)
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
    let result = clinux_receive_with_descriptors(stream.file.rawValue, &byte, 1, &descriptor, 1, &count)
    let file = count == 1 ? FileReference(OwnedFileDescriptor(descriptor)) : nil
    if result == -Int(EMSGSIZE) { throw .badMemory(SystemError("recvmsg", "one file", errno: EMSGSIZE)) }
    guard try stream.received(result, of: 1) > 0 else { return }
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
    _ = withUnsafePointer(to: 1 as UInt8) { clinux_send(stream.file.rawValue, $0, 1, 0) }
  }

  var file: FileReference { stream.file }
  func note(_ events: EventSet) { stream.note(events) }
  /// A bell has always room enough.
  var interest: EventSet { [.readable, .readHangup, .edgeTriggered] }
  var isReady: Bool { rings != nil }
  var isConfirmed: Bool { hasAnswered }
  var isExposed: Bool { true }

  // MARK: out

  func room() throws(PacketQueue.Loss) -> UnsafeMutableRawPointer? {
    do throws(BadRing) { return try rings?.outgoing.room() } catch { throw .badRing }
  }

  func commit(_ length: Int) { if rings?.outgoing.publish(length) == true { ring() } }

  /// Nothing waits: a frame is there for the other side when it is committed.
  func flush() -> Bool { false }

  // MARK: in

  func fetch() throws(PacketQueue.Loss) -> Bool {
    if !isReady {
      if stream.readable { try receiveMemory() }
      guard isReady else { return false }
    }
    if stream.readable, end == nil { try hear() }
    let found: Bool?
    do throws(BadRing) { found = try rings?.incoming.look() } catch { throw .badRing }
    if found == true { return true }
    if let end { throw end }
    // There may be more bells, or the end behind them, of which no edge would tell.
    return stream.readable
  }

  /// Once a turn, however much the other side rings.
  private func hear() throws(PacketQueue.Loss) {
    guard let base = head.baseAddress else { return }
    do throws(PacketQueue.Loss) {
      if try stream.read(base, head.count) > 0 { hasAnswered = true }
    } catch {
      // A side that has not read all bells when it ends is a reset (unix_release_sock of net/unix/af_unix.c).
      guard hasAnswered else { throw error.isEnd ? .memoryRefused : error }
      end = error.isEnd ? .closed : error
    }
  }

  func next(whole: Bool) throws(PacketQueue.Loss) -> DeviceFrame? {
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
    return DeviceFrame(
      start: UnsafeRawPointer(start), length: frame.count, copied: copied,
      rest: copied < frame.count ? source + copied : nil)
  }

  func release() { if rings?.incoming.release(taken) == true { ring() } }
}
