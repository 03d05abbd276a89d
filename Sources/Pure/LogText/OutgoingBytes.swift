/// Bytes on their way out: written at the end, taken from the front. The memory stays between uses.
public struct OutgoingBytes: ~Copyable {
  /// More memory than this is given back as soon as it is empty.
  private static let kept = 2 << 20

  private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
  private var start = 0
  private var end = 0

  public init() {}
  deinit { memory.deallocate() }

  public var count: Int { end - start }
  public var isEmpty: Bool { end == start }

  /// What waits, oldest first. Good until the next call of anything else.
  public var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[start..<end]) }

  public mutating func append(_ new: UnsafeRawBufferPointer) {
    room(new.count).copyMemory(from: new)
    commit(new.count)
  }

  /// Takes `count` bytes from the front.
  public mutating func remove(_ count: Int) {
    start += min(max(0, count), self.count)
    guard start == end else { return }
    start = 0
    end = 0
    if memory.count > Self.kept {
      memory.deallocate()
      memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    }
  }

  public mutating func removeAll() { remove(count) }

  /// At least `count` bytes behind the end, to be written and then committed.
  mutating func room(_ count: Int) -> UnsafeMutableRawBufferPointer {
    if memory.count - end < count { makeRoom(count) }
    return UnsafeMutableRawBufferPointer(rebasing: memory[end...])
  }

  /// The first `count` bytes of the room have been written.
  mutating func commit(_ count: Int) {
    precondition(count >= 0 && count <= memory.count - end)
    end += count
  }

  private mutating func makeRoom(_ room: Int) {
    let count = self.count
    let waiting = UnsafeRawBufferPointer(rebasing: memory[start..<end])
    // Moved to the front only where as much has been taken as is moved, so that it stays cheap on the average.
    if start < count || memory.count - count < room {
      let larger = UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(memory.count * 2, count + room, 65536), alignment: 16)
      larger.copyMemory(from: waiting)
      memory.deallocate()
      memory = larger
    } else {
      memory.copyMemory(from: waiting)
    }
    start = 0
    end = count
  }
}
