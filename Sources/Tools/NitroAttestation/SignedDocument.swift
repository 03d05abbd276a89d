import CBORCodec
import Crypto

/// A COSE_Sign1 (RFC 9052, section 4.2) with an attestation document in it, as `/dev/nsm` gives it. Reading one verifies
/// nothing.
public struct SignedDocument: Equatable, Sendable {
  public let document: AttestationDocument
  /// False for QEMU's, whose algorithm is -1, which is none, and whose certificate and signature are zeros.
  public let isSigned: Bool
  let protected: [UInt8]
  let payload: [UInt8]
  let signature: [UInt8]

  /// More than any document has: a payload of at most 16384 bytes, and some 110 around it.
  public static let maximumSize = AttestationDocument.maximumSize + 1024

  /// - Parameter bytes: CBOR, with or without COSE's tag 18.
  public init(_ bytes: [UInt8]) throws(AttestationError) {
    guard bytes.count <= Self.maximumSize else {
      throw .malformed("it has \(bytes.count) bytes, at most \(Self.maximumSize) were expected")
    }
    var value: CBOR
    do { value = try CBOR(bytes) } catch { throw .malformed("\(error)") }
    if case .tagged(let tag, let inner) = value {
      guard tag == 18 else { throw .malformed("it has tag \(tag), where COSE_Sign1 has 18") }
      value = inner
    }
    guard case .array(let parts) = value, parts.count == 4, case .bytes(let protected) = parts[0],
      case .bytes(let payload) = parts[2], case .bytes(let signature) = parts[3]
    else { throw .malformed("it is not a COSE_Sign1: a list of header, header, payload and signature") }
    // Nobody signs this header. AWS leaves it empty, so that anything in it is somebody else's.
    guard parts[1] == .map([]) else { throw .malformed("its unprotected header is not an empty map") }
    let document = try AttestationDocument(payload: payload)
    switch protected {
    case Self.header(algorithm: .negative(34)):
      guard signature.count == 96 else {
        throw .malformed("its signature has \(signature.count) bytes, ES384's has 96")
      }
      isSigned = true
    case Self.header(algorithm: .negative(0))
    where (document.certificate + signature).allSatisfy({ $0 == 0 }): isSigned = false
    default: throw .malformed("its protected header is not that of ES384, {1: -35}")
    }
    self.document = document
    self.protected = protected
    self.payload = payload
    self.signature = signature
  }

  /// {1: algorithm}
  private static func header(algorithm: CBOR) -> [UInt8] {
    CBOR.map([CBOR.Pair(key: .unsigned(1), value: algorithm)]).encoded
  }

  /// What is signed (RFC 9052, section 4.4).
  static func signedBytes(protected: [UInt8], payload: [UInt8]) -> [UInt8] {
    CBOR.array([.text("Signature1"), .bytes(protected), .bytes([]), .bytes(payload)]).encoded
  }

  func isSignature(of key: P384.Signing.PublicKey) -> Bool {
    guard isSigned, let parsed = try? P384.Signing.ECDSASignature(rawRepresentation: signature) else { return false }
    return key.isValidSignature(parsed, for: Self.signedBytes(protected: protected, payload: payload))
  }
}
