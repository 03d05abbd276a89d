/// A file of certificates as far as its frame goes (RFC 7468), so that one that can be of no use is found at the start. What is in
/// a certificate, only the DNS client reads, which has a library for it.
public enum CertificateBundle {
  private static let labels = ["CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE"]
  private static let begin = Array("-----BEGIN ".utf8)
  private static let end = Array("-----END ".utf8)

  /// Why nothing can be made of it, behind "expected PEM certificates: "; nil where something can.
  public static func defect(in pem: some Collection<UInt8>) -> String? {
    if pem.isEmpty { return "it is empty" }
    var count = 0
    // Of the certificate whose lines these are, what is still bits.
    var body: [UInt8]?
    for line in pem.split(whereSeparator: { $0 == 10 || $0 == 13 }) {
      if line.starts(with: begin) {
        if body != nil { return "certificate \(count + 1) has no end" }
        if isLabel(line.dropFirst(begin.count)) { body = [] }
      } else if line.starts(with: end) {
        guard let found = body else { continue }
        guard isCertificate(found) else { return "certificate \(count + 1) is damaged" }
        count += 1
        body = nil
      } else if body != nil {
        body? += line.filter { $0 != 32 && $0 != 9 }
      }
    }
    if body != nil { return "certificate \(count + 1) has no end" }
    return count == 0 ? "it has none" : nil
  }

  private static func isLabel(_ rest: some Collection<UInt8>) -> Bool {
    labels.contains { rest.starts(with: Array("\($0)-----".utf8)) }
  }

  /// Whether it is base 64 of a sequence of DER with its length in two or three bytes, as all have that there are, and no more
  /// than the sequence (behind a trusted one are OpenSSL's own words).
  private static func isCertificate(_ text: [UInt8]) -> Bool {
    let padding = text.suffix(2).reversed().prefix { $0 == 0x3d }.count
    guard text.count >= 8, text.count % 4 == 0, text.dropLast(padding).allSatisfy({ digit($0) != nil }) else {
      return false
    }
    var bits: UInt64 = 0
    for byte in text.prefix(8) { bits = bits << 6 | UInt64(digit(byte) ?? 0) }
    let size = text.count / 4 * 3 - padding
    let length: UInt64
    switch bits >> 32 {
    case 0x3081: length = 3 + (bits >> 24 & 0xff)
    case 0x3082: length = 4 + (bits >> 16 & 0xffff)
    default: return false
    }
    return length <= UInt64(size)
  }

  private static func digit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x41...0x5a: byte - 0x41
    case 0x61...0x7a: byte - 0x61 + 26
    case 0x30...0x39: byte - 0x30 + 52
    case 0x2b: 62
    case 0x2f: 63
    default: nil
    }
  }
}
