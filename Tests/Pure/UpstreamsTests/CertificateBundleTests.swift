import Roles
import Testing

/// A bundle of which nothing can be made is found at the start of an enclave, and one that is good is not refused there.
struct CertificateBundleTests {
  /// 80 bytes behind a header of DER that says so.
  private static let good =
    "-----BEGIN CERTIFICATE-----\nMIIATA" + String(repeating: "AAAA", count: 24)
    + "AA\nAAA=\n-----END CERTIFICATE-----\n"

  @Test func whatIsGood() {
    for text in [
      Self.good, Self.good + Self.good, "# a remark\n\nSubject: somebody\n" + Self.good + "\n# the end",
      Self.good.split(separator: "\n").joined(separator: "\r\n") + "\r\n", String(Self.good.dropLast()),
      Self.good.split(separator: "CERTIFICATE").joined(separator: "TRUSTED CERTIFICATE"),
      "-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----\n" + Self.good,
    ] { #expect(CertificateBundle.defect(in: Array(text.utf8)) == nil, "\(text)") }
  }

  @Test func whatIsNot() {
    let body = Self.good.split(separator: "\n").dropFirst().joined(separator: "\n")
    for (text, defect) in [
      ("", "it is empty"), ("\n\n", "it has none"), (String(body), "it has none"),
      ("not a certificate at all", "it has none"),
      ("-----BEGIN PRIVATE KEY-----\nMIIA\n-----END PRIVATE KEY-----\n", "it has none"),
      (String(Self.good.prefix(60)), "certificate 1 has no end"),
      (Self.good + String(Self.good.prefix(60)) + "\n" + Self.good, "certificate 2 has no end"),
      (Self.good.split(separator: "MIIA").joined(separator: "AAAA"), "certificate 1 is damaged"),
      (Self.good.split(separator: "MIIA").joined(separator: "MII%"), "certificate 1 is damaged"),
      (Self.good + Self.good.split(separator: "AAA=\n").joined(), "certificate 2 is damaged"),
      ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "certificate 1 is damaged"),
    ] { #expect(CertificateBundle.defect(in: Array(text.utf8)) == defect, "\(text)") }
  }
}
