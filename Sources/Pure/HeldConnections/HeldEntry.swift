import Inet

/// A connection as the program knows it.
struct HeldKey: Hashable, Sendable {
  var localHigh: UInt64
  var localLow: UInt64
  var remoteHigh: UInt64
  var remoteLow: UInt64
  /// The family, the program's port, the other one.
  var ports: UInt64

  init(_ segment: Segment) {
    localHigh = segment.source.high
    localLow = segment.source.low
    remoteHigh = segment.destination.high
    remoteLow = segment.destination.low
    ports =
      (segment.is6 ? 1 << 32 : 0) | UInt64(segment.source.port) << 16 | UInt64(segment.destination.port)
  }

  var is6: Bool { ports >> 32 != 0 }
  var local: SegmentEnd {
    SegmentEnd(high: localHigh, low: localLow, port: UInt16(truncatingIfNeeded: ports >> 16))
  }
  var remote: SegmentEnd { SegmentEnd(high: remoteHigh, low: remoteLow, port: UInt16(truncatingIfNeeded: ports)) }

  func hash(into hasher: inout Hasher) {
    if is6 {
      hasher.combine(localHigh)
      hasher.combine(remoteHigh)
      hasher.combine(localLow)
      hasher.combine(remoteLow)
    } else {
      hasher.combine(localLow << 32 | remoteLow)
    }
    hasher.combine(ports)
  }
}

struct HeldEntry: Sendable {
  enum State: Sendable {
    case free
    /// The host has yet to answer.
    case held
    /// Segments pass.
    case open
    /// Segments still pass, and the program may open the same connection again.
    case ended
  }

  struct Sides: OptionSet, Sendable {
    let rawValue: UInt8
    static let program = Sides(rawValue: 1)
    static let listener = Sides(rawValue: 2)
  }

  var key: HeldKey
  var state = State.free
  var generation: UInt32 = 0
  /// Who has sent a FIN.
  var finished: Sides = []
  /// The program has acknowledged the listener's SYN.
  var isEstablished = false
  /// The proxy has a socket of it.
  var isAccepted = false
  /// No socket of it can be accepted any more.
  var isOver = false
  /// Both sides have closed it, or one has reset it.
  var isFinished = false
  /// An earlier connection had the slot, with the same key.
  var wasOpen = false
  var isQueued = false
  /// Seconds: when it was asked for, or answered.
  var since: UInt32 = 0
  /// Of its last segment; while it is held, of the last SYN.
  var lastSeen: UInt32 = 0
  /// The newest SYN, while it is held.
  var syn: [UInt8] = []

  init(_ key: HeldKey) { self.key = key }

  var isMapped: Bool { state == .open || state == .ended }

  /// Seconds that an ended connection keeps its slot: TIME_WAIT (TCP_TIMEWAIT_LEN of include/net/tcp.h), and what an orphan
  /// may take to send its last bytes (tcp_orphan_retries, ip-sysctl.rst).
  static let quietAfterEnd: UInt32 = 62
  static let quietOrphan: UInt32 = 150

  func hasRested(_ now: UInt32) -> Bool { now &- lastSeen >= (isFinished ? Self.quietAfterEnd : Self.quietOrphan) }

  /// Whether the program has stopped sending its SYN: it is sent again after 1, 3, 7 s and so on (RFC 6298 section 5.5), so
  /// that the next one is due when as much time has passed as before the last one, and a second more.
  func isGivenUp(_ now: UInt32) -> Bool { now &- lastSeen > 2 &* (lastSeen &- since) &+ 5 }
}
