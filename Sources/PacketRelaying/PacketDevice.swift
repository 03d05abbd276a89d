import CLinux
import LinuxSystem
import Packets

/// Where one queue's packets come from and go to. This one is a queue of a TUN device.
open class PacketDevice {
  /// What becomes readable when there are packets.
  public let file: FileHandle
  /// Why the last `read` gave nothing although there was a packet, where that is a drop.
  public final var defect: PacketDefect?

  public init(_ file: FileHandle) { self.file = file }

  /// Takes one packet.
  /// - Parameter frame: room for `PacketGuard.frameLimit` bytes: a virtio-net header and the packet.
  /// - Returns: how many there are; 0 where there was one that is not for the other side; a negative errno.
  open func read(_ frame: UnsafeMutableRawPointer) -> Int {
    let result = clinux_read(file.rawValue, frame, PacketGuard.frameLimit)
    return result == 0 ? -Int(EAGAIN) : result
  }

  /// What was read since the last call is in our own memory: the kernel may forget it.
  open func settle() {}

  /// Gives the kernel a packet that was checked.
  /// - Returns: nil, or why it did not take it.
  open func write(_ frame: UnsafeRawBufferPointer) -> PacketDefect? {
    clinux_write(file.rawValue, frame.baseAddress, frame.count) < 0 ? .notTaken : nil
  }
}
