import CBORCodec

/// What a Nitro Secure Module says of the enclave that asked it: the payload of the signed document.
///
/// The rules on each field are AWS's (aws-nitro-enclaves-nsm-api, docs/attestation_process.md). A field that is not among them
/// is refused. `public_key`, `user_data` and `nonce` may be missing or null, which is how AWS writes them.
public struct AttestationDocument: Equatable, Sendable {
  /// Such as `i-0f1cd77d37fd8bcc9-enc018e7aa61e2040ff`: the parent instance and the enclave.
  public let moduleID: String
  /// When it was made, in milliseconds since 1970, by the module's own clock.
  public let timestamp: UInt64
  /// The platform configuration registers that are locked, by their number: 0 to 15 always, 16 to 31 where the enclave has
  /// locked them. SHA-384 digests of 48 bytes; AWS's rules allow 32 and 64 too.
  public let pcrs: [Int: [UInt8]]
  /// The certificate (DER) whose key has signed the document.
  public let certificate: [UInt8]
  /// Its issuers (DER), the root first.
  public let cabundle: [[UInt8]]
  /// What the enclave wanted in the document: a key of its own, 1 to 1024 bytes.
  public let publicKey: [UInt8]?
  /// At most 512 bytes.
  public let userData: [UInt8]?
  /// At most 512 bytes; by it a client knows that the document was made for it, and not earlier.
  public let nonce: [UInt8]?

  /// Whether the enclave runs in debug mode, in which the registers of its image are zeros.
  public var isDebug: Bool { pcrs[0].map { $0.allSatisfy { $0 == 0 } } ?? false }

  /// The most that AWS's rules allow for a payload.
  public static let maximumSize = 16384

  /// Reads a payload. It says nothing of who has written it: see ``SignedDocument`` and ``AttestationVerifier``.
  public init(payload: [UInt8]) throws(AttestationError) {
    guard (1...Self.maximumSize).contains(payload.count) else {
      throw .malformed("its payload has \(payload.count) bytes, 1 to \(Self.maximumSize) were expected")
    }
    let value: CBOR
    do { value = try CBOR(payload) } catch { throw .malformed("its payload: \(error)") }
    guard case .map(let pairs) = value else { throw .malformed("its payload is not a map") }
    let known = [
      "module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle", "public_key", "user_data", "nonce",
    ]
    for pair in pairs {
      guard case .text(let name) = pair.key, known.contains(name) else {
        throw .malformed("its payload has a field that such a document has not")
      }
    }
    guard case .text(let moduleID)? = value["module_id"], !moduleID.isEmpty else {
      throw .malformed("module_id is not a text, or empty")
    }
    guard value["digest"] == .text("SHA384") else { throw .malformed("digest is not \"SHA384\"") }
    guard case .unsigned(let timestamp)? = value["timestamp"], timestamp > 0 else {
      throw .malformed("timestamp is not a number above 0")
    }
    self.moduleID = moduleID
    self.timestamp = timestamp
    pcrs = try Self.registers(value["pcrs"])
    certificate = try Self.bytes(value["certificate"], "certificate", 1...1024)
    guard case .array(let issuers)? = value["cabundle"], !issuers.isEmpty else {
      throw .malformed("cabundle is not a list of certificates, or empty")
    }
    var cabundle: [[UInt8]] = []
    for issuer in issuers { cabundle.append(try Self.bytes(issuer, "a certificate of cabundle", 1...1024)) }
    self.cabundle = cabundle
    publicKey = try Self.optional(value["public_key"], "public_key", 1...1024)
    userData = try Self.optional(value["user_data"], "user_data", 0...512)
    nonce = try Self.optional(value["nonce"], "nonce", 0...512)
  }

  private static func registers(_ value: CBOR?) throws(AttestationError) -> [Int: [UInt8]] {
    guard case .map(let pairs)? = value, (1...32).contains(pairs.count) else {
      throw .malformed("pcrs is not a map of 1 to 32 registers")
    }
    var registers: [Int: [UInt8]] = [:]
    for pair in pairs {
      guard case .unsigned(let number) = pair.key, number < 32 else {
        throw .malformed("pcrs has a key that is not a number from 0 to 31")
      }
      guard case .bytes(let digest) = pair.value, [32, 48, 64].contains(digest.count) else {
        throw .malformed("PCR\(number) is not a byte string of 32, 48 or 64 bytes")
      }
      registers[Int(number)] = digest
    }
    return registers
  }

  private static func bytes(_ value: CBOR?, _ name: String, _ sizes: ClosedRange<Int>) throws(AttestationError)
    -> [UInt8]
  {
    guard case .bytes(let bytes)? = value, sizes.contains(bytes.count) else {
      throw .malformed("\(name) is not a byte string of \(sizes.lowerBound) to \(sizes.upperBound) bytes")
    }
    return bytes
  }

  private static func optional(_ value: CBOR?, _ name: String, _ sizes: ClosedRange<Int>) throws(AttestationError)
    -> [UInt8]?
  {
    if value == nil || value == .null { return nil }
    return try bytes(value, name, sizes)
  }
}
