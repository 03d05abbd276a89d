import CLinux

/// A binary heap of deadlines; cancelled timers stay in it until they come up.
struct TimerQueue {
  /// Only the id: a cancelled timer must not keep its source, and what that has captured, until it comes up.
  private struct Entry {
    var deadline: UInt64
    var id: UInt64
  }

  private var heap: [Entry] = []
  private var live: [UInt64: (source: EventSource, key: Int)] = [:]
  private var nextID: UInt64 = 1

  var isEmpty: Bool { heap.isEmpty }

  mutating func add(deadline: UInt64, source: EventSource, key: Int) -> UInt64 {
    let id = nextID
    nextID &+= 1
    live[id] = (source, key)
    heap.append(Entry(deadline: deadline, id: id))
    siftUp(heap.count - 1)
    return id
  }

  mutating func cancel(_ id: UInt64) {
    guard live.removeValue(forKey: id) != nil else { return }
    // Mostly cancelled timers (handshakes that went well) must not pile up until their deadlines.
    if heap.count > 64, live.count * 2 < heap.count {
      heap.removeAll { live[$0.id] == nil }
      heap.sort { $0.deadline < $1.deadline }
    }
  }

  /// For epoll_wait(2): -1 without timers, rounded up so that a timer is due when the wait ends.
  mutating func milliseconds(from now: UInt64) -> Int32 {
    while let first = heap.first, live[first.id] == nil { removeFirst() }
    guard let first = heap.first else { return -1 }
    guard first.deadline > now else { return 0 }
    return Int32(min((first.deadline - now + 999_999) / 1_000_000, 60_000))
  }

  mutating func popDue(_ now: UInt64) -> (source: EventSource, key: Int)? {
    while let first = heap.first {
      guard live[first.id] != nil else {
        removeFirst()
        continue
      }
      guard first.deadline <= now else { return nil }
      removeFirst()
      return live.removeValue(forKey: first.id)
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
