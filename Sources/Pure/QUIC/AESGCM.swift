/// The message authentication of GCM (NIST SP 800-38D section 6.4), bit by bit.
struct GHASH {
  private let key: Block
  private(set) var value = Block.zero

  init(_ key: Block) { self.key = key }

  mutating func add(_ block: Block) {
    var x = value ^ block
    var product = Block.zero
    var factor = key
    for _ in 0..<128 {
      let bit = 0 &- (x.high >> 63)
      product.high ^= factor.high & bit
      product.low ^= factor.low & bit
      // Reduced by x¹²⁸ + x⁷ + x² + x + 1, whose bits are in reverse order here.
      let carry = (0 &- (factor.low & 1)) & 0xe100_0000_0000_0000
      factor.low = factor.low >> 1 | factor.high << 63
      factor.high = factor.high >> 1 ^ carry
      x.high = x.high << 1 | x.low >> 63
      x.low <<= 1
    }
    value = product
  }

  /// As many blocks as needed, the last one filled up with zeros.
  mutating func add(_ bytes: UnsafeRawBufferPointer) {
    for start in stride(from: 0, to: bytes.count, by: 16) { add(Block(bytes[start..<min(start + 16, bytes.count)])) }
  }
}

/// AES-128 in Galois/Counter Mode with nonces of 12 bytes (NIST SP 800-38D).
struct AESGCM {
  private let cipher: AES128
  private let hashKey: Block

  init(key: Block) {
    cipher = AES128(key)
    hashKey = cipher.encrypt(.zero)
  }

  /// - Parameter nonce: its last four bytes are 0: they are the counter's.
  func tag(_ nonce: Block, associated: [UInt8], ciphertext: UnsafeRawBufferPointer) -> Block {
    var hash = GHASH(hashKey)
    associated.withUnsafeBytes { hash.add($0) }
    hash.add(ciphertext)
    hash.add(Block(high: UInt64(associated.count) * 8, low: UInt64(ciphertext.count) * 8))
    return hash.value ^ cipher.encrypt(Block(high: nonce.high, low: nonce.low | 1))
  }

  /// From plaintext to ciphertext, or back.
  func crypt(_ bytes: inout [UInt8], _ nonce: Block) {
    var key = Block.zero
    for index in bytes.indices {
      if index % 16 == 0 {
        key = cipher.encrypt(Block(high: nonce.high, low: nonce.low | UInt64(truncatingIfNeeded: index / 16 + 2)))
      }
      bytes[index] ^= key[index % 16]
    }
  }
}
