import CBORCodec
import Crypto
import FoundationEssentials

/// Signs PCR0 as `nitro-cli build-enclave --signing-certificate` does: a COSE_Sign1 (RFC 9052) with ES384.
///
/// A signature holds a random number, so signed images differ from build to build in their last section; none of the
/// PCRs does.
public struct ImageSigner: Sendable {
  let certificate: SigningCertificate
  private let key: P384.Signing.PrivateKey

  /// - Parameters: paths of PEM files; the key is SEC 1 ("EC PRIVATE KEY") or PKCS #8 ("PRIVATE KEY").
  public init(certificatePath: String, keyPath: String) throws(ImageError) {
    let pem = try FileSlice(path: certificatePath).all(limit: 1 << 20)
    do { certificate = try SigningCertificate(pem: pem) } catch {
      guard case .signature(let what) = error else { throw .malformed(file: certificatePath, "\(error)") }
      throw .malformed(file: certificatePath, what)
    }
    let keyText = try FileSlice(path: keyPath).all(limit: 1 << 20)
    // `openssl ecparam -genkey` puts a block of parameters before the key.
    let block = ["EC PRIVATE KEY", "PRIVATE KEY"].lazy.compactMap { PEM.block($0, in: keyText) }.first
    guard let block else {
      throw .malformed(file: keyPath, "holds no unencrypted PEM private key (\"EC PRIVATE KEY\" or \"PRIVATE KEY\")")
    }
    guard let key = try? P384.Signing.PrivateKey(derRepresentation: block) else {
      throw .malformed(file: keyPath, "is not a private key on the curve P-384, which ES384 needs")
    }
    guard key.publicKey.rawRepresentation == certificate.publicKey.rawRepresentation else {
      throw .malformed(file: keyPath, "is not the key of the certificate \(certificatePath)")
    }
    self.key = key
  }

  public var notBefore: String { certificate.notBefore }
  public var notAfter: String { certificate.notAfter }

  /// {1: -35}: algorithm ES384.
  static let protectedHeader = CBOR.map([CBOR.Pair(key: .unsigned(1), value: .negative(34))]).encoded

  static func payload(pcr0: [UInt8]) -> [UInt8] {
    CBOR.map([
      CBOR.Pair(key: .text("register_index"), value: .unsigned(0)),
      CBOR.Pair(key: .text("register_value"), value: .numbers(pcr0)),
    ]).encoded
  }

  /// What is signed (RFC 9052, 4.4).
  static func signedBytes(protected: [UInt8], payload: [UInt8]) -> [UInt8] {
    CBOR.array([.text("Signature1"), .bytes(protected), .bytes([]), .bytes(payload)]).encoded
  }

  /// The data of an EIF's signature section.
  func section(pcr0: [UInt8]) throws(ImageError) -> [UInt8] {
    let payload = ImageSigner.payload(pcr0: pcr0)
    let signed = ImageSigner.signedBytes(protected: ImageSigner.protectedHeader, payload: payload)
    guard let signature = try? key.signature(for: signed) else { throw .refused("signing PCR0 failed") }
    let sign1 = CBOR.array([
      .bytes(ImageSigner.protectedHeader), .map([]), .bytes(payload), .bytes(Array(signature.rawRepresentation)),
    ])
    // The certificate first: QEMU looks for it there.
    return CBOR.array([
      .map([
        CBOR.Pair(key: .text("signing_certificate"), value: .numbers(certificate.pem)),
        CBOR.Pair(key: .text("signature"), value: .numbers(sign1.encoded)),
      ])
    ]).encoded
  }
}

/// What an EIF's signature section says.
public struct ImageSignature: Sendable {
  public let certificate: SigningCertificate
  /// The PCR0 that was signed.
  let signedPCR0: [UInt8]

  /// Reads the section and verifies the signature against the certificate beside it.
  init(section: [UInt8]) throws(EIFDamage) {
    guard let value = try? CBOR(section), case .array(let entries) = value, let entry = entries.first,
      let pem = entry["signing_certificate"]?.byteArray, let coded = entry["signature"]?.byteArray
    else { throw .signature("not a list of certificates and signatures in CBOR") }
    certificate = try SigningCertificate(pem: pem)
    var sign1 = try? CBOR(coded)
    if case .tagged(18, let inner)? = sign1 { sign1 = inner }
    guard case .array(let parts)? = sign1, parts.count == 4, case .bytes(let protected) = parts[0],
      case .bytes(let payload) = parts[2], case .bytes(let raw) = parts[3]
    else { throw .signature("the signature is not a COSE_Sign1") }
    guard protected == ImageSigner.protectedHeader else { throw .signature("the signature's algorithm is not ES384") }
    let signed = ImageSigner.signedBytes(protected: protected, payload: payload)
    guard let signature = try? P384.Signing.ECDSASignature(rawRepresentation: raw),
      certificate.publicKey.isValidSignature(signature, for: signed)
    else { throw .signature("the signature is not one by its certificate's key") }
    guard let register = try? CBOR(payload), register["register_index"] == .unsigned(0),
      let pcr0 = register["register_value"]?.byteArray
    else { throw .signature("what was signed is not PCR0") }
    signedPCR0 = pcr0
  }
}
