import LinuxSystem
import Packets

/// Where one queue's packets come from and go to, on its own side: a TUN device, a network by way of packet queues, or
/// memory (`DeviceTwin`). One thread uses it, the queue's.
public protocol PacketDevice: AnyObject {
  /// What becomes readable when there are packets. It is watched for edges and not read by the queue.
  var file: FileReference { get }

  // MARK: out of the device

  /// Takes one packet.
  /// - Parameter frame: room for `PacketGuard.frameLimit` bytes: a virtio-net header and the packet.
  /// - Returns: how many there are; 0 where there was one that is not for the other side; a negative errno.
  func read(_ frame: UnsafeMutableRawPointer) -> Int

  /// Why the last `read` gave 0, where that is a drop. The queue sets it to nil when it has counted it.
  var defect: PacketDefect? { get set }

  /// Whether `read` has packets of the device's own, of which no event tells.
  var hasAnswers: Bool { get }

  /// What was read since the last call is in our own memory: the kernel may forget it.
  func settle()

  // MARK: into the device

  /// Gives the device a packet that was checked.
  /// - Returns: nil, or why it did not take it.
  func write(_ frame: DeviceFrame) -> PacketDefect?

  /// Whether `read` and `write` look at packets. Then frames are whole and in our own memory, where nobody changes them
  /// between the look and what follows from it.
  var looksInside: Bool { get }
}

extension PacketDevice {
  public var hasAnswers: Bool { false }
  public func settle() {}
}

/// A frame for a device: a virtio-net header and a packet.
public struct DeviceFrame {
  /// In our own memory, where nobody else writes: of `length` bytes, the first `copied` are there.
  public var start: UnsafeRawPointer
  public var length: Int
  public var copied: Int
  /// Where the bytes behind them are, which the other side may still change; nil where all are copied.
  public var rest: UnsafeRawPointer?

  public init(start: UnsafeRawPointer, length: Int, copied: Int, rest: UnsafeRawPointer?) {
    self.start = start
    self.length = length
    self.copied = copied
    self.rest = rest
  }

  /// A whole frame in our own memory.
  public init(start: UnsafeRawPointer, length: Int) {
    self.init(start: start, length: length, copied: length, rest: nil)
  }

  /// For a reader of headers alone: where there is a `rest`, the bytes behind `copied` are memory, but not the frame's.
  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: length) }

  /// Copies the `rest`, for which there is room behind `copied`.
  public mutating func complete() {
    guard let rest else { return }
    UnsafeMutableRawPointer(mutating: start + copied).copyMemory(from: rest, byteCount: length - copied)
    (copied, self.rest) = (length, nil)
  }
}
