import Inet

/// The parameters of a packets hello: one stream for each queue of the enclave's TUN device. See docs/protocol.md.
public struct PacketsRequest: Equatable, Sendable {
  /// The most queues of one enclave; TUN devices have at most 256 (MAX_TAP_QUEUES).
  public static let queueLimit = 64
  public static let mtuRange: ClosedRange<UInt16> = 1280...65535

  /// From 0.
  public var queue: UInt8
  public var queues: UInt8
  /// Bytes, without segmentation offload.
  public var mtu: UInt16
  /// TUN_F_* bits: what may be left undone in packets to the sender of this.
  public var features: UInt32
  /// Frames need not go over the stream: the enclave can pass memory for them.
  public var offersMemory: Bool
  /// The enclave's own, with the length of the link's prefix.
  public var address4: IPPrefix?
  public var address6: IPPrefix?

  public init(
    queue: UInt8, queues: UInt8, mtu: UInt16, features: UInt32, offersMemory: Bool = false, address4: IPPrefix?,
    address6: IPPrefix?
  ) {
    self.queue = queue
    self.queues = queues
    self.mtu = mtu
    self.features = features & ~memoryBit
    self.offersMemory = offersMemory
    self.address4 = address4
    self.address6 = address6
  }

  public var hello: Hello {
    var bytes: [UInt8] = [queue, queues]
    bytes.append(integer: mtu)
    bytes.append(integer: features | (offersMemory ? memoryBit : 0))
    encode(address4, into: &bytes)
    encode(address6, into: &bytes)
    return Hello(.packets, parameters: bytes)
  }

  public init(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    queue = try reader.integer()
    queues = try reader.integer()
    mtu = try reader.integer()
    let bits: UInt32 = try reader.integer()
    features = bits & ~memoryBit
    offersMemory = bits & memoryBit != 0
    address4 = try decodePrefix(&reader, family: 4)
    address6 = try decodePrefix(&reader, family: 6)
    try reader.finish()
    guard (1...Self.queueLimit).contains(Int(queues)), queue < queues else { throw .badValue(what: "queue") }
    guard Self.mtuRange.contains(mtu) else { throw .badValue(what: "MTU") }
    guard address4 != nil || address6 != nil else { throw .badValue(what: "address") }
  }
}

/// The parameters of the answer to it.
public struct PacketsAnswer: Equatable, Sendable {
  /// TUN_F_* bits: what may be left undone in packets to the host.
  public var features: UInt32
  /// The enclave shall pass the memory that it has offered, with the first byte behind this answer.
  public var takesMemory: Bool

  public init(features: UInt32, takesMemory: Bool = false) {
    self.features = features & ~memoryBit
    self.takesMemory = takesMemory
  }

  public var parameters: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(integer: features | (takesMemory ? memoryBit : 0))
    return bytes
  }

  public init(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    self.init(bits: try reader.integer())
    try reader.finish()
  }

  private init(bits: UInt32) { self.init(features: bits, takesMemory: bits & memoryBit != 0) }
}

/// In the field of the features, and far from TUN_F_* (linux/if_tun.h).
private let memoryBit: UInt32 = 1 << 31

private func encode(_ prefix: IPPrefix?, into bytes: inout [UInt8]) {
  guard let prefix else {
    bytes.append(0)
    return
  }
  let address = prefix.address.bytes
  bytes.append(address.count == 4 ? 4 : 6)
  bytes += address
  bytes.append(prefix.length)
}

private func decodePrefix(_ reader: inout ByteReader, family expected: UInt8) throws(WireError) -> IPPrefix? {
  let family: UInt8 = try reader.integer()
  if family == 0 { return nil }
  guard family == expected else { throw .badValue(what: "address family \(family)") }
  guard let address = IPAddress(bytes: try reader.bytes(family == 4 ? 4 : 16)) else { throw .truncated }
  guard let prefix = IPPrefix(address, try reader.integer()) else { throw .badValue(what: "prefix length") }
  return prefix
}
