import Inet

/// The parameters of a control hello: what the enclave wants to know. There is one question so far. See
/// docs/protocol.md.
public struct AddressRequest: Equatable, Sendable {
  /// The first byte of a control hello.
  public static let kind: UInt8 = 1

  public var wants4: Bool
  public var wants6: Bool
  /// What the enclave would have, in bytes.
  public var mtu: UInt16

  public init(wants4: Bool, wants6: Bool, mtu: UInt16) {
    self.wants4 = wants4
    self.wants6 = wants6
    self.mtu = mtu
  }

  public var hello: Hello {
    var bytes: [UInt8] = [Self.kind, (wants4 ? 1 : 0) | (wants6 ? 2 : 0)]
    bytes.append(integer: mtu)
    return Hello(.control, parameters: bytes)
  }

  /// nil for a question that this version does not know.
  public init?(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    let kind: UInt8 = try reader.integer()
    guard kind == Self.kind else { return nil }
    let families: UInt8 = try reader.integer()
    mtu = try reader.integer()
    try reader.finish()
    guard (1...3).contains(families) else { throw .badValue(what: "address families") }
    guard PacketsRequest.mtuRange.contains(mtu) else { throw .badValue(what: "MTU") }
    wants4 = families & 1 != 0
    wants6 = families & 2 != 0
  }
}

/// The parameters of the answer to it: 24 bytes, whatever was asked for, so that PID 1 has no length to follow. What it
/// says is checked against the image's configuration (`RawNetwork.take`), not here.
public struct AddressAnswer: Equatable, Sendable {
  /// nil where none is given: a prefix length of 0.
  public var address4: IPPrefix?
  public var address6: IPPrefix?
  /// In bytes; 0 where the host has no wish.
  public var mtu: UInt16

  public init(address4: IPPrefix?, address6: IPPrefix?, mtu: UInt16) {
    self.address4 = address4
    self.address6 = address6
    self.mtu = mtu
  }

  public var parameters: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(integer: mtu)
    bytes += (address4?.address.bytes ?? Array(repeating: 0, count: 4)) + [address4?.length ?? 0]
    bytes += (address6?.address.bytes ?? Array(repeating: 0, count: 16)) + [address6?.length ?? 0]
    return bytes
  }

  public init(parameters: [UInt8]) throws(WireError) {
    var reader = ByteReader(parameters)
    mtu = try reader.integer()
    address4 = try Self.prefix(&reader, 4)
    address6 = try Self.prefix(&reader, 16)
    try reader.finish()
  }

  private static func prefix(_ reader: inout ByteReader, _ count: Int) throws(WireError) -> IPPrefix? {
    let bytes = try reader.bytes(count)
    let length: UInt8 = try reader.integer()
    if length == 0 { return nil }
    guard let address = IPAddress(bytes: bytes), let prefix = IPPrefix(address, length) else {
      throw .badValue(what: "prefix length")
    }
    return prefix
  }
}
