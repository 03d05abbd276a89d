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
  private(set) var file: FileReference?

  /// The enclave's side makes it.
  /// - Throws: where the kernel has no memory files or no memory (memfd_create(2), mmap(2)).
  public convenience init() throws(SystemError) {
    let made = try check("memfd_create", "", clinux_sealed_memory("tombolo-packets", Self.size))
    try self.init(FileReference(OwnedFileDescriptor(made)), .enclave)
  }

  /// - Parameter file: from the other side, so it may be anything.
  /// - Throws: for what is not a sealed memory file of the right size.
  public init(_ file: FileReference, _ side: Side) throws(SystemError) {
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

/// What a frame takes of a ring.
private func recordSize(_ length: Int) -> UInt64 { UInt64((prefix + length + 7) & ~7) }

/// What both ends of a ring have: a position that they tell and one that they are told, and a flag each.
private struct RingEnd {
  enum Role { case writer, reader }

  let role: Role
  let control: UnsafeMutableRawPointer
  let ring: UnsafeMutableRawPointer
  /// What the memory says of it is for the other side; this is what counts.
  private(set) var own: UInt64 = 0
  /// The other side's when it was last looked at.
  private var other: UInt64 = 0
  private var waits = false

  init(_ role: Role, control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    self.role = role
    self.control = control
    self.ring = ring
  }

  /// Bytes that were written and not yet taken, as far as is known.
  var used: UInt64 { role == .writer ? own &- other : other &- own }

  var record: UnsafeMutableRawPointer { ring + Int(own % UInt64(PacketMemory.ring)) }

  mutating func observe() throws(BadRing) {
    other = clinux_load_acquire_u64(control + (role == .writer ? RingField.tail : RingField.head))
    guard used <= UInt64(PacketMemory.ring) else { throw BadRing() }
  }

  mutating func advance(_ size: UInt64) {
    own &+= size
    clinux_store_release_u64(control + (role == .writer ? RingField.head : RingField.tail), own)
  }

  /// Says that this side waits, and looks once more: the other one moves on first and looks at the flag then.
  mutating func sayWaiting() throws(BadRing) {
    waits = true
    clinux_store_u32(control + (role == .writer ? RingField.writerWaits : RingField.readerWaits), 1)
    clinux_full_fence()
    try observe()
  }

  /// Nobody need ring for a side that is awake. The other side may have taken the flag back, but never sets it.
  mutating func sayAwake() {
    guard waits else { return }
    waits = false
    clinux_store_u32(control + (role == .writer ? RingField.writerWaits : RingField.readerWaits), 0)
  }

  /// Whether the other side waits, which it does no longer then. After `advance`.
  func wakesOther() -> Bool {
    let flag = control + (role == .writer ? RingField.readerWaits : RingField.writerWaits)
    clinux_full_fence()
    guard clinux_load_u32(flag) != 0 else { return false }
    clinux_store_u32(flag, 0)
    return true
  }
}

/// The writing side of a ring.
struct RingWriter {
  private var end: RingEnd

  init(control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    end = RingEnd(.writer, control: control, ring: ring)
  }

  var control: UnsafeMutableRawPointer { end.control }
  var ring: UnsafeMutableRawPointer { end.ring }

  private var isShort: Bool { UInt64(PacketMemory.ring) - end.used < recordSize(PacketGuard.frameLimit) }

  /// Room for the longest frame, or nil where there is none: then the reader will ring when there is much.
  mutating func room() throws(BadRing) -> UnsafeMutableRawPointer? {
    if isShort { try end.observe() }
    if isShort {
      try end.sayWaiting()
      if isShort { return nil }
    }
    end.sayAwake()
    return end.record + prefix
  }

  /// What was written at `room` is a frame of that length.
  /// - Returns: whether the reader is asleep and must be rung for.
  mutating func publish(_ length: Int) -> Bool {
    clinux_store_u32(end.record, UInt32(truncatingIfNeeded: length))
    end.advance(recordSize(length))
    return end.wakesOther()
  }
}

/// The reading side of a ring.
struct RingReader {
  private var end: RingEnd

  init(control: UnsafeMutableRawPointer, ring: UnsafeMutableRawPointer) {
    end = RingEnd(.reader, control: control, ring: ring)
  }

  var control: UnsafeMutableRawPointer { end.control }
  var ring: UnsafeMutableRawPointer { end.ring }

  /// Looks whether there are frames.
  /// - Returns: false where there are none: then the writer will ring for the next.
  mutating func look() throws(BadRing) -> Bool {
    try end.observe()
    if end.used == 0 {
      try end.sayWaiting()
      if end.used == 0 { return false }
    }
    end.sayAwake()
    return true
  }

  /// The next of the frames that `look` has seen; its bytes may change at any time.
  func next() throws(BadRing) -> UnsafeRawBufferPointer? {
    guard end.used > 0 else { return nil }
    let length = Int(clinux_load_u32(end.record))
    guard length > 0, length <= PacketGuard.frameLimit, recordSize(length) <= end.used else { throw BadRing() }
    return UnsafeRawBufferPointer(start: end.record + prefix, count: length)
  }

  /// - Parameter length: of the frame that `next` gave.
  /// - Returns: whether the writer is asleep and there is room enough to ring for it.
  mutating func release(_ length: Int) -> Bool {
    end.advance(recordSize(length))
    // Not for every frame: a writer that is woken has something to do then. There is always as much in the end.
    return end.used <= UInt64(PacketMemory.ring / 2) && end.wakesOther()
  }
}
