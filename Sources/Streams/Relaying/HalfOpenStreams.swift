/// Streams that have not said yet what they are, in the order in which they came.
public struct HalfOpenStreams {
  private var streams: [UInt64: StreamServing] = [:]
  private var oldest: UInt64 = 0
  /// The number of the one that is added next.
  public private(set) var next: UInt64 = 0

  public init() {}

  public var isEmpty: Bool { streams.isEmpty }
  public var count: Int { streams.count }

  public mutating func add(_ stream: StreamServing) {
    streams[next] = stream
    next += 1
  }

  public mutating func remove(_ number: UInt64) { streams[number] = nil }

  /// - Returns: false where there is none.
  public mutating func removeOldest() -> Bool {
    guard !streams.isEmpty else { return false }
    while oldest < next {
      let stream = streams.removeValue(forKey: oldest)
      oldest += 1
      guard let stream else { continue }
      stream.cancel()
      return true
    }
    return false
  }
}
