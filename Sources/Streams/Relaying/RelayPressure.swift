/// What several relays hold for slow readers, together: one enclave's, so that it cannot fill this process's memory with
/// connections that nobody reads. Far below the limit a relay reads as much as its buffer takes; near it, less at a time.
public final class RelayPressure {
  /// What a relay reads at a time when the limit has been reached: a slow reader gets its data still.
  static let smallest = 1024

  private let limit: Int
  /// Bytes that wait now.
  public private(set) var held = 0

  /// - Parameter limit: in bytes.
  public init(limit: Int) { self.limit = limit }

  /// How much may be read at a time.
  @inline(__always) var room: Int { max(Self.smallest, (limit - held) / 4) }

  func change(by count: Int) { held += count }
}
