import CMd

/// SHA-384 (FIPS 180-4), by libmd: what Nitro's security module measures with.
public struct SHA384 {
  /// In bytes.
  public static let length = Int(SHA384_DIGEST_LENGTH)
  private var context = SHA2_CTX()

  public init() { SHA384Init(&context) }

  public mutating func update(_ bytes: [UInt8]) { SHA384Update(&context, bytes, bytes.count) }

  /// The digest of everything so far; the value itself goes on.
  public func digest() -> [UInt8] {
    var copy = context
    var digest = [UInt8](repeating: 0, count: Self.length)
    SHA384Final(&digest, &copy)
    return digest
  }
}

/// The digest of what an enclave was configured with: for each text in the order in which it was applied its length (u64,
/// network order) and its bytes. docs/protocol.md says which texts.
public struct ConfigurationDigest {
  private var state = SHA384()

  public init() {}

  public mutating func add(_ text: [UInt8]) {
    let count = UInt64(text.count)
    state.update((0..<8).map { UInt8(truncatingIfNeeded: count >> (56 - 8 * UInt64($0))) })
    state.update(text)
  }

  public var bytes: [UInt8] { state.digest() }
}

/// The digest of lines, each with its newline: as `sha384sum` has it of a file.
public func lineDigest(_ lines: [String]) -> [UInt8] {
  var state = SHA384()
  for line in lines { state.update(Array((line + "\n").utf8)) }
  return state.digest()
}
