import CLinux
import EventLoop
import LinuxSystem
import Packets

/// Frames as bytes on the stream, each behind its length (u32, network order).
///
/// Both buffers are small enough to stay in a core's second-level cache: a packet is written to the stream while the
/// cache still has it from the device. What the stream cannot take stays in the out buffer, and while that is full there
/// is no room.
final class StreamPath: FramePath {
  private static let prefix = 4

  private var stream: PathStream
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
  init(_ stream: FileReference, early: [UInt8], _ settings: PacketQueue.Settings) {
    batch = settings.batch
    let frame = Self.prefix + PacketGuard.frameLimit
    out = .allocate(byteCount: settings.batch + frame, alignment: 16)
    incoming = .allocate(byteCount: settings.readSize + frame, alignment: 16)
    inEnd = min(early.count, incoming.count)
    incoming.copyBytes(from: early.prefix(inEnd))
    self.stream = PathStream(stream)
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

  var file: FileReference { stream.file }
  func note(_ events: EventSet) { stream.note(events) }
  var interest: EventSet { [.readable, .writable, .readHangup, .edgeTriggered] }
  var isReady: Bool { true }
  var isConfirmed: Bool { true }
  var isExposed: Bool { false }

  // MARK: out

  func room() -> UnsafeMutableRawPointer? {
    outEnd >= batch ? nil : out.baseAddress.map { $0 + outEnd + Self.prefix }
  }

  func commit(_ length: Int) {
    out.storeBytes(of: UInt32(truncatingIfNeeded: length).bigEndian, toByteOffset: outEnd, as: UInt32.self)
    outEnd += Self.prefix + length
  }

  func flush() throws(PacketQueue.Loss) -> Bool {
    guard outEnd > 0, stream.writable, let base = out.baseAddress else { return false }
    let result = clinux_send(stream.file.rawValue, base + outStart, outEnd - outStart, 0)
    guard result > 0 else {
      guard result == -Int(EAGAIN) else {
        throw .failed(SystemError("send", "packets", errno: Int32(truncatingIfNeeded: 0 &- result)))
      }
      stream.writable = false
      return false
    }
    outStart += result
    if outStart == outEnd {
      outStart = 0
      outEnd = 0
    }
    return true
  }

  // MARK: in

  func fetch() throws(PacketQueue.Loss) -> Bool {
    // What came early, or was left.
    if try frameLength() != nil { return true }
    compact()
    guard stream.readable, let base = incoming.baseAddress else { return false }
    let count = try stream.read(base + inEnd, incoming.count - inEnd)
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

  func next(whole: Bool) throws(PacketQueue.Loss) -> DeviceFrame? {
    guard let length = try frameLength(), let base = incoming.baseAddress else { return nil }
    taken = Self.prefix + length
    return DeviceFrame(start: UnsafeRawPointer(base + inStart + Self.prefix), length: length)
  }

  func release() {
    inStart += taken
    taken = 0
  }
}
