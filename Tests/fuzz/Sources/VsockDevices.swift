import CLinux
import LinuxSystem

@testable import VhostVsock

/// The rings of a hostile guest: every part of a packet that the device would read or write is in the guest's memory.
let vsockDevice = Harness("vsock-device", limit: 2048) { bytes in
  var choices = Choices(bytes)
  let length = 1 << 16
  let image = [UInt8](repeating: 0, count: length)
  guard let file = try? makeMemoryFile(image) else { return }
  let base: UInt64 = 0x10_0000
  let region = GuestMemory.Region(guestAddress: 0x4000, size: UInt64(length), userAddress: base, fileOffset: 0)
  guard let memory = try? GuestMemory([(region, file.rawValue)]),
    let start = memory.pointer(userAddress: base, length: length)
  else { return check(false, "no memory") }
  var queue = Virtqueue()
  do throws(VhostVsockError) {
    try queue.setSize(UInt32(1 << choices.below(9)))
    try queue.setAddresses(
      descriptors: base + UInt64(choices.below(8)) * 16, available: base + 0x2000 + UInt64(choices.below(4)) * 2,
      used: base + 0x4000 + UInt64(choices.below(2)) * 4, in: memory)
  } catch {
    return
  }
  queue.next = choices.number()
  let direction: Virtqueue.Direction = choices.flag() ? .writable : .readable
  let rings = choices.remainder()
  // Descriptors at the start, and the ring of those that are offered behind them.
  let split = min(rings.count, 512)
  (start + 0x2000).copyMemory(from: Array(rings[..<split]), byteCount: split)
  start.copyMemory(from: Array(rings[split...]), byteCount: rings.count - split)
  let storage = VectorList.allocate()
  defer { storage.deallocate() }
  var vectors = VectorList(storage: storage)
  do throws(VhostVsockError) {
    for _ in 0..<16 where try queue.availableCount() > 0 {
      vectors.removeAll()
      let head = try queue.head()
      let count = try queue.readChain(head, direction, in: memory, to: &vectors)
      check(count == vectors.bytes, "another length than its pieces")
      for index in 0..<vectors.count {
        guard let piece = vectors.base[index].iov_base else { continue }
        check(
          piece >= start && piece + vectors.base[index].iov_len <= start + length, "a piece outside of the memory")
      }
      header(vectors)
      queue.finish(head, length: 0)
      queue.publish()
    }
  } catch {
    check(!"\(error)".isEmpty, "no reason")
  }
}

private func header(_ vectors: VectorList) {
  var bytes = [UInt8](repeating: 0, count: VsockHeader.size)
  bytes.withUnsafeMutableBytes { vectors.copy(to: $0) }
  let header = bytes.withUnsafeBytes { VsockHeader(reading: $0) }
  var written = [UInt8](repeating: 0, count: VsockHeader.size)
  written.withUnsafeMutableBytes { header.write(to: $0) }
  check(written == bytes, "a header is read otherwise than it is written")
  check(header.refusal.operation == VsockOperation.reset, "no reset")
}
