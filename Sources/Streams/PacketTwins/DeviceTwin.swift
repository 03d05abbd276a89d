import CLinux
import LinuxSystem
import PacketRelaying
import Packets

/// A device in memory: frames that are put in come out of it, and frames that a queue writes are kept.
public final class DeviceTwin: PacketDevice {
  public var file: FileReference { bell.file }
  public var defect: PacketDefect?
  public let looksInside: Bool

  /// Frames that it takes before it takes no more, as a TUN device's queue does (txqueuelen).
  public var room = Int.max
  /// What was written, oldest first.
  public private(set) var written: [[UInt8]] = []
  /// How often the queue said that it had done with what it had read.
  public private(set) var settled = 0

  private let bell: Bell
  private var waiting: ArraySlice<[UInt8]> = []

  /// - Parameter looksInside: as a device that takes packets apart; a TUN device does not.
  public init(looksInside: Bool = false) throws(SystemError) {
    self.looksInside = looksInside
    bell = try Bell()
  }

  /// Frames for the other side. An empty one stands for a packet that the device keeps.
  public func put(_ frames: [[UInt8]]) {
    waiting += frames
    bell.ring()
  }

  /// How many frames nobody has read yet.
  public var waitingCount: Int { waiting.count }

  /// Takes what was written so far.
  public func takeWritten() -> [[UInt8]] {
    defer { written = [] }
    return written
  }

  public func read(_ frame: UnsafeMutableRawPointer) -> Int {
    guard let next = waiting.popFirst() else { return -Int(EAGAIN) }
    let count = min(next.count, PacketGuard.frameLimit)
    next.withUnsafeBytes { if let start = $0.baseAddress { frame.copyMemory(from: start, byteCount: count) } }
    return count
  }

  public func settle() { settled += 1 }

  public func write(_ frame: DeviceFrame) -> PacketDefect? {
    guard written.count < room else { return .notTaken }
    var bytes = Array(UnsafeRawBufferPointer(start: frame.start, count: frame.copied))
    if let rest = frame.rest { bytes += UnsafeRawBufferPointer(start: rest, count: frame.length - frame.copied) }
    written.append(bytes)
    return nil
  }
}
