import TLS

// Theory of operation.
//
// A connection is not terminated here, so nobody acknowledges for the server what is held: a client whose hello comes in many
// small segments would stop after the first ten (RFC 6928). So each segment passes as it comes, but for the one with which
// the hello is whole: that one waits for the decision, and no server can have answered before. What passes before is a part
// of a hello, to an address that may be reached.
//
// What was judged must be what the server gets. Where its bytes begin is what the server says in its SYN-ACK. A segment
// behind a gap is lost, and comes again. Bytes that come again must be the same as before, until the server has acknowledged
// the hello: the first ones may have been made so that they are lost on the way. Urgent data, which the server takes out of
// its place, is no hello.

/// The first bytes of one connection, put together from its segments.
struct HelloReassembly {
  enum Step: Equatable {
    case pass
    /// The segment is lost, and will come again.
    case hold
    /// The client has said what it had to say, or something that can be judged as it is.
    case judge(ClientHello.Reading)
    /// Bytes came again as others.
    case changed
  }

  /// A hello may be in more bytes than it has, since records have headers.
  static let limit = ClientHello.limit * 2

  /// Of the program's SYN.
  let initial: UInt32
  /// When the server has answered, in seconds; before that, when the connection began.
  private(set) var since: UInt32
  /// Of the first byte; nil until the server has answered.
  private var base: UInt32?
  private(set) var bytes: [UInt8] = []
  private(set) var isJudged = false
  /// No look before there are so many: a client that sends a byte at a time must not cost a look at everything each time.
  private var nextLook = 1

  init(initial: UInt32, since: UInt32) {
    self.initial = initial
    self.since = since
  }

  /// What the server waits for next, as far as this can know.
  var expected: UInt32 { (base ?? initial &+ 1) &+ UInt32(truncatingIfNeeded: bytes.count) }

  /// Whether the client may send it, and has not yet.
  var isAwaited: Bool { base != nil && !isJudged }

  /// The server has answered the SYN. Another one's answer is none.
  mutating func answered(_ acknowledgement: UInt32, now: UInt32) {
    guard acknowledgement == initial &+ 1, base == nil else { return }
    base = acknowledgement
    since = now
  }

  /// Whether the server has all that was judged: what comes from here on is none of ours.
  func isOver(acknowledged: UInt32) -> Bool {
    guard isJudged, let base else { return false }
    return Int32(bitPattern: acknowledged &- base) >= bytes.count
  }

  mutating func accept() { isJudged = true }

  /// A segment of the program.
  /// - Parameter isLast: the program sends no more behind it.
  mutating func take(_ sequence: UInt32, _ payload: UnsafeRawBufferPointer, isUrgent: Bool, isLast: Bool) -> Step {
    guard !payload.isEmpty else { return .pass }
    guard let base else { return .hold }
    let start = Int(Int32(bitPattern: sequence &- base))
    guard start <= bytes.count else { return isJudged ? .pass : .hold }
    if isUrgent, !isJudged || start < bytes.count { return .judge(.malformed("has urgent data in it")) }
    // Keep-alives begin before what the other end waits for (RFC 1122 section 4.2.3.6).
    let skipped = max(0, -start)
    let known = min(start + payload.count, bytes.count)
    for place in max(start, 0)..<max(known, start, 0) where bytes[place] != payload[place - start] { return .changed }
    guard !isJudged else { return .pass }
    let new = max(bytes.count - start, skipped)
    guard new < payload.count else { return .pass }
    // What is behind the longest hello is none of it.
    bytes += payload[new..<min(payload.count, new + Self.limit + 1 - bytes.count)]
    return look(isLast: isLast)
  }

  private mutating func look(isLast: Bool) -> Step {
    guard bytes.count >= nextLook || isLast else { return .pass }
    let reading = bytes.withUnsafeBytes { ClientHello.read($0) }
    guard reading == .incomplete else { return .judge(reading) }
    if bytes.count > Self.limit { return .judge(.malformed("is in too many records")) }
    nextLook = min(bytes.count + ClientHello.missing(bytes), Self.limit + 1)
    return isLast ? .judge(.incomplete) : .pass
  }
}
