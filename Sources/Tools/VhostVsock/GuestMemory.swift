import CLinux
import LinuxSystem

/// The guest's RAM as the monitor shares it: a few mappings, each known by its guest-physical and by its user address.
///
/// Every address that comes from the guest or the monitor passes through here; nothing else makes a pointer of one.
/// What cannot be checked here is a monitor that shortens a file after sharing it.
final class GuestMemory {
  /// One entry of the monitor's table (vhost-user, "Memory region description").
  struct Region {
    var guestAddress: UInt64
    var size: UInt64
    var userAddress: UInt64
    /// Where the region starts in the descriptor that came with it.
    var fileOffset: UInt64
  }

  private struct Mapping {
    var region: Region
    var start: UnsafeMutableRawPointer
    var mapped: UnsafeMutableRawPointer
    var mappedLength: Int
  }

  /// VHOST_MEMORY_BASELINE_NREGIONS: what a back end without VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS is sent.
  static let mostRegions = 8

  private var mappings: ContiguousArray<Mapping> = []

  /// Maps every region from its descriptor. The descriptors stay the caller's.
  init(_ regions: [(Region, Int32)]) throws(VhostVsockError) {
    guard regions.count <= Self.mostRegions else {
      throw .frontEnd("\(regions.count) memory regions; at most \(Self.mostRegions) are possible")
    }
    for (region, descriptor) in regions {
      let (end, overflow) = region.fileOffset.addingReportingOverflow(region.size)
      let lastGuest = region.guestAddress.addingReportingOverflow(region.size)
      let lastUser = region.userAddress.addingReportingOverflow(region.size)
      guard !overflow, !lastGuest.overflow, !lastUser.overflow, region.size > 0, let length = Int(exactly: end) else {
        throw .frontEnd("a memory region of \(region.size) bytes at \(hex(region.guestAddress)) is impossible")
      }
      let fileLength = clinux_vhost_regular_file_length(descriptor)
      guard fileLength >= 0 else { throw .frontEnd("a memory region is not a regular file or memfd") }
      // A mapping beyond the end of its file would end this process with SIGBUS at the first access.
      guard fileLength >= Int64(length) else {
        throw .frontEnd("a memory region ends \(Int64(length) - fileLength) bytes beyond its file")
      }
      var address: UnsafeMutableRawPointer?
      let result = clinux_vhost_map_shared(descriptor, length, &address)
      guard result == 0, let address else { throw .system(SystemError("mmap", "guest memory", errno: -result)) }
      mappings.append(
        Mapping(
          region: region, start: address + (length - Int(region.size)), mapped: address, mappedLength: length))
    }
  }

  deinit {
    for mapping in mappings { _ = clinux_vhost_unmap(mapping.mapped, mapping.mappedLength) }
  }

  /// The place of `length` bytes at a user address of the monitor's; nil unless all of it lies in one region.
  func pointer(userAddress: UInt64, length: Int) -> UnsafeMutableRawPointer? {
    for mapping in mappings {
      if let offset = Self.offset(userAddress, length, in: mapping.region.userAddress, mapping.region.size) {
        return mapping.start + offset
      }
    }
    return nil
  }

  /// The same for a guest-physical address.
  func pointer(guestAddress: UInt64, length: Int) -> UnsafeMutableRawPointer? {
    for mapping in mappings {
      if let offset = Self.offset(guestAddress, length, in: mapping.region.guestAddress, mapping.region.size) {
        return mapping.start + offset
      }
    }
    return nil
  }

  private static func offset(_ address: UInt64, _ length: Int, in start: UInt64, _ size: UInt64) -> Int? {
    guard length >= 0, address >= start else { return nil }
    let offset = address &- start
    guard offset <= size, UInt64(length) <= size &- offset else { return nil }
    return Int(exactly: offset)
  }

  /// Appends the pieces that `length` bytes at a guest-physical address consist of: one, or more where regions meet.
  /// - Throws: where a byte of it is in no region, or `vectors` is full.
  @inline(__always) func append(
    guestAddress: UInt64, length: UInt32, to vectors: inout VectorList
  ) throws(VhostVsockError) {
    var address = guestAddress
    var left = UInt64(length)
    outer: while left > 0 {
      for mapping in mappings where address >= mapping.region.guestAddress {
        let offset = address &- mapping.region.guestAddress
        guard offset < mapping.region.size else { continue }
        let piece = min(left, mapping.region.size &- offset)
        guard vectors.append(mapping.start + Int(offset), Int(piece)) else {
          throw .guest("a packet in more than \(VectorList.capacity) pieces")
        }
        left &-= piece
        // Cannot wrap: every region ends at or below 2^64 - 1 (checked above).
        address &+= piece
        continue outer
      }
      throw .guest("a buffer of \(length) bytes at \(hex(guestAddress)), which is not in its memory")
    }
  }
}

/// A list of buffers of fixed capacity, as readv(2) and sendmsg(2) take it.
struct VectorList {
  /// IOV_MAX: sendmsg(2) takes no more in one call.
  static let capacity = 1024

  let base: UnsafeMutablePointer<iovec>
  private(set) var count = 0
  /// Bytes in all.
  private(set) var bytes = 0

  init(storage: UnsafeMutablePointer<iovec>) { base = storage }

  static func allocate() -> UnsafeMutablePointer<iovec> {
    let storage = UnsafeMutablePointer<iovec>.allocate(capacity: capacity)
    storage.initialize(repeating: iovec(), count: capacity)
    return storage
  }

  /// False where the list is full.
  @inline(__always) mutating func append(_ pointer: UnsafeMutableRawPointer, _ length: Int) -> Bool {
    guard count < Self.capacity, length >= 0 else { return false }
    base[count] = iovec(iov_base: pointer, iov_len: length)
    count &+= 1
    bytes &+= length
    return true
  }

  @inline(__always) mutating func removeAll() {
    count = 0
    bytes = 0
  }

  /// Copies the list's first bytes to `target`: all of it, or as much as there is.
  func copy(to target: UnsafeMutableRawBufferPointer) {
    var done = 0
    var index = 0
    while done < target.count, index < count {
      let piece = min(base[index].iov_len, target.count - done)
      if piece > 0, let from = base[index].iov_base, let place = target.baseAddress {
        (place + done).copyMemory(from: from, byteCount: piece)
      }
      done += piece
      index += 1
    }
  }

  /// Copies `source` over the list's first bytes, from entry `first` on.
  func store(_ source: UnsafeRawBufferPointer, from first: Int = 0) {
    var done = 0
    var index = first
    while done < source.count, index < count {
      let piece = min(base[index].iov_len, source.count - done)
      if piece > 0, let place = base[index].iov_base, let from = source.baseAddress {
        place.copyMemory(from: from + done, byteCount: piece)
      }
      done += piece
      index += 1
    }
  }

  /// Makes `other` the bytes of this list without the first `skipping`, `length` in all (or as many as there are).
  /// Only entries from `first` on are read. Returns how many bytes were appended.
  @inline(__always) func append(
    from first: Int = 0, skipping: Int, length: Int, to other: inout VectorList
  ) -> Int {
    var skip = skipping
    var left = length
    var index = first
    while index < count, left > 0 {
      guard let start = base[index].iov_base else { break }
      let size = base[index].iov_len
      index &+= 1
      if skip >= size {
        skip &-= size
        continue
      }
      let piece = min(size &- skip, left)
      guard other.append(start + skip, piece) else { break }
      left &-= piece
      skip = 0
    }
    return length &- left
  }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
