import CBORCodec
import Crypto
import Foundation
import XCTest

@testable import NitroAttestation

/// The document that a Nitro Secure Module has made: nobody but AWS can sign another, so nothing that differs from it may be
/// believed.
final class GenuineDocumentTests: XCTestCase {
  static let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent("attestation/aws.bin").path
  private let genuine = [UInt8](FileManager.default.contents(atPath: GenuineDocumentTests.file) ?? Data())

  private var verifier: AttestationVerifier {
    var verifier = AttestationVerifier()
    verifier.time = .document
    return verifier
  }

  func testItIsBelievedAtItsOwnTime() throws {
    let verified = try verifier.verify(genuine)
    XCTAssertTrue(verified.isSigned)
    XCTAssertEqual(verified.document.moduleID, "i-0f1cd77d37fd8bcc9-enc018e7aa61e2040ff")
    XCTAssertEqual(verified.document.pcrs.keys.sorted(), Array(0..<16))
    XCTAssertEqual(verified.document.publicKey?.count, 64)
    XCTAssertEqual(verified.subjects.count, 5)
    XCTAssertTrue(verified.subjects[0].contains("CN=aws.nitro-enclaves"), verified.subjects[0])
    // PCR4 is made of the parent's instance id, the first part of module_id.
    let parent = Array("i-0f1cd77d37fd8bcc9".utf8)
    XCTAssertEqual(verified.document.pcrs[4], Array(SHA384.hash(data: [UInt8](repeating: 0, count: 48) + parent)))
  }

  func testNowItsCertificateHasEnded() {
    var verifier = self.verifier
    verifier.time = .now
    let sentence = reason { () throws(AttestationError) in _ = try verifier.verify(genuine) } ?? "believed"
    XCTAssertTrue(sentence.contains(" is not valid after 2024-"), sentence)
  }

  /// Each byte twice, each length, and the same values written otherwise.
  func testNoMutationIsBelieved() throws {
    let original = try verifier.verify(genuine)
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    func random(_ bound: Int) -> Int {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return Int(state % UInt64(bound))
    }
    var tried = 0
    func refuse(_ bytes: [UInt8], _ what: @autoclosure () -> String) {
      tried += 1
      if let verified = try? verifier.verify(bytes) { XCTFail("\(what()) is believed: \(verified == original)") }
    }
    for index in genuine.indices {
      var one = genuine
      one[index] ^= 1 << UInt8(index % 8)
      refuse(one, "a flipped bit at \(index)")
      one[index] = genuine[index] &+ UInt8(1 + random(255))
      refuse(one, "another byte at \(index)")
    }
    for _ in 0..<400 {
      let index = random(genuine.count)
      refuse(Array(genuine[..<index]), "the first \(index) bytes")
      var one = genuine
      one.remove(at: index)
      refuse(one, "without byte \(index)")
      one = genuine
      one.insert(UInt8(random(256)), at: index)
      refuse(one, "a byte more at \(index)")
    }
    for (what, bytes) in try structural() { refuse(bytes, what) }
    XCTAssertGreaterThan(tried, 10_000)
  }

  /// COSE's tag, and the other of the two signatures that ECDSA has for each (s and n - s), say the same.
  func testWhatSaysTheSameIsBelieved() throws {
    let original = try verifier.verify(genuine)
    XCTAssertEqual(try verifier.verify([0xd2] + genuine), original)
    let order: [UInt8] =
      [UInt8](repeating: 0xff, count: 24) + [
        0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec,
        0x19,
        0x6a, 0xcc, 0xc5, 0x29, 0x73,
      ]
    var negated = genuine
    var borrow = 0
    for index in (0..<48).reversed() {
      let place = genuine.count - 48 + index
      let difference = Int(order[index]) - Int(genuine[place]) - borrow
      borrow = difference < 0 ? 1 : 0
      negated[place] = UInt8(truncatingIfNeeded: difference)
    }
    XCTAssertNotEqual(negated, genuine)
    XCTAssertEqual(try verifier.verify(negated), original)
  }

  func testAnotherRoot() throws {
    var verifier = self.verifier
    verifier.root = try TestSigner().root
    XCTAssertEqual(
      reason { () throws(AttestationError) in _ = try verifier.verify(genuine) },
      "the first certificate of cabundle is not the root that is trusted")
  }

  /// Values taken out, swapped and written otherwise.
  private func structural() throws -> [(String, [UInt8])] {
    guard case .array(let parts) = try CBOR(genuine), case .bytes(let payload) = parts[2],
      case .bytes(let signature) = parts[3], case .map(let fields) = try CBOR(payload),
      case .array(let bundle)? = try CBOR(payload)["cabundle"]
    else {
      XCTFail("the genuine document cannot be read")
      return []
    }
    func with(_ payload: [UInt8], _ signature: [UInt8]) -> [UInt8] {
      CBOR.array([parts[0], parts[1], .bytes(payload), .bytes(signature)]).encoded
    }
    func with(fields: [CBOR.Pair]) -> [UInt8] { with(CBOR.map(fields).encoded, signature) }
    func with(_ name: String, _ value: CBOR) -> [UInt8] {
      with(fields: fields.map { $0.key == .text(name) ? CBOR.Pair(key: $0.key, value: value) : $0 })
    }
    XCTAssertEqual(with(fields: fields), genuine)
    var all: [(String, [UInt8])] = []
    let zeros = [UInt8](repeating: 0, count: 48)
    all.append(("r of zero", with(payload, zeros + signature.suffix(48))))
    all.append(("s of zero", with(payload, signature.prefix(48) + zeros)))
    all.append(("a signature of zeros", with(payload, zeros + zeros)))
    all.append(("r of n - 1", with(payload, [UInt8](repeating: 0xff, count: 48) + signature.suffix(48))))
    for count in [0, 1, 95, 97, 104] {
      all.append(("a signature of \(count)", with(payload, Array((signature + signature).prefix(count)))))
    }
    for index in fields.indices {
      var changed = fields
      changed.remove(at: index)
      all.append(("without field \(index)", with(fields: changed)))
      changed = fields + [fields[index]]
      all.append(("field \(index) twice", with(fields: changed)))
      changed = fields
      changed[index].value = .null
      // Those that are null are so in the genuine one.
      if changed != fields { all.append(("field \(index) null", with(fields: changed))) }
      changed = fields
      changed.swapAt(index, (index + 1) % fields.count)
      all.append(("field \(index) elsewhere", with(fields: changed)))
      changed[index].key = .text("other")
      all.append(("field \(index) of another name", with(fields: changed)))
    }
    all.append(("one field more", with(fields: fields + [CBOR.Pair(key: .text("more"), value: .null)])))
    for index in bundle.indices {
      var changed = bundle
      changed.remove(at: index)
      all.append(("without certificate \(index)", with("cabundle", .array(changed))))
      changed = bundle
      changed.insert(bundle[index], at: index)
      all.append(("certificate \(index) twice", with("cabundle", .array(changed))))
      for other in bundle.indices where other > index {
        changed = bundle
        changed.swapAt(index, other)
        all.append(("certificates \(index) and \(other) swapped", with("cabundle", .array(changed))))
      }
      all.append(("certificate \(index) as the document's", with("certificate", bundle[index])))
    }
    let another = try TestSigner()
    for index in 0..<4 {
      var changed = bundle
      changed[index] = .bytes(another.certificates[index])
      all.append(("another's certificate \(index)", with("cabundle", .array(changed))))
    }
    all.append(("another's certificate", with("certificate", .bytes(another.certificates[4]))))
    all.append(("another's signature", try another.sign(payload)))
    // The values are the same in these; a reader that takes them lets two readers see two things.
    XCTAssertEqual(Array(genuine[..<7]), [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0])
    let rest = Array(genuine[7...])
    let start = Array(genuine[1..<7])
    all += [
      ("a list of a long length", [0x98, 4] + start + rest),
      ("a list without a length", [0x9f] + start + rest + [0xff]),
      ("a header of a long length", [0x84, 0x58, 4] + Array(genuine[2...])),
      ("a map of a long length", [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xb8, 0] + rest),
      ("a map without a length", [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xbf, 0xff] + rest),
      ("a map with something", [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa1, 4, 0x41, 0] + rest),
      ("a header that is a map", [0x84, 0xa1, 0x01, 0x38, 0x22, 0xa0] + rest),
      ("an algorithm of a long form", [0x84, 0x45, 0xa1, 0x01, 0x39, 0, 0x22, 0xa0] + rest),
      ("a payload of a long length", [0x84] + start + [0x5a, 0, 0] + genuine[8...]),
      (
        "a payload in a piece",
        [0x84] + start + [0x5f] + CBOR.bytes(payload).encoded + [0xff] + genuine[(10 + payload.count)...]
      ),
      ("trailing bytes", genuine + [0]), ("another document behind it", genuine + genuine),
      ("another tag", [0xd1] + genuine), ("two tags", [0xd2, 0xd2] + genuine),
      ("a tag of a long form", [0xd8, 18] + genuine),
      ("in a list", [0x81] + genuine), ("in a byte string", CBOR.bytes(genuine).encoded), ("nothing", []),
      ("three parts", CBOR.array(Array(parts.prefix(3))).encoded), ("five parts", CBOR.array(parts + [.null]).encoded),
    ]
    return all
  }
}
