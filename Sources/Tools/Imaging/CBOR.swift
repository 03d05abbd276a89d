import CBORCodec

/// serde's form of a `Vec<u8>`: an array of numbers. AWS's reader of EIFs takes it, and QEMU's nothing else.
extension CBOR {
  static func numbers(_ bytes: [UInt8]) -> CBOR { .array(bytes.map { .unsigned(UInt64($0)) }) }

  /// A byte string, or serde's array of numbers.
  var byteArray: [UInt8]? {
    switch self {
    case .bytes(let bytes): return bytes
    case .array(let items):
      var bytes: [UInt8] = []
      bytes.reserveCapacity(items.count)
      for item in items {
        guard case .unsigned(let value) = item, let byte = UInt8(exactly: value) else { return nil }
        bytes.append(byte)
      }
      return bytes
    default: return nil
    }
  }
}
