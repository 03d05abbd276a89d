import CBORCodec
import XCTest

final class CBORTests: XCTestCase {
  private func bytes(_ hex: String) -> [UInt8] {
    let digits = Array(hex.utf8)
    return stride(from: 0, to: digits.count, by: 2).compactMap {
      UInt8(String(decoding: digits[$0..<$0 + 2], as: UTF8.self), radix: 16)
    }
  }

  /// The examples of RFC 8949, appendix A, that are of the kinds we have: other tools must read what we write.
  func testExamplesOfRFC8949() throws {
    let examples: [(CBOR, String)] = [
      (.unsigned(0), "00"), (.unsigned(23), "17"), (.unsigned(24), "1818"), (.unsigned(100), "1864"),
      (.unsigned(1000), "1903e8"), (.unsigned(1_000_000), "1a000f4240"),
      (.unsigned(1_000_000_000_000), "1b000000e8d4a51000"), (.unsigned(.max), "1bffffffffffffffff"),
      (.negative(0), "20"), (.negative(999), "3903e7"), (.negative(.max), "3bffffffffffffffff"),
      (.bytes([]), "40"), (.bytes([1, 2, 3, 4]), "4401020304"), (.text(""), "60"), (.text("ü"), "62c3bc"),
      (.bool(false), "f4"), (.bool(true), "f5"), (.null, "f6"), (.array([]), "80"),
      (.array([.unsigned(1), .array([.unsigned(2), .unsigned(3)])]), "8201820203"), (.map([]), "a0"),
      (.map([.init(key: .unsigned(1), value: .unsigned(2)), .init(key: .text("a"), value: .null)]), "a201026161f6"),
      (.tagged(1, .unsigned(1_363_896_240)), "c11a514b67b0"),
    ]
    for (value, hex) in examples {
      XCTAssertEqual(value.encoded, bytes(hex), hex)
      XCTAssertEqual(try CBOR(bytes(hex)), value, hex)
    }
  }

  /// Two readers that see two things in the same bytes are how a signed document is forged.
  func testOneEncodingOfEachValue() {
    let refused: [(String, CBORError)] = [
      ("", .endsEarly(at: 0)), ("1817", .notShortest(at: 0)), ("190018", .notShortest(at: 0)),
      ("1900ff", .notShortest(at: 0)), ("1a0000ffff", .notShortest(at: 0)),
      ("1b00000000ffffffff", .notShortest(at: 0)), ("3817", .notShortest(at: 0)), ("580101", .notShortest(at: 0)),
      ("780161", .notShortest(at: 0)), ("980100", .notShortest(at: 0)), ("b8010000", .notShortest(at: 0)),
      ("d80000", .notShortest(at: 0)), ("5f4101ff", .indefiniteLength(at: 0)), ("7f6161ff", .indefiniteLength(at: 0)),
      ("9f00ff", .indefiniteLength(at: 0)), ("bf0000ff", .indefiniteLength(at: 0)), ("0000", .trailingBytes(at: 1)),
      ("a2000000f6", .duplicateKey(at: 0)), ("a2616100616101", .duplicateKey(at: 0)), ("61ff", .notUTF8(at: 0)),
      ("1c", .unsupported(0x1c, at: 0)), ("fb3ff8000000000000", .unsupported(0xfb, at: 0)),
      ("f7", .unsupported(0xf7, at: 0)), ("f816", .unsupported(0xf8, at: 0)), ("ff", .unsupported(0xff, at: 0)),
      ("18", .endsEarly(at: 0)), ("4201", .endsEarly(at: 0)), ("8200", .endsEarly(at: 0)), ("a100", .endsEarly(at: 0)),
      ("828100", .endsEarly(at: 3)),
      ("5bffffffffffffffff", .endsEarly(at: 0)), ("9b7fffffffffffffff", .endsEarly(at: 0)),
      ("bbffffffffffffffff", .endsEarly(at: 0)), ("c1", .endsEarly(at: 1)),
    ]
    for (hex, expected) in refused {
      XCTAssertThrowsError(try CBOR(bytes(hex)), hex) { XCTAssertEqual($0 as? CBORError, expected, hex) }
    }
  }

  /// A reader without a bound is ended by a stack that is full.
  func testDepth() {
    XCTAssertNoThrow(try CBOR([UInt8](repeating: 0x81, count: 15) + [0]))
    for first: UInt8 in [0x81, 0xc1, 0xa1] {
      XCTAssertThrowsError(try CBOR([UInt8](repeating: first, count: 100_000) + [0]))
    }
    XCTAssertThrowsError(try CBOR([UInt8](repeating: 0x81, count: 16) + [0])) {
      XCTAssertEqual($0 as? CBORError, .tooDeep(at: 16))
    }
  }

  /// Whatever is read is written as the same bytes: there is no second encoding that is read too.
  func testRandomBytesAreRefusedOrWrittenAsTheyWere() {
    var state: UInt64 = 8949
    func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    var accepted = 0
    for round in 0..<100_000 {
      let input = (0..<1 + round % 12).map { _ in UInt8(truncatingIfNeeded: next()) }
      guard let value = try? CBOR(input) else { continue }
      accepted += 1
      XCTAssertEqual(value.encoded, input)
    }
    XCTAssertGreaterThan(accepted, 1000)
  }
}
