import CLinux
import LinuxSystem
import Packets

/// Where one queue's packets come from and go to. This one is a queue of a TUN device.
open class PacketDevice {
  /// What becomes readable when there are packets.
  public let file: FileHandle
  /// Why the last `read` gave nothing although there was a packet, where that is a drop.
  public final var defect: PacketDefect?

  /// Where packets are written to.
  private let output: FileHandle

  /// - Parameter output: where packets go, if that is not where they come from.
  public init(_ file: FileHandle, output: FileHandle? = nil) {
    self.file = file
    self.output = output ?? file
  }

  /// Takes one packet.
  /// - Parameter frame: room for `PacketGuard.frameLimit` bytes: a virtio-net header and the packet.
  /// - Returns: how many there are; 0 where there was one that is not for the other side; a negative errno.
  open func read(_ frame: UnsafeMutableRawPointer) -> Int {
    let result = clinux_read(file.rawValue, frame, PacketGuard.frameLimit)
    return result == 0 ? -Int(EAGAIN) : result
  }

  /// Whether `read` has packets of the device's own, of which no event tells.
  open var hasAnswers: Bool { false }

  /// What was read since the last call is in our own memory: the kernel may forget it.
  open func settle() {}

  /// Whether `read` and `write` look at packets: then these are all in our own memory, where nobody changes them between
  /// the look and what follows from it.
  open var looksInside: Bool { false }

  /// Gives the kernel a packet that was checked.
  /// - Returns: nil, or why it did not take it.
  open func write(_ frame: UnsafeRawBufferPointer) -> PacketDefect? {
    clinux_write(output.rawValue, frame.baseAddress, frame.count) < 0 ? .notTaken : nil
  }

  /// The same for a frame of which only the headers may be in our own memory.
  final func write(_ frame: IncomingFrame) -> PacketDefect? {
    guard let rest = frame.rest else { return write(frame.bytes) }
    let pieces = (
      iovec(iov_base: UnsafeMutableRawPointer(mutating: frame.start), iov_len: frame.copied),
      iovec(iov_base: UnsafeMutableRawPointer(mutating: rest), iov_len: frame.length - frame.copied)
    )
    let result = withUnsafeBytes(of: pieces) {
      clinux_writev(output.rawValue, $0.assumingMemoryBound(to: iovec.self).baseAddress, 2)
    }
    return result < 0 ? .notTaken : nil
  }
}
