import CLinux
import LinuxSystem
import Netlink
import Packets

/// Reads packets from a socket of nfnetlink_queue, as frames.
struct CaptureReader {
  /// A whole message: the longest packet that it can carry (NFQNL_MAX_COPY_RANGE, 65531 bytes) and its attributes.
  private static let messageLimit = 72 * 1024

  private let message: UnsafeMutableRawBufferPointer
  let file: FileReference
  /// The last packet of each queue that has had no verdict yet.
  private(set) var pending: [(queue: UInt16, id: UInt32)] = []

  init(_ file: FileReference) {
    self.file = file
    message = .allocate(byteCount: Self.messageLimit, alignment: 16)
    pending.reserveCapacity(4)
  }

  func free() { message.deallocate() }

  /// Takes one packet.
  /// - Returns: its length as a frame with a virtio-net header; 0 where it was no packet or a cut one; a negative errno.
  mutating func read(_ frame: UnsafeMutableRawPointer) -> (count: Int, packet: CapturedPacket?) {
    let result = clinux_read(file.rawValue, message.baseAddress, message.count)
    guard result > 0 else { return (result == 0 ? -Int(EAGAIN) : result, nil) }
    // Anything else is an error that answers a verdict for a queue that is empty by now.
    guard let packet = CapturedPacket(UnsafeRawBufferPointer(rebasing: message[..<result])) else { return (0, nil) }
    if let index = pending.firstIndex(where: { $0.queue == packet.queue }) {
      pending[index].id = packet.id
    } else {
      pending.append((packet.queue, packet.id))
    }
    let count = packet.payload.count
    guard count >= 20 else { return (0, packet) }
    frame.storeBytes(of: 0, as: UInt64.self)
    frame.storeBytes(of: 0, toByteOffset: 8, as: UInt16.self)
    (frame + PacketGuard.offloadHeaderLength).copyMemory(
      from: UnsafeRawBufferPointer(rebasing: message[packet.payload]).baseAddress ?? UnsafeRawPointer(frame),
      byteCount: count)
    return (PacketGuard.offloadHeaderLength + count, packet)
  }

  mutating func forget() { pending.removeAll(keepingCapacity: true) }
}

/// The enclave's side of a shared address: what leaves through the device is taken by queue, what arrives goes in there.
public final class CaptureDevice: PacketDevice {
  private var reader: CaptureReader
  private let tun: FileReference
  public var defect: PacketDefect?
  private let verdicts: FileReference
  private let segments: SegmentSizes
  private let socket: UInt8

  /// - Parameters:
  ///   - capture: the socket of this queue.
  ///   - socket: its number among those of the keeper of verdicts.
  ///   - tun: what arrives is written there.
  ///   - verdicts: the pipe to the keeper of verdicts (`VerdictRecord`).
  ///   - segments: shared by all queues: a connection's two directions may be in two of them.
  public init(
    capture: FileReference, socket: UInt8, tun: FileReference, verdicts: FileReference, segments: SegmentSizes
  ) {
    self.socket = socket
    reader = CaptureReader(capture)
    self.tun = tun
    self.verdicts = verdicts
    self.segments = segments
  }

  deinit { reader.free() }

  public var file: FileReference { reader.file }
  public var looksInside: Bool { true }

  public func read(_ frame: UnsafeMutableRawPointer) -> Int {
    let (count, packet) = reader.read(frame)
    guard count > 0, let packet else {
      if count == 0, packet != nil { defect = .truncated }
      return count
    }
    let buffer = UnsafeMutableRawBufferPointer(start: frame, count: count)
    let size = packet.isSuperPacket ? segments.size(of: UnsafeRawBufferPointer(buffer)) : nil
    OffloadHeader.write(buffer, needsChecksum: packet.needsChecksum, isChecked: false, segmentSize: size)
    return count
  }

  public func settle() {
    for (queue, id) in reader.pending {
      VerdictRecord(.drop, socket: socket, queue: queue, id: id).send(verdicts.rawValue)
    }
    reader.forget()
  }

  public func write(_ frame: DeviceFrame) -> PacketDefect? {
    segments.learn(from: frame.bytes)
    return TunDevice.write(frame, to: tun.rawValue)
  }
}

/// A `SegmentTable` for several threads.
public final class SegmentSizes: Sendable {
  private let table: Locked<SegmentTable>

  /// - Parameter mtu: of the way out, in bytes.
  public init(mtu: Int) { table = Locked(SegmentTable(mtu: mtu)) }

  func size(of frame: UnsafeRawBufferPointer) -> UInt16? { table.with { $0.segmentSize(of: frame) } }

  func learn(from frame: UnsafeRawBufferPointer) {
    if SegmentTable.tells(frame) { table.with { $0.learn(from: frame) } }
  }
}
