import CBORCodec
import Crypto
import Foundation
import SwiftASN1
import X509

@testable import NitroAttestation

/// Makes documents as AWS does, under a root of its own: what the genuine one cannot show, since nobody else can sign it.
struct TestSigner {
  /// What one certificate of the chain says.
  struct Link {
    var constraints: BasicConstraints?
    var usage: KeyUsage?
    var notBefore = -3600.0
    var notAfter = 3600.0
    var algorithm = Certificate.SignatureAlgorithm.ecdsaWithSHA384
    var issuedBy: String?
    var signedByAnother = false
    var extra: Certificate.Extension?
    var onP256 = false

    static func issuer(_ length: Int?) -> Link {
      Link(constraints: .isCertificateAuthority(maxPathLength: length), usage: KeyUsage(keyCertSign: true))
    }
    static let target = Link(
      constraints: .notCertificateAuthority, usage: KeyUsage(digitalSignature: true, nonRepudiation: true))
  }

  /// As AWS's own: root, region, zone, instance, enclave.
  static let links = [Link.issuer(nil), .issuer(2), .issuer(1), .issuer(0), .target]
  /// In milliseconds; the time of every document unless it says another.
  static let now: UInt64 = 1_800_000_000_000

  let certificates: [[UInt8]]
  let key: P384.Signing.PrivateKey
  var root: TrustedRoot { get throws { try TrustedRoot(certificate: certificates[0]) } }

  init(_ links: [Link] = Self.links) throws {
    var issuer: (name: DistinguishedName, key: Certificate.PrivateKey)?
    var certificates: [[UInt8]] = []
    var key = P384.Signing.PrivateKey()
    for (index, link) in links.enumerated() {
      key = P384.Signing.PrivateKey()
      let own = link.onP256 ? Certificate.PrivateKey(P256.Signing.PrivateKey()) : Certificate.PrivateKey(key)
      let name = try DistinguishedName { CommonName("link \(index)") }
      let moment = Date(timeIntervalSince1970: Double(Self.now) / 1000)
      var extensions: [Certificate.Extension] = []
      if let constraints = link.constraints { extensions.append(try .init(constraints, critical: true)) }
      if let usage = link.usage { extensions.append(try .init(usage, critical: index + 1 < links.count)) }
      if let extra = link.extra { extensions.append(extra) }
      let certificate = try Certificate(
        version: .v3, serialNumber: .init(), publicKey: own.publicKey,
        notValidBefore: moment + link.notBefore, notValidAfter: moment + link.notAfter,
        issuer: try link.issuedBy.map { name in try DistinguishedName { CommonName(name) } } ?? issuer?.name ?? name,
        subject: name, signatureAlgorithm: link.algorithm, extensions: try Certificate.Extensions(extensions),
        issuerPrivateKey: link.signedByAnother ? .init(P384.Signing.PrivateKey()) : issuer?.key ?? own)
      var serializer = DER.Serializer()
      try serializer.serialize(certificate)
      certificates.append(serializer.serializedBytes)
      issuer = (name, own)
    }
    self.certificates = certificates
    self.key = key
  }

  static func register(_ number: Int) -> [UInt8] { [UInt8](repeating: UInt8(number + 1), count: 48) }

  /// The fields in AWS's order.
  func fields() -> [CBOR.Pair] {
    let registers = (0..<16).map { CBOR.Pair(key: .unsigned(UInt64($0)), value: .bytes(Self.register($0))) }
    let all: [(String, CBOR)] = [
      ("module_id", .text("i-0123456789abcdef0-enc0123456789abcdef")), ("digest", .text("SHA384")),
      ("timestamp", .unsigned(Self.now)), ("pcrs", .map(registers)),
      ("certificate", .bytes(certificates[certificates.count - 1])),
      ("cabundle", .array(certificates.dropLast().map { .bytes($0) })),
      ("public_key", .bytes([1, 2, 3])), ("user_data", .bytes([4, 5])), ("nonce", .bytes([6])),
    ]
    return all.map { CBOR.Pair(key: .text($0.0), value: $0.1) }
  }

  /// A document with these fields changed; nil removes one.
  func document(_ changes: [String: CBOR?] = [:]) throws -> [UInt8] {
    var pairs = fields()
    for (name, value) in changes {
      pairs.removeAll { $0.key == .text(name) && value == nil }
      if let value {
        if let index = pairs.firstIndex(where: { $0.key == .text(name) }) {
          pairs[index].value = value
        } else {
          pairs.append(CBOR.Pair(key: .text(name), value: value))
        }
      }
    }
    return try sign(CBOR.map(pairs).encoded)
  }

  func sign(_ payload: [UInt8]) throws -> [UInt8] {
    let header: [UInt8] = [0xa1, 0x01, 0x38, 0x22]
    let signed = CBOR.array([.text("Signature1"), .bytes(header), .bytes([]), .bytes(payload)]).encoded
    let signature = Array(try key.signature(for: signed).rawRepresentation)
    return CBOR.array([.bytes(header), .map([]), .bytes(payload), .bytes(signature)]).encoded
  }

  /// A verifier that trusts this root, at the time of its documents.
  func verifier() throws -> AttestationVerifier {
    var verifier = AttestationVerifier()
    verifier.root = try root
    verifier.time = .at(Self.now)
    return verifier
  }
}

/// The sentence of what was thrown; nil where nothing was.
func reason(_ body: () throws(AttestationError) -> Void) -> String? {
  do throws(AttestationError) { try body() } catch { return "\(error)" }
  return nil
}
