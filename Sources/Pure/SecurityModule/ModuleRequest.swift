import CBORCodec

// What is said over /dev/nsm, the Nitro Secure Module: a request and its answer, each one value in CBOR as AWS's
// aws-nitro-enclaves-nsm-api has them (serde's form of an enum: a name alone, or a map with the name as its key).

/// What the module is asked for.
public enum ModuleRequest: Equatable, Sendable {
  case describePCR(UInt16)
  /// The register's new value is the SHA-384 of its old one and this.
  case extendPCR(UInt16, [UInt8])
  /// Until the enclave ends it cannot be extended any more, and is in every document.
  case lockPCR(UInt16)
  /// All below this one.
  case lockPCRs(UInt16)
  case describe
  case attestation(DocumentContents)
  case random

  /// What the caller wants in a document; nil is said as null.
  public struct DocumentContents: Equatable, Sendable {
    public var userData: [UInt8]?
    public var nonce: [UInt8]?
    public var publicKey: [UInt8]?

    /// AWS's rules on documents (docs/attestation_process.md), in bytes.
    public static let publicKeyLimit = 1024
    public static let userDataLimit = 512
    public static let nonceLimit = 512

    public init(userData: [UInt8]? = nil, nonce: [UInt8]? = nil, publicKey: [UInt8]? = nil) {
      self.userData = userData
      self.nonce = nonce
      self.publicKey = publicKey
    }
  }

  /// The driver refuses a longer one (drivers/misc/nsm.c).
  public static let limit = 0x1000

  public var bytes: [UInt8] { value.encoded }

  private var value: CBOR {
    switch self {
    case .describePCR(let index): Self.call("DescribePCR", [("index", .unsigned(UInt64(index)))])
    case .extendPCR(let index, let data):
      Self.call("ExtendPCR", [("index", .unsigned(UInt64(index))), ("data", .bytes(data))])
    case .lockPCR(let index): Self.call("LockPCR", [("index", .unsigned(UInt64(index)))])
    case .lockPCRs(let range): Self.call("LockPCRs", [("range", .unsigned(UInt64(range)))])
    case .describe: .text("DescribeNSM")
    case .attestation(let contents):
      Self.call(
        "Attestation",
        [
          ("user_data", Self.optional(contents.userData)), ("nonce", Self.optional(contents.nonce)),
          ("public_key", Self.optional(contents.publicKey)),
        ])
    case .random: .text("GetRandom")
    }
  }

  private static func call(_ name: String, _ fields: [(String, CBOR)]) -> CBOR {
    .map([.init(key: .text(name), value: .map(fields.map { .init(key: .text($0.0), value: $0.1) }))])
  }

  private static func optional(_ bytes: [UInt8]?) -> CBOR { bytes.map { .bytes($0) } ?? .null }
}

extension ModuleRequest {
  /// As the module reads one; nil for what is none.
  public init?(bytes: [UInt8]) {
    guard bytes.count <= Self.limit, let value = try? CBOR(bytes) else { return nil }
    switch value {
    case .text("DescribeNSM"): self = .describe
    case .text("GetRandom"): self = .random
    case .map(let pairs):
      guard pairs.count == 1, case .text(let name)? = pairs.first?.key, let fields = pairs.first?.value else {
        return nil
      }
      self.init(name, fields)
    default: return nil
    }
  }

  private init?(_ name: String, _ fields: CBOR) {
    func number(_ key: String) -> UInt16? {
      guard case .unsigned(let number)? = fields[key] else { return nil }
      return UInt16(exactly: number)
    }
    switch name {
    case "DescribePCR":
      guard let index = number("index") else { return nil }
      self = .describePCR(index)
    case "ExtendPCR":
      guard let index = number("index"), case .bytes(let data)? = fields["data"] else { return nil }
      self = .extendPCR(index, data)
    case "LockPCR":
      guard let index = number("index") else { return nil }
      self = .lockPCR(index)
    case "LockPCRs":
      guard let range = number("range") else { return nil }
      self = .lockPCRs(range)
    case "Attestation":
      var found: [[UInt8]?] = []
      for key in ["user_data", "nonce", "public_key"] {
        switch fields[key] {
        case nil, .null?: found.append(nil)
        case .bytes(let bytes)?: found.append(bytes)
        default: return nil
        }
      }
      self = .attestation(DocumentContents(userData: found[0], nonce: found[1], publicKey: found[2]))
    default: return nil
    }
  }
}
