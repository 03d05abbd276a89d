/// The frames of a connect stream after its answer: a header of one type byte and a 24-bit length, then the payload.
///
/// Frames, because a bare stream cannot say how it ended: the loss of the transport, or a host that is killed, must
/// not look like the end of the data, a reset must arrive as a reset, and half-close must work on transports that
/// lose it. `end` is the sender's FIN, `reset` its RST with the reason, `urgent` a byte that it has sent out of band.
public enum Frame {
  public static let headerLength = 4
  /// The longest data frame, in bytes.
  public static let dataLimit = 1 << 20

  public enum Kind: UInt8, Sendable {
    case data = 0
    case end = 1
    case reset = 2
    case urgent = 3
  }

  @inline(__always)
  public static func writeDataHeader(_ count: Int, to header: UnsafeMutableRawBufferPointer) {
    header[0] = Kind.data.rawValue
    header[1] = UInt8(truncatingIfNeeded: count >> 16)
    header[2] = UInt8(truncatingIfNeeded: count >> 8)
    header[3] = UInt8(truncatingIfNeeded: count)
  }

  public static let end: [UInt8] = [Kind.end.rawValue, 0, 0, 0]

  /// The byte that TCP's urgent pointer is for, at its place in the stream.
  public static func urgent(_ byte: UInt8) -> [UInt8] { [Kind.urgent.rawValue, 0, 0, 1, byte] }

  public static func reset(_ status: Status) -> [UInt8] { [Kind.reset.rawValue, 0, 0, 1, status.rawValue] }
}

/// Finds the frames in a stream however it was cut into reads. Total: any bytes give events or a typed error.
public struct FrameDecoder: Sendable {
  public enum Event: Equatable, Sendable {
    /// Payload: a range of the buffer handed in. A long frame comes as several of these.
    case data(Range<Int>)
    case end
    case reset(Status)
    case urgent(UInt8)
  }

  private var header: UInt32 = 0
  private var headerCount = 0
  private var remaining = 0
  public private(set) var isEnded = false

  public init() {}

  /// The next event at `offset`, which moves past it; nil at the end of the buffer.
  @inline(__always)
  public mutating func next(
    in buffer: UnsafeRawBufferPointer, offset: inout Int
  ) throws(WireError) -> Event? {
    while offset < buffer.count {
      if remaining > 0 {
        let end = min(buffer.count, offset + remaining)
        defer { offset = end }
        remaining -= end - offset
        return .data(offset..<end)
      }
      // The one byte of payload that a reset has, and an urgent byte, is read as a fifth byte of the header.
      if headerCount == 4 {
        let code = buffer[offset]
        offset += 1
        headerCount = 0
        if header >> 24 == UInt32(Frame.Kind.urgent.rawValue) { return .urgent(code) }
        isEnded = true
        guard let status = Status(rawValue: code), status != .ok else { throw .unknownStatus(code) }
        return .reset(status)
      }
      header = header << 8 | UInt32(buffer[offset])
      headerCount += 1
      offset += 1
      guard headerCount == 4 else { continue }
      let length = Int(header & 0xff_ffff)
      guard let kind = Frame.Kind(rawValue: UInt8(truncatingIfNeeded: header >> 24)) else {
        throw .unknownFrame(UInt8(truncatingIfNeeded: header >> 24))
      }
      switch kind {
      case .data:
        guard !isEnded else { throw .afterEnd }
        guard (1...Frame.dataLimit).contains(length) else {
          throw .badLength(what: "data frame", found: length, limit: Frame.dataLimit)
        }
        remaining = length
        headerCount = 0
      case .end:
        guard !isEnded else { throw .afterEnd }
        guard length == 0 else { throw .badLength(what: "end frame", found: length, limit: 0) }
        isEnded = true
        headerCount = 0
        return .end
      case .reset:
        guard length == 1 else { throw .badLength(what: "reset frame", found: length, limit: 1) }
      case .urgent:
        guard !isEnded else { throw .afterEnd }
        guard length == 1 else { throw .badLength(what: "urgent frame", found: length, limit: 1) }
      }
    }
    return nil
  }
}
