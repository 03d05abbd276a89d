import CLinux

/// A binary heap of deadlines; cancelled timers stay in it until they come up.
///
/// A timer's id is a slot's number and the slot's generation, so that the id of a timer that is gone finds nobody.
struct TimerQueue {
  /// Only the id: a cancelled timer must not keep its source, and what that has captured, until it comes up.
  private struct Entry {
    var deadline: UInt64
    var id: UInt64
  }

  private struct Slot {
    var source: EventSource?
    var key = 0
    var generation: UInt32 = 0
  }

  private var heap: [Entry] = []
  private var slots: [Slot] = []
  private var free: [Int] = []

  var isEmpty: Bool { heap.isEmpty }

  mutating func add(deadline: UInt64, source: EventSource, key: Int) -> UInt64 {
    let index: Int
    if let last = free.popLast() {
      index = last
    } else {
      index = slots.count
      slots.append(Slot())
    }
    slots[index].source = source
    slots[index].key = key
    let id = UInt64(slots[index].generation) << 32 | UInt64(UInt32(truncatingIfNeeded: index))
    heap.append(Entry(deadline: deadline, id: id))
    siftUp(heap.count - 1)
    return id
  }

  private func isLive(_ id: UInt64) -> Bool {
    let index = Int(id & 0xffff_ffff)
    return slots.indices.contains(index) && slots[index].source != nil
      && slots[index].generation == UInt32(truncatingIfNeeded: id >> 32)
  }

  private mutating func take(_ id: UInt64) -> (source: EventSource, key: Int)? {
    guard isLive(id) else { return nil }
    let index = Int(id & 0xffff_ffff)
    let slot = slots[index]
    slots[index].source = nil
    slots[index].generation &+= 1
    free.append(index)
    return slot.source.map { ($0, slot.key) }
  }

  mutating func cancel(_ id: UInt64) {
    guard take(id) != nil else { return }
    // Mostly cancelled timers (handshakes that went well) must not pile up until their deadlines.
    if heap.count > 64, (slots.count - free.count) * 2 < heap.count {
      heap = heap.filter { isLive($0.id) }.sorted { $0.deadline < $1.deadline }
    }
  }

  /// For epoll_wait(2): -1 without timers, rounded up so that a timer is due when the wait ends.
  mutating func milliseconds(from now: UInt64) -> Int32 {
    while let first = heap.first, !isLive(first.id) { removeFirst() }
    guard let first = heap.first else { return -1 }
    guard first.deadline > now else { return 0 }
    return Int32(min((first.deadline - now + 999_999) / 1_000_000, 60_000))
  }

  mutating func popDue(_ now: UInt64) -> (source: EventSource, key: Int)? {
    while let first = heap.first {
      guard isLive(first.id) else {
        removeFirst()
        continue
      }
      guard first.deadline <= now else { return nil }
      removeFirst()
      return take(first.id)
    }
    return nil
  }

  private mutating func removeFirst() {
    heap.swapAt(0, heap.count - 1)
    heap.removeLast()
    var index = 0
    while true {
      let left = 2 * index + 1
      guard left < heap.count else { return }
      let right = left + 1
      let child = right < heap.count && heap[right].deadline < heap[left].deadline ? right : left
      guard heap[child].deadline < heap[index].deadline else { return }
      heap.swapAt(child, index)
      index = child
    }
  }

  private mutating func siftUp(_ start: Int) {
    var index = start
    while index > 0 {
      let parent = (index - 1) / 2
      guard heap[index].deadline < heap[parent].deadline else { return }
      heap.swapAt(index, parent)
      index = parent
    }
  }
}
