import CMd

/// HKDF with SHA-256 (RFC 5869). The hash is libmd's, which is linked for SHA-384 already and has one function for each of
/// its steps.
enum HKDF {
  static func extract(salt: [UInt8], _ secret: [UInt8]) -> [UInt8] { authenticate(secret, key: salt) }

  /// - Parameter length: at most 255 times 32.
  static func expand(_ key: [UInt8], _ info: [UInt8], length: Int) -> [UInt8] {
    var output: [UInt8] = []
    var last: [UInt8] = []
    var number: UInt8 = 0
    while output.count < length {
      number &+= 1
      last = authenticate(last + info + [number], key: key)
      output += last
    }
    return Array(output.prefix(length))
  }

  /// HKDF-Expand-Label of RFC 8446 section 7.1, without a context.
  static func expand(_ key: [UInt8], label: String, length: Int) -> [UInt8] {
    let label = Array("tls13 \(label)".utf8)
    let info = [UInt8(truncatingIfNeeded: length >> 8), UInt8(truncatingIfNeeded: length)]
    return expand(key, info + [UInt8(truncatingIfNeeded: label.count)] + label + [0], length: length)
  }

  /// HMAC (RFC 2104).
  static func authenticate(_ message: [UInt8], key: [UInt8]) -> [UInt8] {
    var block = key.count > 64 ? hash(key, []) : key
    while block.count < 64 { block.append(0) }
    return hash(block.map { $0 ^ 0x5c }, hash(block.map { $0 ^ 0x36 }, message))
  }

  private static func hash(_ first: [UInt8], _ second: [UInt8]) -> [UInt8] {
    var context = SHA2_CTX()
    SHA256Init(&context)
    SHA256Update(&context, first, first.count)
    SHA256Update(&context, second, second.count)
    var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
    SHA256Final(&digest, &context)
    return digest
  }
}
