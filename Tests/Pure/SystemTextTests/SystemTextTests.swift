import SystemText
import Testing

struct SystemTextTests {
  /// A file or an argument that is not UTF-8 must come out as it went in, whatever it is.
  @Test func everyByteSequenceComesBack() {
    let fixed: [[UInt8]] = [
      [], [0xff], [0xe9, 0x74, 0xe9], [0xc3], [0xe2, 0x82], [0xf4, 0x90, 0x80, 0x80], [0xed, 0xa0, 0x80], [0xc0, 0x80],
      Array("caf\u{e9} \u{1f600}".utf8), Array("\u{10feff}\u{10fe80}\u{10fdff}\u{10ff00}".utf8),
      [0xf4, 0x8f, 0xba], [0xf4, 0x8f, 0xba, 0x41], Array("e\u{301}=\r\n".utf8),
    ]
    for bytes in fixed { #expect(systemBytes(systemText(bytes)) == bytes) }
    for _ in 0..<100_000 {
      let bytes = (0..<Int.random(in: 0...12)).map { _ in
        Bool.random() ? UInt8.random(in: 0...255) : [0xf4, 0x8f, 0xba, 0xbb, 0x80, 0xe2, 0x41].randomElement() ?? 0
      }
      #expect(systemBytes(systemText(bytes)) == bytes)
    }
  }

  @Test func differentBytesAreDifferentTexts() {
    let character = Array("\u{10fee9}".utf8)
    #expect(systemText(character) != systemText([0xe9]))
    #expect(systemText(Array("\u{e9}".utf8)) == "\u{e9}")
  }

  @Test func peopleReadEscapes() {
    #expect(shownText(systemText([0x61, 0xe9, 0x62])) == "a\\xE9b")
    #expect(shownText("caf\u{e9}") == "caf\u{e9}")
    #expect(isPlainText("caf\u{e9} \u{10ffff}") && !isPlainText(systemText([0xe9])))
  }
}
