import CLinux
import LinuxSystem
import Packets

/// A queue of a TUN device. One read and one write is one packet (drivers/net/tun.c).
public final class TunDevice: PacketDevice {
  public let file: FileReference
  public var defect: PacketDefect?
  public var looksInside: Bool { false }

  public init(_ file: FileReference) { self.file = file }

  public func read(_ frame: UnsafeMutableRawPointer) -> Int {
    let result = clinux_read(file.rawValue, frame, PacketGuard.frameLimit)
    return result == 0 ? -Int(EAGAIN) : result
  }

  public func write(_ frame: DeviceFrame) -> PacketDefect? { Self.write(frame, to: file.rawValue) }

  @inline(__always)
  static func write(_ frame: DeviceFrame, to tun: Int32) -> PacketDefect? {
    guard let rest = frame.rest else { return clinux_write(tun, frame.start, frame.length) < 0 ? .notTaken : nil }
    let pieces = (
      iovec(iov_base: UnsafeMutableRawPointer(mutating: frame.start), iov_len: frame.copied),
      iovec(iov_base: UnsafeMutableRawPointer(mutating: rest), iov_len: frame.length - frame.copied)
    )
    let result = withUnsafeBytes(of: pieces) {
      clinux_writev(tun, $0.assumingMemoryBound(to: iovec.self).baseAddress, 2)
    }
    return result < 0 ? .notTaken : nil
  }
}
