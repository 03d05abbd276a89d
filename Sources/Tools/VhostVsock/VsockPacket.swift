/// What a packet asks for (virtio 1.2, 5.10.6: `VIRTIO_VSOCK_OP_*`).
enum VsockOperation {
  static let request: UInt16 = 1
  static let response: UInt16 = 2
  static let reset: UInt16 = 3
  static let shutdown: UInt16 = 4
  static let data: UInt16 = 5
  static let creditUpdate: UInt16 = 6
  static let creditRequest: UInt16 = 7
}

/// Which halves of a stream its sender has ended (virtio 1.2, 5.10.6.6.2).
struct ShutdownFlags: OptionSet, Equatable, Sendable {
  let rawValue: UInt32
  /// The sender of the packet will receive no more.
  static let receive = ShutdownFlags(rawValue: 1)
  /// The sender of the packet will send no more.
  static let send = ShutdownFlags(rawValue: 2)
  static let both: ShutdownFlags = [.receive, .send]
}

/// The header before every packet in either direction, 44 bytes, little-endian (`struct virtio_vsock_hdr`).
struct VsockHeader: Equatable, Sendable {
  static let size = 44
  /// `VIRTIO_VSOCK_TYPE_STREAM`, the only type that this device offers.
  static let stream: UInt16 = 1

  var sourceCID: UInt64 = 0
  var destinationCID: UInt64 = 0
  var sourcePort: UInt32 = 0
  var destinationPort: UInt32 = 0
  /// Bytes of payload after the header.
  var length: UInt32 = 0
  var type: UInt16 = VsockHeader.stream
  var operation: UInt16 = 0
  var flags: UInt32 = 0
  /// How many bytes the sender can hold for this stream in all.
  var bufferSize: UInt32 = 0
  /// How many bytes of this stream the sender has passed on since its start, modulo 2^32.
  var forwarded: UInt32 = 0

  /// Reads a header. `bytes` must be at least `size` long; what is missing reads as zero.
  init(reading bytes: UnsafeRawBufferPointer) {
    guard bytes.count >= Self.size else { return }
    sourceCID = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 0, as: UInt64.self))
    destinationCID = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    sourcePort = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 16, as: UInt32.self))
    destinationPort = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 20, as: UInt32.self))
    length = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 24, as: UInt32.self))
    type = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 28, as: UInt16.self))
    operation = UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: 30, as: UInt16.self))
    flags = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 32, as: UInt32.self))
    bufferSize = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 36, as: UInt32.self))
    forwarded = UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 40, as: UInt32.self))
  }

  init() {}

  /// Writes the header to the first `size` bytes of `bytes`; does nothing where there are fewer.
  func write(to bytes: UnsafeMutableRawBufferPointer) {
    guard bytes.count >= Self.size else { return }
    bytes.storeBytes(of: sourceCID.littleEndian, toByteOffset: 0, as: UInt64.self)
    bytes.storeBytes(of: destinationCID.littleEndian, toByteOffset: 8, as: UInt64.self)
    bytes.storeBytes(of: sourcePort.littleEndian, toByteOffset: 16, as: UInt32.self)
    bytes.storeBytes(of: destinationPort.littleEndian, toByteOffset: 20, as: UInt32.self)
    bytes.storeBytes(of: length.littleEndian, toByteOffset: 24, as: UInt32.self)
    bytes.storeBytes(of: type.littleEndian, toByteOffset: 28, as: UInt16.self)
    bytes.storeBytes(of: operation.littleEndian, toByteOffset: 30, as: UInt16.self)
    bytes.storeBytes(of: flags.littleEndian, toByteOffset: 32, as: UInt32.self)
    bytes.storeBytes(of: bufferSize.littleEndian, toByteOffset: 36, as: UInt32.self)
    bytes.storeBytes(of: forwarded.littleEndian, toByteOffset: 40, as: UInt32.self)
  }

  /// The reset that answers this packet.
  var refusal: VsockHeader {
    var answer = VsockHeader()
    answer.sourceCID = destinationCID
    answer.destinationCID = sourceCID
    answer.sourcePort = destinationPort
    answer.destinationPort = sourcePort
    answer.type = type
    answer.operation = VsockOperation.reset
    return answer
  }
}
