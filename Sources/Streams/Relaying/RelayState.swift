import Wire

/// One of the two sockets that a relay joins.
enum RelaySide: Equatable, Sendable {
  case plain, stream

  @inline(__always) var other: RelaySide { self == .plain ? .stream : .plain }
}

/// All that a relay knows, and from it what comes next. Pure: no descriptors, no clock.
///
/// Each side has two bits for the half-closes (`finReceived`: it has said that it sends no more; `finSent`: it has been
/// told that the other one sends no more), as in passt's tcp_splice.c, and a few for what its socket is ready for. `next`
/// says what to do; the relay does it and reports here what came of it.
struct RelayState: Equatable, Sendable {
  struct Bits: OptionSet, Equatable, Sendable {
    let rawValue: UInt16

    /// Reading may give something: set by events, cleared where it gave nothing.
    static let readable = Bits(rawValue: 1)
    static let writable = Bits(rawValue: 1 << 1)
    /// Nothing is added any more to what can be read; only reading to the end tells how it ended.
    static let hangup = Bits(rawValue: 1 << 2)
    /// The socket has an error. Reading finds it behind the data; where nothing is read any more it must be asked for.
    static let broken = Bits(rawValue: 1 << 3)
    static let finReceived = Bits(rawValue: 1 << 4)
    static let finSent = Bits(rawValue: 1 << 5)
    /// Bytes wait here for this side.
    static let queued = Bits(rawValue: 1 << 6)
    /// Ends and resets come and go as frames on this side, and not as TCP's own.
    static let framed = Bits(rawValue: 1 << 7)
    /// An urgent byte has come. A read stops in front of it (tcp(7)), so that a short one does not mean an empty socket.
    static let urgent = Bits(rawValue: 1 << 8)
  }

  enum Action: Equatable, Sendable {
    case wait
    case read(RelaySide)
    /// Writes what waits for this side.
    case write(RelaySide)
    /// Tells this side that the other one sends no more.
    case shut(RelaySide)
    /// Puts the reset frame behind all that waits for this side.
    case tell(RelaySide, Relay.End)
    /// Asks for the socket's error.
    case ask(RelaySide)
    /// Ends as soon as this side's peer has everything that was written: closing now would throw away what is on its way.
    case settle(RelaySide)
    case finish(Relay.End)
  }

  private var plain: Bits = [.readable, .writable]
  private var stream: Bits = [.readable, .writable]
  /// Why this side takes nothing any more. What it still has to say is read, then that is the end.
  private var plainFailure: Relay.End?
  private var streamFailure: Relay.End?
  /// The relay ends so: one side has, and has nothing more to say. The other side is still given what waits for it.
  private(set) var ending: (end: Relay.End, toward: RelaySide)?
  private var told = false
  /// Which side is read first where both can be.
  private var first = RelaySide.plain

  init(framed: Bool) { if framed { stream.insert(.framed) } }

  static func == (left: RelayState, right: RelayState) -> Bool {
    left.plain == right.plain && left.stream == right.stream && left.plainFailure == right.plainFailure
      && left.streamFailure == right.streamFailure && left.ending?.end == right.ending?.end
      && left.ending?.toward == right.ending?.toward && left.told == right.told && left.first == right.first
  }

  @inline(__always) subscript(_ side: RelaySide) -> Bits {
    get { side == .plain ? plain : stream }
    set { if side == .plain { plain = newValue } else { stream = newValue } }
  }

  @inline(__always) func failure(_ side: RelaySide) -> Relay.End? { side == .plain ? plainFailure : streamFailure }

  // MARK: what comes next

  var next: Action {
    if let ending { return last(ending.end, ending.toward) }
    if let step = pass(to: .plain) ?? pass(to: .stream) ?? look(at: .plain) ?? look(at: .stream) { return step }
    let both: Bits = [.finReceived, .finSent]
    if plain.contains(both), stream.contains(both), plain.union(stream).isDisjoint(with: .queued), plainFailure == nil,
      streamFailure == nil
    {
      return .finish(.completed)
    }
    if canRead(first) { return .read(first) }
    if canRead(first.other) { return .read(first.other) }
    return .wait
  }

  @inline(__always) private func pass(to side: RelaySide) -> Action? {
    guard failure(side) == nil else { return nil }
    if self[side].contains([.queued, .writable]) { return .write(side) }
    return mustShut(side) ? .shut(side) : nil
  }

  /// A plain side that has ended is not read any more, which would tell that it was reset.
  @inline(__always) private func look(at side: RelaySide) -> Action? {
    let ended = self[side].contains([.broken, .finReceived]) && !self[side].contains(.framed)
    return ended && failure(side) == nil ? .ask(side) : nil
  }

  private func last(_ end: Relay.End, _ side: RelaySide) -> Action {
    if failure(side) != nil { return .finish(end) }
    let framed = self[side].contains(.framed)
    if self[side].contains(.broken), !framed { return .ask(side) }
    if self[side].contains(.queued) {
      if self[side].contains(.writable) { return .write(side) }
      return canRead(side) ? .read(side) : .wait
    }
    if mustShut(side) { return .shut(side) }
    if !framed { return .settle(side) }
    return told ? .finish(end) : .tell(side, end)
  }

  private func mustShut(_ side: RelaySide) -> Bool {
    self[side.other].contains(.finReceived) && self[side].isDisjoint(with: [.finSent, .queued])
  }

  /// A side is read also where what it says goes nowhere any more: one that writes before it reads would else never
  /// come to read what waits for it, and neither would two relays that wait for each other.
  private func canRead(_ side: RelaySide) -> Bool {
    let bits = self[side]
    guard bits.contains(.readable) else { return false }
    // Behind the end of a framed side comes its reset, or the close that says that all is over.
    guard bits.contains(.framed) else { return !bits.contains(.finReceived) && !self[side.other].contains(.queued) }
    // Once the stream has been closed what is left in it is finite, and how it ended stands behind it: a reset must not
    // wait for a reader who never reads, and an end in order must not be taken for a reset.
    return bits.contains(.hangup) || !self[side.other].contains(.queued)
  }

  /// Whether what the other side says can still be given to this one.
  @inline(__always) func takes(_ side: RelaySide) -> Bool {
    if let ending, ending.toward != side { return false }
    return failure(side) == nil
  }

  /// One side has ended by force, and the other one does not take what is to go before it: that must not last for ever.
  var isImpatient: Bool {
    if ending != nil { return true }
    return hasFailed(.plain) && stream.contains(.queued) || hasFailed(.stream) && plain.contains(.queued)
  }

  private func hasFailed(_ side: RelaySide) -> Bool {
    failure(side) != nil || self[side].contains(.broken) && !self[side].contains(.framed)
  }

  /// Whether one side has said that it sends no more.
  var isHalfClosed: Bool { plain.contains(.finReceived) || stream.contains(.finReceived) }

  // MARK: what came of it

  mutating func happened(_ bits: Bits, _ side: RelaySide) { self[side].formUnion(bits) }

  /// There was nothing to read.
  mutating func drained(_ side: RelaySide) {
    self[side].subtract([.readable, .urgent])
    if let failure = failure(side) { conclude(failure, by: side) }
  }

  /// Bytes were read.
  /// - Parameter short: fewer than there was room for.
  @inline(__always) mutating func gave(_ side: RelaySide, short: Bool) {
    // The socket is empty: the next edge tells. Not so when an end is already known.
    if short, self[side].isDisjoint(with: [.hangup, .urgent]), failure(side) == nil { self[side].remove(.readable) }
    first = side.other
  }

  /// The side has said that it sends no more.
  mutating func ended(_ side: RelaySide) {
    // Once writing has found the reset, reading a plain socket to its end gives no error but this.
    if let failure = failure(side), !self[side].contains(.framed) { return conclude(failure, by: side) }
    self[side].insert(.finReceived)
  }

  /// The framed side's stream has come to its end.
  mutating func closed(_ side: RelaySide) {
    self[side].remove(.readable)
    // After both ends have been exchanged either side closes: that is the regular end.
    let regular =
      self[side].contains([.finReceived, .finSent]) && !self[side].contains(.queued) && failure(side) == nil
    if !regular { conclude(failure(side) ?? .transportLost, by: side) }
  }

  /// Writing to the side failed.
  mutating func refused(_ side: RelaySide, _ end: Relay.End) {
    guard failure(side) == nil else { return }
    fail(side, end)
    self[side].remove(.queued)
    self[side].insert(.readable)
    let silent = self[side].contains(.finReceived) && !self[side].contains(.framed)
    // Where neither takes anything, the reason is the connection's own.
    if silent || failure(side.other) != nil { conclude(plainFailure ?? end, by: side) }
  }

  private mutating func fail(_ side: RelaySide, _ end: Relay.End) {
    if side == .plain { plainFailure = end } else { streamFailure = end }
  }

  /// The side has ended by force, and all that it had to say has been read.
  mutating func conclude(_ end: Relay.End, by side: RelaySide) {
    guard let ending else { return ending = (end, side.other) }
    if ending.toward == side { fail(side, end) }
  }

  mutating func didTell(_ side: RelaySide) {
    told = true
    self[side].insert(.queued)
  }

  /// The socket's error was asked for.
  /// - Parameter end: nil where it had none.
  mutating func asked(_ side: RelaySide, _ end: Relay.End?) {
    self[side].remove(.broken)
    if let end { refused(side, end) }
  }

  mutating func wouldBlock(_ side: RelaySide) { self[side].remove(.writable) }
  mutating func setQueued(_ side: RelaySide, _ queued: Bool) {
    if queued { self[side].insert(.queued) } else { self[side].remove(.queued) }
  }
}
