import Packets

@testable import PacketRelaying

/// The shared memory of raw mode, in which the other side writes anything at any time: a frame that is given out, and the room
/// for one, lie in the ring that is mapped twice.
let packetRings = Harness("packet-rings", limit: 1024) { bytes in
  var choices = Choices(bytes)
  memory.initializeMemory(as: UInt8.self, repeating: 0, count: PacketMemory.control)
  let ring = memory + PacketMemory.control
  let end = ring + 2 * PacketMemory.ring
  var reader = RingReader(control: memory, ring: ring)
  var writer = RingWriter(control: memory + 512, ring: ring)
  do throws(BadRing) {
    for _ in 0..<64 where !choices.isEmpty {
      switch choices.below(5) {
      case 0: write(&choices, UInt64(choices.number(UInt32.self) & 0xfffff), at: RingField.head)
      case 1: write(&choices, choices.number(UInt64.self), at: choices.flag() ? RingField.head : 512 + RingField.tail)
      case 2: (ring + 8 * Int(choices.number(UInt16.self))).storeBytes(of: choices.number(UInt32.self), as: UInt32.self)
      case 3:
        guard try reader.look() else { break }
        while let frame = try reader.next() {
          guard let start = frame.baseAddress else { return check(false, "a frame without a place") }
          check(
            start >= UnsafeRawPointer(ring) && start + frame.count <= UnsafeRawPointer(end),
            "a frame outside of the ring")
          _ = reader.release(frame.count)
        }
      default:
        guard let room = try writer.room() else { break }
        check(room >= ring && room + PacketGuard.frameLimit <= end, "room outside of the ring")
        _ = writer.publish(1 + Int(choices.number(UInt16.self)))
      }
    }
  } catch {
    // The stream ends.
  }
}

/// Written anew for each input.
nonisolated(unsafe) private let memory = UnsafeMutableRawPointer.allocate(
  byteCount: PacketMemory.control + 2 * PacketMemory.ring, alignment: 4096)

private func write(_ choices: inout Choices, _ value: UInt64, at offset: Int) {
  (memory + offset).storeBytes(of: value, as: UInt64.self)
}
