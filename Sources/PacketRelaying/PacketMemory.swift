import CLinux
import LinuxSystem
import Packets

// Theory of operation.
//
// Two processes on one machine need not send packets to each other: the enclave's side makes a memory file, seals its
// length, and passes it to the host's with the first byte on their Unix stream. It has two rings, one a direction. TUN
// devices are read straight into one and written straight out of the other, so the kernel copies each packet twice on
// its way and not four times. The stream carries single bytes, a bell for a side that has said it would sleep, and its
// end is the end of the memory, too.
//
//   0        64 KiB                        + ring                     + ring
//   │ control │ ring: enclave to host       │ ring: host to enclave    │
//
// Control, at 0 for the first ring and at 512 for the second; each line has one writer, but for the flags, which the other
// side clears:
//
//   +0    u64 head: bytes ever written      +8    u32 the writer waits for room
//   +128  u64 tail: bytes ever taken        +136  u32 the reader waits for frames
//
// A record is a length (u32, the machine's order) and the frame, filled up to a multiple of 8. The ring is mapped twice in
// a row, so every record lies in one piece.
//
// The other side is foreign and may write anything anywhere at any time. Each side keeps its own position to itself, and
// reads the other's when it has used up what it knew of it; a distance that the ring does not have ends the stream. A length
// is read once. What is judged of a frame is copied first, and that copy is what the kernel gets; only payload goes straight.

/// The memory of one queue, which the enclave's side makes and the host's gets.
public final class PacketMemory {
  /// Bytes of one direction's ring: several of the longest frames, and little enough for a core's second-level cache.
  static let ring = 512 * 1024
  /// A multiple of every machine's page size.
  static let control = 64 * 1024
  static let size = control + 2 * ring
  private static let secondControl = 512

  public enum Side: Sendable { case enclave, host }

  private let start: UnsafeMutableRawPointer
  private let side: Side
  /// Passed to the other side, and then no longer needed.
  private(set) var file: FileHandle?

  /// The enclave's side makes it.
  /// - Throws: where the kernel has no memory files or no memory (memfd_create(2), mmap(2)).
  public convenience init() throws(SystemError) {
    let made = try check("memfd_create", "", clinux_sealed_memory("tombolo-packets", Self.size))
    try self.init(FileHandle(OwnedFileDescriptor(made)), .enclave)
  }

  /// - Parameter file: from the other side, so it may be anything.
  /// - Throws: for what is not a sealed memory file of the right size.
  public init(_ file: FileHandle, _ side: Side) throws(SystemError) {
    self.side = side
    self.file = file
    try check(
      "fstat", "a sealed memory file of \(Self.size) bytes", clinux_check_sealed_memory(file.rawValue, Self.size))
    var address: UnsafeMutableRawPointer?
    try check("mmap", "packet memory", clinux_map_rings(file.rawValue, Self.control, Self.ring, &address))
    guard let address else { throw SystemError("mmap", "packet memory", errno: ENOMEM) }
    start = address
  }

  deinit { _ = clinux_unmap_rings(start, Self.control, Self.ring) }

  func releaseFile() { file = nil }

  var outgoing: RingWriter {
    RingWriter(control: place(.enclave).control, ring: place(.enclave).ring)
  }

  var incoming: RingReader {
    RingReader(control: place(.host).control, ring: place(.host).ring)
  }

  /// The first ring is what the enclave's side writes.
  private func place(_ first: Side) -> (control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    let ring = start + Self.control
    return side == first ? (start, ring) : (start + Self.secondControl, ring + 2 * Self.ring)
  }
}

enum RingField {
  static let head = 0
  static let writerWaits = 8
  static let tail = 128
  static let readerWaits = 136
}

/// A position, a length or a distance that no honest side writes.
struct BadRing: Error {}

private let prefix = 4
/// The most that one frame can take of a ring.
private let recordLimit = (prefix + PacketGuard.frameLimit + 7) & ~7

/// The writing side of a ring. Its head in the memory is what it has told the other side; its own it keeps.
struct RingWriter {
  let control: UnsafeMutableRawPointer
  let ring: UnsafeMutableRawPointer
  private var head: UInt64 = 0
  /// The reader's tail when it was last looked at.
  private var tail: UInt64 = 0
  private var waits = false

  init(control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    self.control = control
    self.ring = ring
  }

  private var isShort: Bool { UInt64(PacketMemory.ring) &- (head &- tail) < UInt64(recordLimit) }

  private mutating func observe() throws(BadRing) {
    tail = clinux_load_acquire_u64(control + RingField.tail)
    guard head &- tail <= UInt64(PacketMemory.ring) else { throw BadRing() }
  }

  private mutating func say(_ waiting: Bool) {
    // The other side may have taken it back, but never sets it.
    guard waiting || waits else { return }
    waits = waiting
    clinux_store_u32(control + RingField.writerWaits, waiting ? 1 : 0)
  }

  /// Room for the longest frame, or nil where there is none: then the reader will ring when there is much.
  mutating func room() throws(BadRing) -> UnsafeMutableRawPointer? {
    if isShort { try observe() }
    if isShort {
      say(true)
      // The flag must be there before the tail is looked at again: the reader writes and looks the other way around.
      clinux_full_fence()
      try observe()
      if isShort { return nil }
    }
    say(false)
    return ring + Int(head % UInt64(PacketMemory.ring)) + prefix
  }

  /// What was written at `room` is a frame of that length.
  /// - Returns: whether the reader is asleep and must be rung for.
  mutating func publish(_ length: Int) -> Bool {
    let record = ring + Int(head % UInt64(PacketMemory.ring))
    clinux_store_u32(record, UInt32(truncatingIfNeeded: length))
    head &+= UInt64((prefix + length + 7) & ~7)
    clinux_store_release_u64(control + RingField.head, head)
    return wake(control + RingField.readerWaits)
  }
}

/// The reading side of a ring.
struct RingReader {
  let control: UnsafeMutableRawPointer
  let ring: UnsafeMutableRawPointer
  private var tail: UInt64 = 0
  /// The writer's head when it was last looked at.
  private var head: UInt64 = 0
  private var waits = false

  init(control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    self.control = control
    self.ring = ring
  }

  /// Looks whether there are frames.
  /// - Returns: false where there are none: then the writer will ring for the next.
  mutating func look() throws(BadRing) -> Bool {
    if try !observe() {
      say(true)
      clinux_full_fence()
      guard try observe() else { return false }
    }
    // Nobody need ring for a side that is awake.
    say(false)
    return true
  }

  private mutating func say(_ waiting: Bool) {
    // The other side may have taken it back, but never sets it.
    guard waiting || waits else { return }
    waits = waiting
    clinux_store_u32(control + RingField.readerWaits, waiting ? 1 : 0)
  }

  private mutating func observe() throws(BadRing) -> Bool {
    head = clinux_load_acquire_u64(control + RingField.head)
    guard head &- tail <= UInt64(PacketMemory.ring) else { throw BadRing() }
    return head != tail
  }

  /// The next of the frames that `look` has seen; its bytes may change at any time.
  func next() throws(BadRing) -> UnsafeRawBufferPointer? {
    guard head != tail else { return nil }
    let record = ring + Int(tail % UInt64(PacketMemory.ring))
    let length = Int(clinux_load_u32(record))
    guard length > 0, length <= PacketGuard.frameLimit, size(length) <= head &- tail else { throw BadRing() }
    return UnsafeRawBufferPointer(start: record + prefix, count: length)
  }

  private func size(_ length: Int) -> UInt64 { UInt64((prefix + length + 7) & ~7) }

  /// - Parameter length: of the frame that `next` gave.
  /// - Returns: whether the writer is asleep and there is room enough to ring for it.
  mutating func release(_ length: Int) -> Bool {
    tail &+= size(length)
    clinux_store_release_u64(control + RingField.tail, tail)
    // Not for every frame: a writer that is woken has something to do then. There is always as much in the end.
    guard head &- tail <= UInt64(PacketMemory.ring / 2) else { return false }
    return wake(control + RingField.writerWaits)
  }
}

/// Whether the other side waits, which it does no longer then.
private func wake(_ flag: UnsafeMutableRawPointer) -> Bool {
  clinux_full_fence()
  guard clinux_load_u32(flag) != 0 else { return false }
  clinux_store_u32(flag, 0)
  return true
}
