import Testing
import Wire

@testable import Relaying

/// The pure part alone, with sockets of counters and of whims: each call moves as much as it likes, each event comes when it
/// likes. Deeper in corners than real sockets come, because every size and moment is possible here.
private struct World {
  enum Item: Equatable {
    case data(Int)
    case end
    case reset
    /// The stream's own end.
    case close
  }

  struct Side {
    /// What the peer will still do, and what of that has arrived.
    var ahead: [Item] = []
    var arrived: [Item] = []
    /// What waits in the relay for this side; the frames of ends and resets as bytes.
    var queue = 0
    var taken = 0
    var dropped = false
    var sawEnd = false
    var isDead: Bool { said.contains(.reset) || said.contains(.close) }
    /// All that has arrived.
    var said: [Item] = []
  }

  var dice: SplitMix
  var state: RelayState
  let framed: Bool
  var sides: [Side] = [Side(), Side()]
  var end: Relay.End?
  var given = [0, 0]

  init(seed: UInt64) {
    dice = SplitMix(seed: seed)
    framed = !dice.one(in: 4)
    state = RelayState(framed: framed)
    for index in 0...1 {
      for _ in 0..<dice.size([1, 6]) - 1 { sides[index].ahead.append(.data(dice.size([1, 50, 2000]))) }
      if !dice.one(in: 3) { sides[index].ahead.append(.end) }
      if dice.one(in: 3) { sides[index].ahead.append(.reset) }
      if index == 1, framed { sides[index].ahead.append(.close) }
      if sides[index].ahead.isEmpty
        || sides[index].ahead.last.map({ if case .data = $0 { true } else { false } }) == true
      {
        sides[index].ahead.append(.end)
      }
    }
  }

  func side(_ index: Int) -> RelaySide { index == 0 ? .plain : .stream }
  func index(_ side: RelaySide) -> Int { side == .plain ? 0 : 1 }
  func isFramed(_ index: Int) -> Bool { index == 1 && framed }

  /// Something happens outside.
  mutating func event() {
    let index = Int.random(in: 0...1, using: &dice)
    if dice.one(in: 2) { return state.happened(.writable, side(index)) }
    guard !sides[index].ahead.isEmpty else { return }
    let item = sides[index].ahead.removeFirst()
    sides[index].arrived.append(item)
    sides[index].said.append(item)
    state.happened(.readable, side(index))
    switch item {
    case .data: break
    case .end: if !isFramed(index) { state.happened(.hangup, side(index)) }
    case .reset: if !isFramed(index) { state.happened([.hangup, .broken, .writable], side(index)) }
    case .close: state.happened([.hangup, .writable], side(index))
    }
  }

  /// Does what comes next until nothing does.
  /// - Returns: false where that does not come to an end.
  mutating func run() -> Bool {
    for _ in 0..<20_000 {
      switch state.next {
      case .wait: return true
      case .settle(let side):
        if sides[index(side)].isDead || dice.one(in: 2) { end = state.ending?.end }
        return true
      case .finish(let how):
        end = how
        return true
      case .read(let side): read(index(side))
      case .write(let side): write(index(side))
      case .shut(let side):
        state.happened(.finSent, side)
        if isFramed(index(side)) {
          sides[1].queue += 4
          state.setQueued(side, true)
        } else {
          sides[index(side)].sawEnd = true
        }
      case .tell(let side, _):
        sides[index(side)].queue += 5
        state.didTell(side)
      case .ask(let side):
        state.asked(side, sides[index(side)].said.contains(.reset) ? .reset(.reset) : nil)
      }
    }
    return false
  }

  mutating func read(_ index: Int) {
    guard let item = sides[index].arrived.first else { return state.drained(side(index)) }
    switch item {
    case .data(let count):
      let part = dice.one(in: 2) ? count : Int.random(in: 1...count, using: &dice)
      if part == count { sides[index].arrived.removeFirst() } else { sides[index].arrived[0] = .data(count - part) }
      // A short read comes only where the socket is empty.
      state.gave(side(index), short: sides[index].arrived.isEmpty && dice.one(in: 2))
      give(part, to: 1 - index)
    case .end:
      sides[index].arrived.removeFirst()
      state.ended(side(index))
    case .reset:
      sides[index].arrived.removeFirst()
      state.conclude(state.failure(side(index)) ?? .reset(.reset), by: side(index))
    case .close: state.closed(side(index))
    }
  }

  mutating func give(_ count: Int, to index: Int) {
    guard state.takes(side(index)) else {
      sides[index].dropped = true
      return
    }
    given[index] += count
    if sides[index].isDead, dice.one(in: 2) {
      return state.refused(side(index), isFramed(index) ? .transportLost : .reset(.reset))
    }
    let part = dice.one(in: 2) ? count : Int.random(in: 0...count, using: &dice)
    sides[index].taken += part
    guard part < count else { return }
    sides[index].queue += count - part
    state.wouldBlock(side(index))
    state.setQueued(side(index), true)
  }

  mutating func write(_ index: Int) {
    if sides[index].isDead, dice.one(in: 2) {
      sides[index].queue = 0
      return state.refused(side(index), isFramed(index) ? .transportLost : .reset(.reset))
    }
    let part = Int.random(in: 0...sides[index].queue, using: &dice)
    sides[index].queue -= part
    sides[index].taken += part
    state.setQueued(side(index), sides[index].queue > 0)
    if part == 0 { state.wouldBlock(side(index)) }
  }
}

@Suite struct RelayStateTests {
  /// Every schedule comes to its end, nothing that was said before an end or a reset is missing, and nobody who has ended in
  /// order is reset for it.
  @Test func everyScheduleEnds() {
    for seed in 0..<UInt64(10_000) {
      var world = World(seed: seed)
      var events = 0
      while world.end == nil, events < 100_000 {
        events += 1
        world.event()
        guard world.run() else {
          Issue.record("seed \(seed): goes round in circles")
          return
        }
      }
      guard let end = world.end else {
        Issue.record("seed \(seed): does not end: \(world.sides)")
        continue
      }
      let (plain, stream) = (world.sides[0], world.sides[1])
      if end == .completed {
        #expect(plain.queue == 0 && stream.queue == 0, "seed \(seed)")
        #expect(plain.sawEnd && (world.framed || stream.sawEnd), "seed \(seed)")
        #expect(plain.said.contains(.end) && stream.said.contains(.end), "seed \(seed)")
      } else {
        #expect(plain.isDead || stream.isDead, "seed \(seed): \(end) without a reason")
      }
      // What went to a side that lives.
      for (index, to) in world.sides.enumerated() where !to.isDead {
        let from = world.sides[1 - index]
        let said = from.said.reduce(0) { if case .data(let count) = $1 { $0 + count } else { $0 } }
        #expect(!to.dropped && world.given[index] == said && to.queue == 0, "seed \(seed): side \(index)")
        // A plain side whose reset was found by writing is not asked any more whether it had ended before.
        let unsure = !world.isFramed(1 - index) && from.isDead
        if from.said.contains(.end), !unsure {
          #expect(world.isFramed(index) || to.sawEnd, "seed \(seed): side \(index)")
        }
      }
    }
  }

  /// A reset is bounded in time only where it waits for somebody.
  @Test func patience() {
    var state = RelayState(framed: true)
    #expect(!state.isImpatient)
    state.setQueued(.plain, true)
    state.wouldBlock(.plain)
    state.happened([.hangup, .readable], .stream)
    // The stream has been closed behind a slow reader: it is read to its end, and only that tells.
    #expect(!state.isImpatient)
    #expect(state.next == .read(.plain))
    state.drained(.plain)
    #expect(state.next == .read(.stream))
    var regular = state
    regular.ended(.plain)
    regular.happened(.finSent, .stream)
    regular.ended(.stream)
    regular.closed(.stream)
    #expect(!regular.isImpatient && regular.next == .wait)
    state.closed(.stream)
    #expect(state.isImpatient && state.ending?.end == .transportLost)
  }
}
