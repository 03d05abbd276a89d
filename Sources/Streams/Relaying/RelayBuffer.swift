import CLinux

/// Memory shared by all relays of a loop.
public final class RelayBuffer {
  /// Bytes moved by one read at most.
  public static let chunk = 256 * 1024
  /// Streams that have room for more than others at a time: what they hold is the kernel's memory.
  private static let wideLimit = 64
  private var wide = 0
  let memory: UnsafeMutableRawBufferPointer
  let vectors: UnsafeMutableBufferPointer<iovec>

  public init() {
    memory = .allocate(byteCount: Self.chunk, alignment: 16)
    vectors = .allocate(capacity: 64)
  }

  deinit {
    memory.deallocate()
    vectors.deallocate()
  }

  /// Whether one more stream may be wide; then it has to be given back.
  func takeWide() -> Bool {
    guard wide < Self.wideLimit else { return false }
    wide += 1
    return true
  }

  func giveWide() { wide -= 1 }
}
