import CBORCodec
import Foundation
import SwiftASN1
import X509
import XCTest

@testable import NitroAttestation

/// Documents by a signer of these tests' own: each rule and each option, where it holds and where it does not.
final class VerifierTests: XCTestCase {
  private func refusal(_ bytes: [UInt8], _ verifier: AttestationVerifier) -> String? {
    reason { () throws(AttestationError) in _ = try verifier.verify(bytes, now: TestSigner.now) }
  }

  private func expect(
    _ sentence: String?, _ bytes: [UInt8], _ verifier: AttestationVerifier, line: UInt = #line
  ) {
    XCTAssertEqual(refusal(bytes, verifier), sentence, line: line)
  }

  func testAWellMadeDocumentIsBelieved() throws {
    let signer = try TestSigner()
    let verified = try signer.verifier().verify(signer.document())
    XCTAssertEqual(verified.document.publicKey, [1, 2, 3])
    XCTAssertEqual(verified.document.userData, [4, 5])
    XCTAssertEqual(verified.document.nonce, [6])
    XCTAssertEqual(verified.document.pcrs[3], TestSigner.register(3))
    XCTAssertEqual(verified.validUntil, TestSigner.now / 1000 + 3600)
    XCTAssertEqual(verified.subjects, (0..<5).map { "CN=link \($0)" })
    // Under AWS's root it is nobody's.
    var verifier = AttestationVerifier()
    verifier.time = .document
    expect("the first certificate of cabundle is not the root that is trusted", try signer.document(), verifier)
  }

  func testAbsentNullAndEmptyFields() throws {
    let signer = try TestSigner()
    for name in ["public_key", "user_data", "nonce"] {
      for value: CBOR? in [nil, .null] {
        XCTAssertNil(refusal(try signer.document([name: value]), try signer.verifier()), name)
      }
    }
    let empty = try signer.verifier().verify(signer.document(["nonce": .bytes([]), "user_data": .null])).document
    XCTAssertEqual(empty.nonce, [])
    XCTAssertNil(empty.userData)
  }

  /// AWS's rules on the fields, in documents that are signed as they should be.
  func testFields() throws {
    let signer = try TestSigner()
    let verifier = try signer.verifier()
    func long(_ count: Int) -> CBOR { .bytes([UInt8](repeating: 7, count: count)) }
    func register(_ number: UInt64, _ value: CBOR) -> CBOR { .map([.init(key: .unsigned(number), value: value)]) }
    for (name, value) in [
      ("public_key", long(1)), ("public_key", long(1024)), ("user_data", long(512)), ("nonce", long(512)),
      ("pcrs", register(0, long(32))), ("pcrs", register(0, long(64))),
    ] { expect(nil, try signer.document([name: value]), verifier) }
    let wrong: [(String, CBOR?, String)] = [
      ("module_id", nil, "module_id is not a text, or empty"),
      ("module_id", .text(""), "module_id is not a text, or empty"),
      ("module_id", .bytes([0x69]), "module_id is not a text, or empty"),
      ("digest", nil, "digest is not \"SHA384\""), ("digest", .text("SHA256"), "digest is not \"SHA384\""),
      ("timestamp", nil, "timestamp is not a number above 0"),
      ("timestamp", .unsigned(0), "timestamp is not a number above 0"),
      ("timestamp", .negative(5), "timestamp is not a number above 0"),
      ("pcrs", nil, "pcrs is not a map of 1 to 32 registers"),
      ("pcrs", .map([]), "pcrs is not a map of 1 to 32 registers"),
      (
        "pcrs", .map((0..<33).map { .init(key: .unsigned($0), value: long(48)) }),
        "pcrs is not a map of 1 to 32 registers"
      ),
      ("pcrs", register(32, long(48)), "pcrs has a key that is not a number from 0 to 31"),
      (
        "pcrs", .map([.init(key: .text("0"), value: long(48))]), "pcrs has a key that is not a number from 0 to 31"
      ),
      ("pcrs", register(0, long(47)), "PCR0 is not a byte string of 32, 48 or 64 bytes"),
      ("pcrs", register(5, .text("x")), "PCR5 is not a byte string of 32, 48 or 64 bytes"),
      ("pcrs", register(1, long(48)), "it has no PCR0, which every enclave has"),
      ("certificate", nil, "certificate is not a byte string of 1 to 1024 bytes"),
      ("certificate", long(0), "certificate is not a byte string of 1 to 1024 bytes"),
      ("certificate", long(1025), "certificate is not a byte string of 1 to 1024 bytes"),
      ("cabundle", nil, "cabundle is not a list of certificates, or empty"),
      ("cabundle", .array([]), "cabundle is not a list of certificates, or empty"),
      ("cabundle", .array([long(0)]), "a certificate of cabundle is not a byte string of 1 to 1024 bytes"),
      ("cabundle", .array([long(1025)]), "a certificate of cabundle is not a byte string of 1 to 1024 bytes"),
      ("public_key", long(0), "public_key is not a byte string of 1 to 1024 bytes"),
      ("public_key", long(1025), "public_key is not a byte string of 1 to 1024 bytes"),
      ("user_data", long(513), "user_data is not a byte string of 0 to 512 bytes"),
      ("nonce", long(513), "nonce is not a byte string of 0 to 512 bytes"),
      ("nonce", .text("6"), "nonce is not a byte string of 0 to 512 bytes"),
      ("more", .null, "its payload has a field that such a document has not"),
    ]
    for (name, value, sentence) in wrong {
      expect("not an attestation document: \(sentence)", try signer.document([name: value]), verifier)
    }
    for (payload, sentence): ([UInt8], String) in [
      (
        CBOR.map(signer.fields() + [signer.fields()[0]]).encoded,
        "its payload: the map at byte 0 of the CBOR has a key twice"
      ),
      (
        CBOR.map(signer.fields()).encoded + [0],
        "its payload: bytes follow the CBOR, from byte \(CBOR.map(signer.fields()).encoded.count)"
      ),
      (
        [0xb8, 9] + CBOR.map(signer.fields()).encoded.dropFirst(),
        "its payload: the CBOR at byte 0 has a number or length that is not in its shortest form"
      ),
      (
        [0xbf] + CBOR.map(signer.fields()).encoded.dropFirst() + [0xff],
        "its payload: the CBOR at byte 0 has no definite length"
      ),
      (CBOR.array([]).encoded, "its payload is not a map"), ([], "its payload has 0 bytes, 1 to 16384 were expected"),
      ([UInt8](repeating: 0, count: 16385), "its payload has 16385 bytes, 1 to 16384 were expected"),
    ] { expect("not an attestation document: \(sentence)", try signer.sign(payload), verifier) }
  }

  /// AWS's rules on the certificates: each chain is signed as it should be and breaks one.
  func testCertificates() throws {
    func links(_ index: Int, _ change: (inout TestSigner.Link) -> Void) -> [TestSigner.Link] {
      var links = TestSigner.links
      change(&links[index])
      return links
    }
    let unknown = Certificate.Extension(oid: [1, 2, 3, 4], critical: true, value: [5, 0])
    let harmless = Certificate.Extension(oid: [1, 2, 3, 4], critical: false, value: [5, 0])
    let cases: [([TestSigner.Link], String?)] = [
      (links(1) { $0.extra = harmless }, nil),
      (links(4) { $0.constraints = nil }, nil),
      (links(1) { $0.constraints = .isCertificateAuthority(maxPathLength: nil) }, nil),
      ([.issuer(0), .target], nil),
      (
        links(1) { $0.extra = unknown }, "certificate 1 of cabundle has a critical extension that is not known, 1.2.3.4"
      ),
      (
        links(4) { $0.extra = unknown },
        "the document's certificate has a critical extension that is not known, 1.2.3.4"
      ),
      (links(0) { $0.constraints = nil }, "the root is not a certificate authority's"),
      (
        links(2) { $0.constraints = .notCertificateAuthority },
        "certificate 2 of cabundle is not a certificate authority's"
      ),
      (links(3) { $0.constraints = nil }, "certificate 3 of cabundle is not a certificate authority's"),
      (
        links(0) { $0.constraints = .isCertificateAuthority(maxPathLength: 2) },
        "the root allows 2 issuers below it, and there are 3"
      ),
      (
        links(1) { $0.constraints = .isCertificateAuthority(maxPathLength: 1) },
        "certificate 1 of cabundle allows 1 issuers below it, and there are 2"
      ),
      (
        links(2) { $0.constraints = .isCertificateAuthority(maxPathLength: 0) },
        "certificate 2 of cabundle allows 0 issuers below it, and there are 1"
      ),
      (
        links(1) { $0.usage = nil },
        "certificate 1 of cabundle may not sign certificates: its key usage has no keyCertSign"
      ),
      (
        links(3) { $0.usage = KeyUsage(digitalSignature: true, cRLSign: true) },
        "certificate 3 of cabundle may not sign certificates: its key usage has no keyCertSign"
      ),
      (
        links(4) { $0.usage = nil },
        "the document's certificate may not sign documents: its key usage has no digitalSignature"
      ),
      (
        links(4) { $0.usage = KeyUsage(nonRepudiation: true) },
        "the document's certificate may not sign documents: its key usage has no digitalSignature"
      ),
      (
        links(4) { $0.constraints = .isCertificateAuthority(maxPathLength: nil) },
        "the document's certificate is a certificate authority's"
      ),
      (links(2) { $0.algorithm = .ecdsaWithSHA256 }, "certificate 2 of cabundle is not signed by ECDSA with SHA-384"),
      (links(4) { $0.algorithm = .ecdsaWithSHA512 }, "the document's certificate is not signed by ECDSA with SHA-384"),
      (links(2) { $0.onP256 = true }, "certificate 2 of cabundle has no key on the curve P-384"),
      (
        links(2) { $0.issuedBy = "link 0" },
        "certificate 2 of cabundle was not issued by the one before it: its issuer is CN=link 0"
      ),
      (
        links(2) { $0.signedByAnother = true },
        "the signature of certificate 2 of cabundle is not by the key of the one before it"
      ),
      (
        links(4) { $0.signedByAnother = true },
        "the signature of the document's certificate is not by the key of the one before it"
      ),
      (
        links(1) { $0.notAfter = -1 },
        "certificate 1 of cabundle is not valid after 2027-01-15T07:59:59Z; the time is 2027-01-15T08:00:00Z"
      ),
      (links(4) { $0.notBefore = 60 }, nil),
      (
        links(4) { $0.notBefore = 61 },
        "the document's certificate is not valid before 2027-01-15T08:01:01Z; the time is 2027-01-15T08:00:00Z"
      ),
      (
        links(0) { $0.notAfter = -60 },
        "the root is not valid after 2027-01-15T07:59:00Z; the time is 2027-01-15T08:00:00Z"
      ),
    ]
    for (links, sentence) in cases {
      let signer = try TestSigner(links)
      expect(sentence, try signer.document(), try signer.verifier())
    }
    // A chain in another order, and the signature of another key.
    let signer = try TestSigner([.issuer(nil), .issuer(nil), .issuer(nil), .issuer(nil), .target])
    let bundle = signer.certificates.dropLast().map { CBOR.bytes($0) }
    expect(
      "certificate 1 of cabundle was not issued by the one before it: its issuer is CN=link 1",
      try signer.document(["cabundle": .array([bundle[0], bundle[2], bundle[1], bundle[3]])]), try signer.verifier())
    let other = try TestSigner()
    expect(
      AttestationError.signature.description, try other.sign(CBOR.map(signer.fields()).encoded), try signer.verifier())
    expect(
      "certificate 1 of cabundle is not an X.509 certificate",
      try signer.document(["cabundle": .array([bundle[0], .bytes([1, 2])])]), try signer.verifier())
  }

  func testTimes() throws {
    let signer = try TestSigner()
    var verifier = try signer.verifier()
    let minute: UInt64 = 60_000
    func made(_ time: UInt64) throws -> [UInt8] { try signer.document(["timestamp": .unsigned(time)]) }
    let old = try made(TestSigner.now - 10 * minute)
    expect(nil, old, verifier)
    verifier.maximumAge = 10 * minute
    expect(nil, old, verifier)
    verifier.maximumAge = 10 * minute - 1
    expect("the document is 600 s old, made at 2027-01-15T07:50:00Z; at most 599 s were allowed", old, verifier)
    // A clock that is a minute behind believes it, and no other.
    verifier.maximumAge = nil
    expect(nil, try made(TestSigner.now + minute), verifier)
    let future = try made(TestSigner.now + minute + 1)
    expect(
      "the document is from the future: it was made at 2027-01-15T08:01:00Z, the time is 2027-01-15T08:00:00Z", future,
      verifier)
    expect(
      "the document is from the future: it was made at \(UInt64.max) ms after 1970, the time is 2027-01-15T08:00:00Z",
      try made(.max), verifier)
    // At its own time a document is believed as long as its certificates were valid then; its age counts from now.
    verifier.time = .at(TestSigner.now + 3_600_001)
    expect(
      "the document's certificate is not valid after 2027-01-15T09:00:00Z; the time is 2027-01-15T09:00:00Z", old,
      verifier)
    verifier.time = .document
    let later = TestSigner.now + 1_000_000 * minute
    XCTAssertNoThrow(try verifier.verify(old, now: later))
    verifier.maximumAge = 60 * minute
    XCTAssertThrowsError(try verifier.verify(old, now: later))
    verifier.maximumAge = nil
    expect(
      "the document's certificate is not valid before 2027-01-15T07:00:00Z; the time is 2027-01-15T06:59:59Z",
      try made(TestSigner.now - 60 * minute - 1), verifier)
  }

  /// What a client asks for, and gets or does not.
  func testExpectations() throws {
    let signer = try TestSigner()
    let document = try signer.document()
    let bare = try signer.document(["nonce": .null, "public_key": nil, "user_data": .bytes([])])
    func verifier(_ change: (inout AttestationVerifier) -> Void) throws -> AttestationVerifier {
      var verifier = try signer.verifier()
      change(&verifier)
      return verifier
    }
    expect(nil, document, try verifier { $0.nonce = [6] })
    expect("nonce is 06, 07 was expected", document, try verifier { $0.nonce = [7] })
    expect("nonce is 06, 0606 was expected", document, try verifier { $0.nonce = [6, 6] })
    expect("nonce is 06, no bytes was expected", document, try verifier { $0.nonce = [] })
    expect("nonce is not in the document, 06 was expected", bare, try verifier { $0.nonce = [6] })
    expect(nil, document, try verifier { $0.publicKey = [1, 2, 3] })
    expect("public_key is 010203, 0102 was expected", document, try verifier { $0.publicKey = [1, 2] })
    expect("public_key is not in the document, 01 was expected", bare, try verifier { $0.publicKey = [1] })
    expect(nil, document, try verifier { $0.userData = [4, 5] })
    expect("user_data is 0405, 0504 was expected", document, try verifier { $0.userData = [5, 4] })
    expect("user_data is no bytes, 04 was expected", bare, try verifier { $0.userData = [4] })
    expect(nil, document, try verifier { $0.expectedPCRs = [0: TestSigner.register(0), 15: TestSigner.register(15)] })
    expect(
      "PCR1 is \(hex(TestSigner.register(1))), \(hex(TestSigner.register(2))) was expected", document,
      try verifier { $0.expectedPCRs = [0: TestSigner.register(0), 1: TestSigner.register(2)] })
    expect(
      "PCR16 is not in the document, where it is when it is locked; \(hex(TestSigner.register(16))) was expected",
      document,
      try verifier { $0.expectedPCRs = [16: TestSigner.register(16)] })
  }

  /// An enclave whose parent reads its memory's output, and a document that everybody can write.
  func testDebugAndUnsigned() throws {
    let signer = try TestSigner()
    var verifier = try signer.verifier()
    let zeros = [UInt8](repeating: 0, count: 48)
    let debug = try signer.document(["pcrs": .map((0..<16).map { .init(key: .unsigned($0), value: .bytes(zeros)) })])
    expect(AttestationError.debugMode.description, debug, verifier)
    verifier.allowsDebug = true
    expect(nil, debug, verifier)
    // As QEMU's hw/virtio/virtio-nsm.c writes it.
    let nobody = [UInt8](repeating: 0, count: 64)
    var fields = signer.fields()
    fields[4].value = .bytes(nobody)
    fields[5].value = .array([.bytes(nobody)])
    func unsigned(_ fields: [CBOR.Pair], header: [UInt8] = [0xa1, 1, 0x20], signature: [UInt8]? = nil) -> [UInt8] {
      CBOR.array([.bytes(header), .map([]), .bytes(CBOR.map(fields).encoded), .bytes(signature ?? nobody)]).encoded
    }
    let sentence = AttestationError.unsigned.description
    expect(sentence, unsigned(fields), verifier)
    verifier.allowsUnsigned = true
    let verified = try verifier.verify(unsigned(fields), now: TestSigner.now)
    XCTAssertFalse(verified.isSigned)
    XCTAssertNil(verified.validUntil)
    // It is held to what was expected all the same.
    verifier.nonce = [9]
    expect("nonce is 06, 09 was expected", unsigned(fields), verifier)
    verifier.nonce = nil
    // Who says that nothing is signed must not have something that looks signed, and the other way round.
    let header = "not an attestation document: its protected header is not that of ES384, {1: -35}"
    expect(header, unsigned(signer.fields()), verifier)
    expect(header, unsigned(fields, signature: [1] + nobody), verifier)
    expect(header, unsigned(fields, header: [0xa1, 1, 0x26]), verifier)
    expect(header, unsigned(fields, header: []), verifier)
    expect(
      "the first certificate of cabundle is not the root that is trusted",
      unsigned(fields, header: [0xa1, 1, 0x38, 0x22], signature: [UInt8](repeating: 0, count: 96)), verifier)
  }

  func testRoots() throws {
    let signer = try TestSigner()
    let pem = try Certificate(derEncoded: signer.certificates[0]).serializeAsPEM().pemString
    XCTAssertEqual(try TrustedRoot(pem: pem), try signer.root)
    XCTAssertThrowsError(try TrustedRoot(pem: "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
    XCTAssertThrowsError(try TrustedRoot(pem: "no"))
    XCTAssertThrowsError(try TrustedRoot(certificate: signer.certificates[0] + [0]))
    // The same name and key in another certificate is not the root.
    let again = try Certificate(
      version: .v3, serialNumber: .init(), publicKey: Certificate(derEncoded: signer.certificates[0]).publicKey,
      notValidBefore: .distantPast, notValidAfter: .distantFuture,
      issuer: try DistinguishedName { CommonName("link 0") }, subject: try DistinguishedName { CommonName("link 0") },
      signatureAlgorithm: .ecdsaWithSHA384, extensions: try .init([]),
      issuerPrivateKey: .init(signer.key))
    var serializer = DER.Serializer()
    try serializer.serialize(again)
    let bundle = [serializer.serializedBytes] + signer.certificates[1..<4]
    expect(
      "the first certificate of cabundle is not the root that is trusted",
      try signer.document(["cabundle": .array(bundle.map { .bytes($0) })]), try signer.verifier())
  }
}
