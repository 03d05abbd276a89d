/// Reads of a packet's bytes. Every caller has compared the offset with the length before.
@usableFromInline
struct PacketBytes {
  @usableFromInline let base: UnsafeRawPointer
  @usableFromInline let count: Int

  @inlinable @inline(__always)
  init(_ buffer: UnsafeRawBufferPointer, from offset: Int) {
    // `offset` is at most the buffer's count, so a buffer that has no address is never read.
    base = buffer.baseAddress.map { $0 + offset } ?? UnsafeRawPointer(bitPattern: 1).unsafelyUnwrapped
    count = buffer.count - offset
  }

  @inlinable @inline(__always)
  func u8(_ offset: Int) -> UInt8 { base.load(fromByteOffset: offset, as: UInt8.self) }

  @inlinable @inline(__always)
  func u16(_ offset: Int) -> UInt16 { UInt16(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt16.self)) }

  @inlinable @inline(__always)
  func u16Little(_ offset: Int) -> UInt16 {
    UInt16(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
  }

  @inlinable @inline(__always)
  func u32(_ offset: Int) -> UInt32 { UInt32(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }

  @inlinable @inline(__always)
  func u64(_ offset: Int) -> UInt64 { UInt64(bigEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
}
