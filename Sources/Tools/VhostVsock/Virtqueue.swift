import CLinux
import LinuxSystem

/// The device's side of a split virtqueue (virtio 1.2, 2.7).
///
/// The rings lie in the guest's memory and the guest may change them at any time, so each field is read once and then
/// checked. Chains are used in the order in which they are taken, and none is kept: `next` is all there is to restore.
struct Virtqueue {
  /// VIRTQ_DESC_F_*.
  private enum Flag {
    static let next: UInt16 = 1
    static let write: UInt16 = 2
    static let indirect: UInt16 = 4
  }

  enum Direction {
    /// From the driver to us: no piece may be writable.
    case readable
    /// From us to the driver: every piece must be writable.
    case writable
  }

  /// Number of descriptors: a power of two up to 32768; 0 until the monitor has said.
  private(set) var size: UInt16 = 0
  /// The index in the available ring of the next chain to take, modulo 2^16.
  var next: UInt16 = 0
  /// VIRTIO_F_EVENT_IDX was negotiated: notifications are asked for by index instead of by flag.
  var usesEventIndex = false
  /// VHOST_USER_SET_VRING_ENABLE.
  var enabled = false
  /// Eventfds; -1 where there is none. `kick` says that the driver has added something, `call` that we have.
  var kick: Int32 = -1
  var call: Int32 = -1

  private var addresses: (descriptors: UInt64, available: UInt64, used: UInt64)?
  private var descriptors: UnsafeMutableRawPointer?
  private var available: UnsafeMutableRawPointer?
  private var used: UnsafeMutableRawPointer?
  /// How much of the used ring the driver has been shown, and how much is written but not yet shown.
  private var shown: UInt16 = 0
  private var written: UInt16 = 0

  /// True once the driver may use it: rings mapped, kick there, enabled.
  var isRunning: Bool { descriptors != nil && kick >= 0 && enabled }

  mutating func setSize(_ count: UInt32) throws(VhostVsockError) {
    guard let value = UInt16(exactly: count), value > 0, value & (value &- 1) == 0 else {
      throw .frontEnd("a queue of \(count) descriptors; it must be a power of two up to 32768")
    }
    size = value
    addresses = nil
    unmap()
  }

  /// Where the three parts of the ring are, as user addresses of the monitor's.
  mutating func setAddresses(
    descriptors: UInt64, available: UInt64, used: UInt64, in memory: GuestMemory?
  ) throws(VhostVsockError) {
    addresses = (descriptors, available, used)
    guard let memory else { throw .frontEnd("ring addresses before the memory table") }
    try map(in: memory, required: true)
  }

  /// Finds the rings in the guest's memory (again, when the memory table has changed).
  /// - Throws: with `required`, where they are not there.
  mutating func map(in memory: GuestMemory, required: Bool) throws(VhostVsockError) {
    unmap()
    guard let addresses else { return }
    guard size > 0 else { throw .frontEnd("ring addresses before the ring's size") }
    let count = Int(size)
    guard
      let table = memory.pointer(userAddress: addresses.descriptors, length: 16 * count),
      let driver = memory.pointer(userAddress: addresses.available, length: 6 + 2 * count),
      let device = memory.pointer(userAddress: addresses.used, length: 6 + 8 * count)
    else {
      if required { throw .frontEnd("a ring of \(count) descriptors that is not in the guest's memory") }
      return
    }
    guard UInt(bitPattern: table) % 16 == 0, UInt(bitPattern: driver) % 2 == 0, UInt(bitPattern: device) % 4 == 0 else {
      throw .frontEnd("a ring at an address that is not aligned")
    }
    descriptors = table
    available = driver
    used = device
    shown = clinux_vhost_load_acquire_u16(device + 2)
    written = shown
  }

  private mutating func unmap() {
    descriptors = nil
    available = nil
    used = nil
  }

  /// Forgets the rings and closes the eventfds (VHOST_USER_GET_VRING_BASE, or the monitor has gone).
  mutating func stop() {
    unmap()
    addresses = nil
    enabled = false
    if kick >= 0 { _ = clinux_vhost_close(kick) }
    if call >= 0 { _ = clinux_vhost_close(call) }
    kick = -1
    call = -1
  }

  // MARK: - Taking chains

  /// How many chains the driver has made available and we have not used.
  @inline(__always) func availableCount() throws(VhostVsockError) -> UInt16 {
    guard let available else { return 0 }
    let count = clinux_vhost_load_acquire_u16(available + 2) &- next
    guard count <= size else { throw .guest("an available index \(count) ahead in a ring of \(size)") }
    return count
  }

  /// The head of the chain `ahead` places after the next one. The caller has seen in `availableCount` that it is there.
  @inline(__always) func head(ahead: UInt16 = 0) throws(VhostVsockError) -> UInt16 {
    guard let available else { throw .frontEnd("a ring that is not mapped") }
    let slot = Int((next &+ ahead) & (size &- 1))
    let head = UInt16(littleEndian: (available + (4 + 2 * slot)).load(as: UInt16.self))
    guard head < size else { throw .guest("descriptor \(head) in a ring of \(size)") }
    return head
  }

  /// Appends the pieces of a chain to `vectors`. Returns how many bytes they hold together.
  @inline(__always) func readChain(
    _ head: UInt16, _ direction: Direction, in memory: GuestMemory, to vectors: inout VectorList
  ) throws(VhostVsockError) -> Int {
    guard var table = UnsafeRawPointer(descriptors) else { throw .frontEnd("a ring that is not mapped") }
    let before = vectors.bytes
    var tableSize = Int(size)
    var index = Int(head)
    var steps = 0
    var inIndirect = false
    while true {
      guard index < tableSize else { throw .guest("descriptor \(index) in a table of \(tableSize)") }
      guard steps < Int(size) else { throw .guest("a descriptor chain longer than its ring of \(size)") }
      steps &+= 1
      let entry = table + 16 * index
      let address = UInt64(littleEndian: entry.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
      let length = UInt32(littleEndian: entry.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
      let flags = UInt16(littleEndian: entry.loadUnaligned(fromByteOffset: 12, as: UInt16.self))
      let following = UInt16(littleEndian: entry.loadUnaligned(fromByteOffset: 14, as: UInt16.self))
      if flags & Flag.indirect != 0 {
        guard !inIndirect else { throw .guest("an indirect descriptor inside an indirect table") }
        guard flags & Flag.next == 0 else { throw .guest("an indirect descriptor with another after it") }
        guard length > 0, length % 16 == 0, length / 16 <= UInt32(size) else {
          throw .guest("an indirect table of \(length) bytes for a ring of \(size)")
        }
        guard let inner = memory.pointer(guestAddress: address, length: Int(length)) else {
          throw .guest("an indirect table at \(hex(address)), which is not in its memory")
        }
        inIndirect = true
        table = UnsafeRawPointer(inner)
        tableSize = Int(length / 16)
        index = 0
        continue
      }
      guard (flags & Flag.write != 0) == (direction == .writable) else {
        throw .guest(
          direction == .writable ? "a receive buffer that must not be written" : "a packet in a buffer to be written")
      }
      try memory.append(guestAddress: address, length: length, to: &vectors)
      guard flags & Flag.next != 0 else { return vectors.bytes &- before }
      index = Int(following)
    }
  }

  /// Gives the next chain back with `length` bytes written to it; the driver sees it at the next `publish`.
  @inline(__always) mutating func finish(_ head: UInt16, length: UInt32) {
    guard let used else { return }
    let entry = used + (4 + 8 * Int(written & (size &- 1)))
    entry.storeBytes(of: UInt32(head).littleEndian, toByteOffset: 0, as: UInt32.self)
    entry.storeBytes(of: length.littleEndian, toByteOffset: 4, as: UInt32.self)
    written &+= 1
    next &+= 1
  }

  // MARK: - Notifications

  /// Shows the driver what was finished, and interrupts it where it asked for that (virtio 1.2, 2.7.7).
  @inline(__always) mutating func publish() {
    guard let used, let available, written != shown else { return }
    let old = shown
    clinux_vhost_store_release_u16(used + 2, written)
    shown = written
    clinux_full_fence()
    let wanted: Bool
    if usesEventIndex {
      let event = clinux_vhost_load_acquire_u16(available + (4 + 2 * Int(size)))
      wanted = (written &- event &- 1) < (written &- old)
    } else {
      wanted = clinux_vhost_load_acquire_u16(available) & 1 == 0
    }
    if wanted, call >= 0 {
      var one: UInt64 = 1
      _ = clinux_write(call, &one, 8)
    }
  }

  /// Asks the driver to tell us of the next chain. True where there is one already: then go on instead of waiting.
  mutating func requestKick() throws(VhostVsockError) -> Bool {
    guard let used else { return false }
    if usesEventIndex {
      clinux_vhost_store_release_u16(used + (4 + 8 * Int(size)), next)
    } else {
      clinux_vhost_store_release_u16(used, 0)
    }
    clinux_full_fence()
    return try availableCount() > 0
  }

  /// The driver need not tell us of new chains for now. With event indices an old index does the same.
  mutating func suppressKick() {
    guard let used, !usesEventIndex else { return }
    clinux_vhost_store_release_u16(used, 1)
  }
}
