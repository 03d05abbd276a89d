import Testing

@testable import HTTP

struct TextCodingsTests {
  @Test func roundTrips() {
    var random = SystemRandomNumberGenerator()
    for count in 0..<200 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      #expect(TextCodings.bytes(hex: TextCodings.hex(bytes)) == bytes)
      #expect(TextCodings.bytes(base64: TextCodings.base64(bytes)) == bytes)
    }
  }

  /// RFC 4648, section 10, and its URL alphabet.
  @Test func base64OfTheRFC() {
    for (text, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
      #expect(TextCodings.base64(Array(text.utf8)) == coded)
      #expect(TextCodings.bytes(base64: coded) == Array(text.utf8))
    }
    #expect(TextCodings.bytes(base64: "-_8") == [0xfb, 0xff] && TextCodings.bytes(base64: "Zg") == [0x66])
    for wrong in ["Z", "Zh==", "Zg=", "Z=g=", "Zg===", "Zm9v!"] { #expect(TextCodings.bytes(base64: wrong) == nil) }
    for wrong in ["0", "0g", "é0"] { #expect(TextCodings.bytes(hex: wrong) == nil) }
  }

  @Test func pem() {
    let key = "-----BEGIN PUBLIC KEY-----\r\nZm9v\nYmFy\n-----END PUBLIC KEY-----\n"
    #expect(TextCodings.bytes(pem: key) == Array("foobar".utf8))
    for wrong in ["", "Zm9v", key + key, "-----BEGIN A-----\nZm9v", "-----END A-----\n"] {
      #expect(TextCodings.bytes(pem: wrong) == nil)
    }
  }

  @Test func objects() throws {
    let found = try #require(
      JSONText.object(
        Array(#" {"nonce": "a\u00e4\n\ud83d\ude00", "x": [1, {"y": -2.5e3}], "n": null, "t": true} "#.utf8)))
    #expect(found.map(\.name) == ["nonce", "x", "n", "t"])
    #expect(found.map(\.value) == [.text("aä\n😀"), .other, .null, .other])
    for wrong in [
      "", "[]", "{", "{}x", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{"a":1,"a":2}"#, #"{"a":"\x"}"#, #"{"a":"\ud800"}"#,
      #"{"a":nul}"#, "{\"a\":\"\n\"}", #"{"a":"#, String(repeating: #"{"a":"#, count: 100),
    ] { #expect(JSONText.object(Array(wrong.utf8)) == nil, "\(wrong)") }
    #expect(JSONText.quoted("a\"\\\n") == #""a\"\\\u000a""#)
  }
}
