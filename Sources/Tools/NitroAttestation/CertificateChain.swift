import Crypto
import FoundationEssentials
import SwiftASN1
import X509

/// The certificate that everything is traced to: known by the digest of all its bytes, never by its name or its key alone.
public struct TrustedRoot: Equatable, Sendable {
  /// SHA-256 of the certificate's DER.
  public let fingerprint: [UInt8]

  /// AWS Nitro Enclaves Root G1, `CN=aws.nitro-enclaves, C=US, O=Amazon, OU=AWS`, valid until 2049-10-28. AWS gives the
  /// fingerprint as 64:1A:03:21:A3:E2:44:EF:E4:56:46:31:95:D6:06:31:7E:D7:CD:CC:3C:17:56:E0:98:93:F3:C6:8F:79:BB:5B
  /// (Nitro Enclaves user guide, "Verifying the root of trust").
  public static let aws = TrustedRoot(fingerprint: [
    0x64, 0x1a, 0x03, 0x21, 0xa3, 0xe2, 0x44, 0xef, 0xe4, 0x56, 0x46, 0x31, 0x95, 0xd6, 0x06, 0x31,
    0x7e, 0xd7, 0xcd, 0xcc, 0x3c, 0x17, 0x56, 0xe0, 0x98, 0x93, 0xf3, 0xc6, 0x8f, 0x79, 0xbb, 0x5b,
  ])

  private init(fingerprint: [UInt8]) { self.fingerprint = fingerprint }

  /// Another root, of a test's own signer for example.
  /// - Parameter certificate: its DER.
  public init(certificate: [UInt8]) throws(AttestationError) {
    do { _ = try Certificate(derEncoded: certificate) } catch { throw .chain("the root is not an X.509 certificate") }
    self.init(fingerprint: Self.fingerprint(of: certificate))
  }

  /// - Parameter pem: a text with one `CERTIFICATE` block.
  public init(pem: String) throws(AttestationError) {
    guard let document = try? PEMDocument(pemString: pem), document.discriminator == "CERTIFICATE" else {
      throw .chain("the root is not one certificate in PEM")
    }
    try self.init(certificate: document.derBytes)
  }

  static func fingerprint(of certificate: [UInt8]) -> [UInt8] { Array(SHA256.hash(data: certificate)) }
}

/// A document's certificates, from the root to the one that has signed it.
///
/// A document gives one chain, in one order, so nothing is searched: each certificate must be signed by the one before it.
/// X509's own Verifier looks for any way to a root, does not look at key usage (RFC5280Policy says why), and takes another
/// time than now only behind an SPI; parsing, names and signatures are X509's here as well. The rules are AWS's
/// (aws-nitro-enclaves-nsm-api, docs/attestation_process.md, "Certificates validity"): the order, validity, basic
/// constraints with the path's length, key usage; no revocation lists. A strict RFC 5280 profile would refuse AWS's own
/// certificates, which have no authority key identifier.
struct CertificateChain {
  let certificates: [Certificate]
  let key: P384.Signing.PublicKey

  /// Reads them, and checks all but signatures and times.
  init(_ document: AttestationDocument, root: TrustedRoot) throws(AttestationError) {
    let encoded = document.cabundle + [document.certificate]
    guard TrustedRoot.fingerprint(of: encoded[0]) == root.fingerprint else {
      throw .chain("the first certificate of cabundle is not the root that is trusted")
    }
    var certificates: [Certificate] = []
    for (index, bytes) in encoded.enumerated() {
      do { certificates.append(try Certificate(derEncoded: bytes)) } catch {
        throw .chain("\(Self.name(index, of: encoded.count)) is not an X.509 certificate")
      }
    }
    for (index, certificate) in certificates.enumerated() {
      let name = Self.name(index, of: certificates.count)
      try Self.checkForm(certificate, name)
      if index + 1 < certificates.count {
        // Issuers below this one: all that follow but the last, which is the target (RFC 5280, section 4.2.1.9).
        try Self.checkIssuer(certificate, below: certificates.count - index - 2, name)
      } else {
        try Self.checkTarget(certificate, name)
      }
      guard index == 0 || certificates[index - 1].subject == certificate.issuer else {
        throw .chain("\(name) was not issued by the one before it: its issuer is \(certificate.issuer)")
      }
    }
    guard let last = certificates.last, let key = P384.Signing.PublicKey(last.publicKey) else {
      throw .chain("the document's certificate has no key on the curve P-384")
    }
    self.certificates = certificates
    self.key = key
  }

  /// That each was signed by the key of the one before it. The root is known by its fingerprint.
  func checkSignatures() throws(AttestationError) {
    for (index, certificate) in certificates.enumerated().dropFirst() {
      guard certificates[index - 1].publicKey.isValidSignature(certificate.signature, for: certificate) else {
        let name = Self.name(index, of: certificates.count)
        throw .chain("the signature of \(name) is not by the key of the one before it")
      }
    }
  }

  /// - Parameters:
  ///   - time: in milliseconds since 1970.
  ///   - skew: by how much a certificate may begin later, since clocks differ. In milliseconds.
  func checkValidity(at time: UInt64, skew: UInt64) throws(AttestationError) {
    let moment = Double(time) / 1000
    // From the end: those begin last and end first.
    for (index, certificate) in certificates.enumerated().reversed() {
      let name = Self.name(index, of: certificates.count)
      guard certificate.notValidBefore.timeIntervalSince1970 <= moment + Double(skew) / 1000 else {
        throw .time("\(name) is not valid before \(utc(certificate.notValidBefore)); the time is \(utc(time))")
      }
      guard moment <= certificate.notValidAfter.timeIntervalSince1970 else {
        throw .time("\(name) is not valid after \(utc(certificate.notValidAfter)); the time is \(utc(time))")
      }
    }
  }

  var subjects: [String] { certificates.map { $0.subject.description } }

  /// When the first of them ends, in seconds since 1970.
  var validUntil: UInt64? {
    certificates.map { $0.notValidAfter.timeIntervalSince1970 }.min().flatMap { UInt64(exactly: $0) }
  }

  private static func name(_ index: Int, of count: Int) -> String {
    index + 1 == count ? "the document's certificate" : index == 0 ? "the root" : "certificate \(index) of cabundle"
  }

  /// All of a chain of AWS's is version 3, on P-384, signed by ECDSA with SHA-384.
  private static func checkForm(_ certificate: Certificate, _ name: String) throws(AttestationError) {
    guard certificate.version == .v3 else { throw .chain("\(name) is not of version 3") }
    guard P384.Signing.PublicKey(certificate.publicKey) != nil else {
      throw .chain("\(name) has no key on the curve P-384")
    }
    guard certificate.signatureAlgorithm == .ecdsaWithSHA384 else {
      throw .chain("\(name) is not signed by ECDSA with SHA-384")
    }
    let understood: [ASN1ObjectIdentifier] = [.X509ExtensionID.basicConstraints, .X509ExtensionID.keyUsage]
    for one in certificate.extensions where one.critical && !understood.contains(one.oid) {
      throw .chain("\(name) has a critical extension that is not known, \(one.oid)")
    }
  }

  private static func checkIssuer(_ certificate: Certificate, below: Int, _ name: String) throws(AttestationError) {
    guard case .isCertificateAuthority(let length)? = try? certificate.extensions.basicConstraints else {
      throw .chain("\(name) is not a certificate authority's")
    }
    if let length, length < below {
      throw .chain("\(name) allows \(length) issuers below it, and there are \(below)")
    }
    guard let usage = try? certificate.extensions.keyUsage, usage.keyCertSign else {
      throw .chain("\(name) may not sign certificates: its key usage has no keyCertSign")
    }
  }

  private static func checkTarget(_ certificate: Certificate, _ name: String) throws(AttestationError) {
    let constraints: BasicConstraints?
    do { constraints = try certificate.extensions.basicConstraints } catch {
      throw .chain("\(name) has basic constraints that cannot be read")
    }
    if case .isCertificateAuthority? = constraints { throw .chain("\(name) is a certificate authority's") }
    guard let usage = try? certificate.extensions.keyUsage, usage.digitalSignature else {
      throw .chain("\(name) may not sign documents: its key usage has no digitalSignature")
    }
  }
}

/// `2026-01-31T12:00:00Z`
func utc(_ date: Date) -> String { date.formatted(.iso8601) }

/// - Parameter milliseconds: since 1970; beyond the year 9999 as a number.
func utc(_ milliseconds: UInt64) -> String {
  guard milliseconds < 253_402_300_800_000 else { return "\(milliseconds) ms after 1970" }
  return utc(Date(timeIntervalSince1970: Double(milliseconds) / 1000))
}
