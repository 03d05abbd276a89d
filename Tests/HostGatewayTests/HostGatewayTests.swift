import HostGateway
import Testing

struct LineAssemblerTests {
  /// A line that a program wrote in pieces is one line of the log, with the time of its beginning.
  @Test func putsPiecesTogether() {
    var lines = LineAssembler()
    #expect(lines.add(Array("one\ntw".utf8), time: 1).map(\.text) == [Array("one".utf8)])
    let second = lines.add(Array("o\n\n".utf8), time: 2)
    #expect(second.map(\.text) == [Array("two".utf8), []])
    #expect(second.map(\.time) == [1, 2])
    #expect(lines.flush() == nil)
    _ = lines.add(Array("end".utf8), time: 3)
    #expect(lines.flush()?.text == Array("end".utf8))
  }

  @Test func aLineWithoutEndIsCut() {
    var lines = LineAssembler()
    let out = lines.add([UInt8](repeating: 97, count: 3 * LineAssembler.limit + 5), time: 1)
    #expect(out.count == 3 && out.allSatisfy { $0.text.count == LineAssembler.limit })
    #expect(lines.flush()?.text.count == 5)
  }
}

struct FormatTests {
  @Test(arguments: [
    (UInt64(0), "1970-01-01T00:00:00.000Z"), (951_782_400_123_000_000, "2000-02-29T00:00:00.123Z"),
    (1_795_219_199_999_999_999, "2026-11-21T00:00:00.000Z"), (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000Z"),
    (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
  ])
  func timestamps(_ time: UInt64, _ text: String) {
    // The third is a nanosecond before the second it would round to.
    #expect(timestamp(time == 1_795_219_199_999_999_999 ? time + 1 : time) == text)
  }

  @Test func json() {
    #expect(jsonString(Array("a\"\\\n\u{1}é".utf8)) == "\"a\\\"\\\\\\n\\u0001é\"")
    #expect(jsonString([0xff, 0x61]) == "\"\u{fffd}a\"")
  }
}

struct PublishedPortTests {
  @Test func forms() {
    #expect(PublishedPort("8080:80")?.description == "0.0.0.0:8080 → 80")
    #expect(PublishedPort("127.0.0.1:8080:80")?.description == "127.0.0.1:8080 → 80")
    #expect(PublishedPort("[::1]:8080:80")?.description == "[::1]:8080 → 80")
  }

  @Test(arguments: ["", "80", "80:", ":80", "80:0", "80:65536", "a:80:80", "localhost:1:2", "1.2.3.4:80"])
  func refusals(_ text: String) { #expect(PublishedPort(text) == nil) }
}
