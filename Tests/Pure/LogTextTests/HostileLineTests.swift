import Foundation
import Wire
import XCTest

@testable import LogText

/// XCTest's, because Swift Testing takes a backtrace of whatever Foundation throws inside: five times the time.
final class HostileLineTests: XCTestCase {
  /// A failure names it, so that the same lines can be made again.
  static let seed = UInt64.random(in: 0...UInt64.max)

  /// A million lines, a thousand at a time, on every processor.
  static func check(_ body: @escaping @Sendable ([[UInt8]]) throws -> String?) {
    DispatchQueue.concurrentPerform(iterations: 1000) { batch in
      var generator = SplitMix(seed: seed &+ UInt64(batch) << 40)
      do {
        if let problem = try body((0..<1000).map { _ in line(&generator) }) {
          XCTFail("seed \(seed), batch \(batch): \(problem)")
        }
      } catch {
        XCTFail("seed \(seed), batch \(batch): \(error)")
      }
    }
  }

  /// Bytes as a fuzzer writes them: noise, and pieces of what means something.
  static func line(_ generator: inout some RandomNumberGenerator) -> [UInt8] {
    let pieces: [[UInt8]] = [
      [0x1b], [0x0d], [0x7f], [0x00], [0x09], [0x22], [0x5c], [0xc2, 0x9b], [0xe2, 0x80, 0xae], [0xe2, 0x81, 0xa6],
      [0xe2, 0x80, 0xa8], [0xd8, 0x9c], [0xf0, 0x9f, 0x8e], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc0, 0x80],
      [0xe0, 0x80], Array("plain text".utf8), Array("日本語".utf8), Array("🎟".utf8), [0xef, 0xbf, 0xbd],
    ]
    var line: [UInt8] = []
    for _ in 0..<Int.random(in: 0...6, using: &generator) {
      if UInt8.random(in: 0...1, using: &generator) == 0 {
        line += pieces[Int.random(in: 0..<pieces.count, using: &generator)]
      } else {
        let noise = UInt64.random(in: 0...UInt64.max, using: &generator)
        for shift in 0..<Int.random(in: 0...8, using: &generator) {
          line.append(UInt8(truncatingIfNeeded: noise >> UInt64(8 * shift)))
        }
      }
    }
    return line.map { $0 == 0x0a ? 0x0b : $0 }
  }

  static func acts(_ scalar: Unicode.Scalar) -> Bool {
    scalar.properties.generalCategory == .control && scalar != "\t" && scalar != "\n"
      || "\u{feff}\u{2028}\u{2029}\u{61c}\u{200e}\u{200f}".unicodeScalars.contains(scalar)
      || ("\u{202a}"..."\u{202e}").contains(scalar) || ("\u{2066}"..."\u{2069}").contains(scalar)
  }

  /// The first character that is not as it should be.
  static func bad(_ text: String) -> String? {
    text.unicodeScalars.first { $0.value < 0x20 || $0.value > 0x7e ? acts($0) : false }
      .map { "U+\(String($0.value, radix: 16)) is not escaped" }
  }

  /// A terminal gets nothing that it would obey, and no line has the place of another.
  func testTextNeverActs() {
    Self.check { all in
      let made = lines(.text, all.map { output($0 + [0x0a]) })
      guard let string = String(validating: made, as: UTF8.self) else { return "not UTF-8" }
      return made.count { $0 == 0x0a } == all.count ? Self.bad(string) : "not \(all.count) lines"
    }
  }

  /// Read by another parser, they are what was written, to the byte.
  func testJSONIsReadBackWhole() {
    Self.check { all in
      let made = lines(.json, all.map { output($0 + [0x0a]) })
      let objects = made.split(separator: 0x0a)
      guard objects.count == all.count else { return "\(objects.count) lines" }
      let head =
        #"{"received":"1970-01-01T00:00:00.000Z","time":"1970-01-01T00:00:00.000Z","sequence":1,"source":"stdout","#
      guard objects.allSatisfy({ $0.starts(with: head.utf8) }) else { return "another beginning" }
      // The parser's time goes to keys, so only what differs is given to it; `jsonLines` has the whole.
      let array = objects.map { [0x7b] + $0.dropFirst(head.utf8.count) }.joined(separator: [0x2c])
      let parsed = try JSONSerialization.jsonObject(with: Data("[".utf8) + Data(array) + Data("]".utf8))
      guard let parsed = parsed as? [[String: String]], parsed.count == all.count else { return "not objects" }
      for (line, object) in zip(all, parsed) {
        let isUTF8 = String(validating: line, as: UTF8.self) != nil
        let kept = object["base64"].flatMap { Data(base64Encoded: $0) }.map { Array($0) }
        guard let shown = object["line"], shown.utf8.elementsEqual(String(decoding: line, as: UTF8.self).utf8),
          kept == (isUTF8 ? nil : line)
        else { return "\(line) became \(object)" }
      }
      return Self.bad(text(made))
    }
  }

  /// However the program's writes cut a line, it is the same line.
  func testCutsDoNotMatter() {
    var generator = SplitMix(seed: Self.seed)
    for format in [LogFormat.text, .json] {
      for _ in 0..<2000 {
        let bytes = Array((0..<20).map { _ in Self.line(&generator) }.joined(separator: [0x0a])) + [0x0a]
        var pieces: [LogRecord] = []
        var rest = bytes[...]
        while !rest.isEmpty {
          let piece = rest.prefix(Int.random(in: 1...40, using: &generator))
          pieces.append(output(Array(piece)))
          rest = rest.dropFirst(piece.count)
        }
        XCTAssertEqual(lines(format, pieces), lines(format, [output(bytes)]))
      }
    }
  }
}
