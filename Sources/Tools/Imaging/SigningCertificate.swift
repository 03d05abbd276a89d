import Crypto
import FoundationEssentials
import SwiftASN1

/// An X.509 certificate with a P-384 key: what `describe` prints of it, and what PCR8 measures.
public struct SigningCertificate: Sendable {
  /// The file as it was given, PEM: this is what the EIF carries.
  let pem: [UInt8]
  let der: [UInt8]
  public let subject: String
  public let issuer: String
  /// `2026-01-31T12:00:00Z`
  public let notBefore: String
  public let notAfter: String
  let publicKey: P384.Signing.PublicKey

  /// Reads the first certificate of a PEM file.
  /// - Throws: `EIFDamage.signature` with what is wrong.
  init(pem: [UInt8]) throws(EIFDamage) {
    self.pem = pem
    guard let der = PEM.block("CERTIFICATE", in: pem) else { throw .signature("there is no PEM certificate") }
    self.der = der
    guard let root = try? DER.parse(der), let body = root.children?.first, var fields = body.children else {
      throw .signature("the certificate is not an X.509 certificate")
    }
    // [0] version is optional; then serial number, algorithm, issuer, validity, subject, key (RFC 5280, 4.1).
    if fields.first?.identifier.tagClass == .contextSpecific { fields.removeFirst() }
    guard fields.count >= 6, let validity = fields[3].children, validity.count == 2,
      let notBefore = SigningCertificate.time(validity[0]), let notAfter = SigningCertificate.time(validity[1])
    else { throw .signature("the certificate is not an X.509 certificate") }
    issuer = SigningCertificate.name(fields[2])
    subject = SigningCertificate.name(fields[4])
    self.notBefore = notBefore
    self.notAfter = notAfter
    guard let key = try? P384.Signing.PublicKey(derRepresentation: Array(fields[5].encodedBytes)) else {
      throw .signature("the certificate's key is not on the curve P-384, which ES384 needs")
    }
    publicKey = key
  }

  /// Whether `time` (as `notBefore`) is in the certificate's time.
  public func isValid(at time: String) -> Bool { notBefore <= time && time <= notAfter }

  private static func time(_ node: ASN1Node) -> String? {
    guard case .primitive(let bytes) = node.content else { return nil }
    var digits = text(bytes)
    // UTCTime has two digits of the year, of 1950 to 2049 (RFC 5280, 4.1.2.5.1).
    if node.identifier == .utcTime { digits = (digits < "50" ? "20" : "19") + digits }
    guard digits.utf8.count == 15, digits.hasSuffix("Z"), digits.dropLast().allSatisfy(\.isNumber) else { return nil }
    let parts = Array(digits)
    func run(_ start: Int, _ count: Int) -> String { String(parts[start..<start + count]) }
    return "\(run(0, 4))-\(run(4, 2))-\(run(6, 2))T\(run(8, 2)):\(run(10, 2)):\(run(12, 2))Z"
  }

  /// `CN=…, O=…`; attributes without a short name by their number.
  private static func name(_ node: ASN1Node) -> String {
    let known = [
      "2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU",
      "1.2.840.113549.1.9.1": "emailAddress",
    ]
    return (node.children ?? []).flatMap { $0.children ?? [] }.compactMap { attribute in
      guard let parts = attribute.children, parts.count == 2, case .primitive(let value) = parts[1].content,
        let type = try? ASN1ObjectIdentifier(derEncoded: parts[0])
      else { return nil }
      return "\(known[type.description] ?? type.description)=\(text(value))"
    }.joined(separator: ", ")
  }
}

extension ASN1Node {
  fileprivate var children: [ASN1Node]? {
    if case .constructed(let nodes) = content { Array(nodes) } else { nil }
  }
}

/// Blocks of RFC 7468 in a text that may hold others and words between them.
enum PEM {
  static func block(_ label: String, in bytes: [UInt8]) -> [UInt8]? {
    let lines = text(bytes).split(whereSeparator: \.isNewline).map { $0.trimmingPrefix { $0 == " " } }
    guard let start = lines.firstIndex(where: { $0.hasPrefix("-----BEGIN \(label)-----") }),
      let end = lines[start...].firstIndex(where: { $0.hasPrefix("-----END \(label)-----") })
    else { return nil }
    let body = lines[(start + 1)..<end].joined()
    return Data(base64Encoded: body.filter { !$0.isWhitespace }).map(Array.init)
  }
}
