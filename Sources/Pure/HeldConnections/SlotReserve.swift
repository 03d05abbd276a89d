/// The slots that no open connection has: those that never got through, and those of ended connections, in the order in which
/// they ended.
struct SlotReserve: Sendable {
  let capacity: Int
  private var unused: [UInt32] = []
  private var queue: [UInt32] = []
  private var head = 0

  init(capacity: Int) { self.capacity = capacity }

  mutating func free(_ slot: UInt32) { unused.append(slot) }
  mutating func takeFree() -> UInt32? { unused.popLast() }

  mutating func ended(_ slot: UInt32) { queue.append(slot) }

  /// The one that ended first.
  var first: UInt32? { head < queue.count ? queue[head] : nil }

  mutating func removeFirst() {
    guard head < queue.count else { return }
    head += 1
    if head >= 1024, head * 2 >= queue.count {
      queue.removeFirst(head)
      head = 0
    }
  }
}
