import CLinux
import EventLoop
import LinuxSystem
import Packets

// Theory of operation.
//
// One queue of a TUN device joined to one stream. Frames on the stream: length (u32, network order), then as many
// bytes as the TUN device gave: virtio-net header and packet.
//
//   TUN ──read, several, each behind its length──▶ out buffer ──one send──▶ stream
//   stream ──one read──▶ in buffer ──each frame checked where it lies, one write──▶ TUN
//
// Data is copied by the kernel alone. Both buffers are small enough to stay in a core's second-level cache: a packet
// is written to the stream while the cache still has it from the TUN device. What the stream cannot take stays in the
// out buffer, and the TUN device is not read until it is gone: so at most `outCapacity` and the socket's own buffer are
// in flight, and behind them the device's queue (txqueuelen) fills. Writing to a TUN device does not block.
//
// Without a stream the TUN device is read and what comes is thrown away (and counted): a queue that nobody reads
// would hand minutes-old packets to the next stream. TCP sends them again.

/// The way of one queue's packets; everything happens in its loop's thread.
public final class PacketQueue: EventSource {
  public struct Settings: Sendable {
    /// Bytes read from the TUN device before they are sent on.
    public var batch = 256 * 1024
    /// Bytes read from the stream at once, at most.
    public var readSize = 256 * 1024
    /// SO_SNDBUF of the stream, 0 for the system's own; without CAP_NET_ADMIN at most net.core.wmem_max.
    public var sendBuffer: Int32 = 4 << 20
    public init() {}
  }

  public enum Loss: Equatable, Sendable {
    case closed
    case failed(SystemError)
    /// A frame's length, which no frame can have.
    case badFrame(Int)
  }

  private static let prefix = 4
  private static let tunTag = 0
  private static let streamTag = 1
  /// Rounds of both directions before the loop's other sources have their turn.
  private static let turnLimit = 16
  /// Packets taken in one turn that are not sent on.
  private static let skipLimit = 4096

  private let loop: EventLoop
  private let device: PacketDevice
  private let packetGuard: PacketGuard
  private let batch: Int
  private let sendBuffer: Int32
  private let lost: (Loss) -> Void
  public private(set) var counters = PacketCounters()

  private let out: UnsafeMutableRawBufferPointer
  private var outStart = 0
  private var outEnd = 0
  private let incoming: UnsafeMutableRawBufferPointer
  private var inStart = 0
  private var inEnd = 0

  private var tunRegistration: Registration?
  private var stream: FileHandle?
  private var streamRegistration: Registration?
  private var tunReadable = true
  private var streamReadable = false
  private var streamWritable = false
  /// No edge will follow the one that told of the stream's end: it is read until the end is found.
  private var streamEnding = false

  /// - Parameter lost: the stream has ended and is closed; `attach` may give another.
  public convenience init(
    loop: EventLoop, tun: FileHandle, packetGuard: PacketGuard, settings: Settings = Settings(),
    lost: @escaping (Loss) -> Void
  ) throws(SystemError) {
    try self.init(loop: loop, device: PacketDevice(tun), packetGuard: packetGuard, settings: settings, lost: lost)
  }

  /// - Parameter lost: the stream has ended and is closed; `attach` may give another.
  public init(
    loop: EventLoop, device: PacketDevice, packetGuard: PacketGuard, settings: Settings = Settings(),
    lost: @escaping (Loss) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.device = device
    self.packetGuard = packetGuard
    self.lost = lost
    batch = settings.batch
    sendBuffer = settings.sendBuffer
    let frame = Self.prefix + PacketGuard.frameLimit
    out = .allocate(byteCount: settings.batch + frame, alignment: 16)
    incoming = .allocate(byteCount: settings.readSize + frame, alignment: 16)
    super.init()
    try device.file.descriptor.setNonblocking()
    tunRegistration = try loop.add(device.file.rawValue, [.readable, .edgeTriggered], self, tag: Self.tunTag)
  }

  deinit {
    out.deallocate()
    incoming.deallocate()
  }

  /// Takes over a stream whose handshake is done; an earlier one is closed.
  /// - Parameter early: what came behind the handshake.
  public func attach(_ new: FileHandle, early: [UInt8]) throws(SystemError) {
    if stream != nil || counters.packetsOut &+ counters.packetsIn > 0 { counters.reconnects &+= 1 }
    detach()
    try new.descriptor.setNonblocking()
    if sendBuffer > 0, clinux_set_option(new.rawValue, SOL_SOCKET, SO_SNDBUFFORCE, sendBuffer) < 0 {
      _ = clinux_set_option(new.rawValue, SOL_SOCKET, SO_SNDBUF, sendBuffer)
    }
    streamRegistration = try loop.add(
      new.rawValue, [.readable, .writable, .readHangup, .edgeTriggered], self, tag: Self.streamTag)
    stream = new
    outStart = 0
    outEnd = 0
    inStart = 0
    inEnd = min(early.count, incoming.count)
    early.withUnsafeBytes { incoming.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[..<inEnd])) }
    streamReadable = true
    streamWritable = true
    streamEnding = false
    loop.enqueue(self)
  }

  public var isAttached: Bool { stream != nil }

  private func detach() {
    if let streamRegistration { loop.remove(streamRegistration) }
    streamRegistration = nil
    stream = nil
  }

  public func close() {
    detach()
    if let tunRegistration { loop.remove(tunRegistration) }
    tunRegistration = nil
  }

  private func lose(_ loss: Loss) {
    detach()
    lost(loss)
  }

  override public func ready(_ events: EventSet, tag: Int) {
    if tag == Self.tunTag {
      tunReadable = true
    } else {
      if !events.isDisjoint(with: [.readable, .readHangup, .hangup, .error]) { streamReadable = true }
      if !events.isDisjoint(with: [.readHangup, .hangup, .error]) { streamEnding = true }
      if !events.isDisjoint(with: [.writable, .hangup, .error]) { streamWritable = true }
    }
    resume()
  }

  override public func resume() {
    for _ in 0..<Self.turnLimit {
      guard let stream else {
        discard()
        return
      }
      let received = receive(stream.rawValue)
      let sent = self.stream != nil && send(stream.rawValue)
      if !received, !sent { return }
    }
    loop.enqueue(self)
  }

  // MARK: TUN to stream

  /// - Returns: whether anything moved.
  private func send(_ stream: Int32) -> Bool {
    var moved = false
    if outStart == outEnd, tunReadable {
      fill()
      // Also where all that came was not to be sent on, and there is more.
      moved = outEnd > 0 || tunReadable
    }
    guard outStart < outEnd, streamWritable, let base = out.baseAddress else { return moved }
    let result = clinux_send(stream, base + outStart, outEnd - outStart, 0)
    if result > 0 {
      outStart += result
      return true
    }
    if result == -Int(EAGAIN) {
      streamWritable = false
    } else {
      lose(.failed(SystemError("send", "packets", errno: Int32(truncatingIfNeeded: 0 &- result))))
    }
    return false
  }

  private func fill() {
    guard let base = out.baseAddress else { return }
    outStart = 0
    outEnd = 0
    var skipped = 0
    while outEnd < batch, skipped < Self.skipLimit {
      let result = device.read(base + outEnd + Self.prefix)
      guard result >= 0 else {
        tunReadable = false
        break
      }
      guard result > 0 else {
        skipped += 1
        countDefect()
        continue
      }
      (base + outEnd).storeBytes(of: UInt32(truncatingIfNeeded: result).bigEndian, as: UInt32.self)
      outEnd += Self.prefix + result
      counters.packetsOut &+= 1
      counters.bytesOut &+= UInt64(truncatingIfNeeded: result - PacketGuard.offloadHeaderLength)
    }
    device.settle()
  }

  private func countDefect() {
    guard let defect = device.defect else { return }
    counters.drop(defect)
    device.defect = nil
  }

  private func discard() {
    guard let base = out.baseAddress else { return }
    for _ in 0..<Self.skipLimit where tunReadable {
      let result = device.read(base)
      if result > 0 {
        counters.unsent &+= 1
      } else if result == 0 {
        countDefect()
      } else {
        tunReadable = false
      }
    }
    device.settle()
    if tunReadable { loop.enqueue(self) }
  }

  // MARK: stream to TUN

  /// - Returns: whether anything moved.
  private func receive(_ stream: Int32) -> Bool {
    guard let base = incoming.baseAddress else { return false }
    if inStart < inEnd, !parse(base) { return false }
    guard streamReadable else { return false }
    let result = clinux_read(stream, base + inEnd, incoming.count - inEnd)
    if result > 0 {
      // Less than there was room for: the socket was empty, and an edge will tell of more. But for the end, whose edge may
      // have come together with these bytes.
      streamReadable = streamEnding || result == incoming.count - inEnd
      inEnd += result
      return parse(base)
    }
    if result == -Int(EAGAIN) {
      streamReadable = false
    } else if result == 0 {
      lose(.closed)
    } else {
      lose(.failed(SystemError("read", "packets", errno: Int32(truncatingIfNeeded: 0 &- result))))
    }
    return false
  }

  /// Gives every whole frame to the TUN device and moves what is left of the last one to the front.
  /// - Returns: false where the stream was lost.
  private func parse(_ base: UnsafeMutableRawPointer) -> Bool {
    var offset = inStart
    let end = inEnd
    while end - offset >= Self.prefix {
      let length = Int(UInt32(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      guard length > 0, length <= PacketGuard.frameLimit else {
        lose(.badFrame(length))
        return false
      }
      guard end - offset - Self.prefix >= length else { break }
      let frame = UnsafeRawBufferPointer(start: base + offset + Self.prefix, count: length)
      offset += Self.prefix + length
      if let defect = packetGuard.defect(in: frame) {
        counters.drop(defect)
      } else if let defect = device.write(frame) {
        counters.drop(defect)
      } else {
        counters.packetsIn &+= 1
        counters.bytesIn &+= UInt64(truncatingIfNeeded: length - PacketGuard.offloadHeaderLength)
      }
    }
    inEnd = end - offset
    if inEnd > 0, offset > 0 { base.copyMemory(from: base + offset, byteCount: inEnd) }
    inStart = 0
    return true
  }
}
