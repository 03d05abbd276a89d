import Testing
import Wire

@testable import LogText

/// The log that these records make.
func lines(_ format: LogFormat, _ records: [LogRecord], label: String = "", received: UInt64 = 0) -> [UInt8] {
  var made = LogLines(format)
  var bytes = OutgoingBytes()
  for record in records { made.add(record, label: label, received: received, to: &bytes) }
  return Array(bytes.bytes)
}

func output(_ bytes: [UInt8], source: LogSource = .programOutput, sequence: UInt64 = 1, time: UInt64 = 0) -> LogRecord {
  LogRecord(sequence: sequence, time: time, source: source, body: .output(bytes))
}

func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

@Suite struct LogFormatTests {
  static let time: UInt64 = 951_782_400_123_000_000
  static let received: UInt64 = 951_782_400_125_000_000

  /// What scripts split and search.
  @Test func textLines() {
    let records = [
      output(Array("one\ntw".utf8), sequence: 7, time: Self.time),
      output(Array("o\r\n".utf8), sequence: 8, time: Self.time + 1_000_000_000),
      LogRecord(sequence: 10, time: Self.time, source: .initProcess, body: .gap(records: 2, bytes: 300)),
      output(Array("tail".utf8), source: .programError, sequence: 11, time: Self.time),
      LogRecord(sequence: 12, time: Self.time, source: .initProcess, body: .exit(3)),
    ]
    let before = "2000-02-29T00:00:00.125Z 2000-02-29T00:00:00.123Z"
    #expect(
      text(lines(.text, records, received: Self.received)) == """
        \(before) 7 stdout | one
        \(before) 7 stdout | two\\x0d
        \(before) 10 init | 2 log records (300 bytes) were dropped: the host was away or too slow
        \(before) 11 stderr | tail
        \(before) 12 init | the program ended with status 3

        """)
    #expect(
      text(lines(.text, [output(Array("x\n".utf8))], label: "16/"))
        == "1970-01-01T00:00:00.000Z 1970-01-01T00:00:00.000Z 1 16/stdout | x\n")
  }

  /// What jq reads.
  @Test func jsonLines() {
    let records = [
      output(Array("a\"\\\u{1}é\n".utf8), sequence: 7, time: Self.time),
      output([0x66, 0xff, 0xe2, 0x82, 0x0a], sequence: 8, time: Self.time),
      LogRecord(sequence: 10, time: Self.time, source: .initProcess, body: .gap(records: 2, bytes: 300)),
      LogRecord(sequence: 11, time: Self.time, source: .initProcess, body: .started),
      LogRecord(sequence: 12, time: Self.time, source: .initProcess, body: .exit(3)),
    ]
    let before = #"{"received":"2000-02-29T00:00:00.125Z","time":"2000-02-29T00:00:00.123Z","#
    #expect(
      text(lines(.json, records, received: Self.received)) == #"""
        \#(before)"sequence":7,"source":"stdout","line":"a\"\\\u0001é"}
        \#(before)"sequence":8,"source":"stdout","line":"f��","base64":"Zv/igg=="}
        \#(before)"sequence":10,"source":"init","line":"2 log records (300 bytes) were dropped: the host was away or too slow","event":"gap","records":2,"bytes":300}
        \#(before)"sequence":12,"source":"init","line":"the program ended with status 3","event":"exit","status":3}

        """#)
  }

  /// The program's bytes are its own; what we say beside them acts as little as any other line.
  @Test func rawLines() {
    #expect(lines(.raw, [output([0x1b, 0xff, 0x0a, 0x0d])]) == [0x1b, 0xff, 0x0a, 0x0d])
    #expect(
      text(lines(.raw, [output(Array("warning: \u{1b}]0;x\u{7}\n".utf8), source: .initProcess)]))
        == "tombolo init: warning: \\x1b]0;x\\x07\n")
    let made = LogLines(.raw)
    #expect(made.isForOutput(output([])) && !made.isForOutput(output([], source: .programError)))
  }

  @Test(arguments: [
    ("\u{1b}[31m\r\u{8}\u{7f}\u{0}", #"\x1b[31m\x0d\x08\x7f\x00"#, #"\u001b[31m\r\b\u007f\u0000"#),
    ("\u{9b}31m\u{80}\u{9f}\u{a0}", "\\u{9b}31m\\u{80}\\u{9f}\u{a0}", "\\u009b31m\\u0080\\u009f\u{a0}"),
    (
      "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}",
      #"\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}"#, #"\u202a\u202e\u2066\u2069\u200e\u200f\u061c"#
    ),
    ("\u{2028}\u{2029}", #"\u{2028}\u{2029}"#, #"\u2028\u2029"#),
    (#"C:\new "x""#, #"C:\new "x""#, #"C:\\new \"x\""#),
    ("a\tb 日本語 🎟 \u{200d}\u{10ffff}", "a\tb 日本語 🎟 \u{200d}\u{10ffff}", "a\\tb 日本語 🎟 \u{200d}\u{10ffff}"),
  ])
  func escapes(_ line: String, _ inText: String, _ inJSON: String) {
    let record = output(Array("\(line)\n".utf8))
    #expect(text(lines(.text, [record])).hasSuffix(" stdout | \(inText)\n"))
    #expect(text(lines(.json, [record])).hasSuffix(#""line":"\#(inJSON)"}"# + "\n"))
  }

  @Test func foreignTextOfOurOwnSentences() {
    #expect(harmless(Array("\u{1b}c\r\none\ttwo\u{202e}\n".utf8)) == Array("\\x1bc\\x0d\none\ttwo\\u{202e}\n".utf8))
    #expect(harmless([0xc3]) == Array(#"\xc3"#.utf8) && harmless([]) == [])
  }

  @Test(arguments: [
    (UInt64(0), "1970-01-01T00:00:00.000Z"), (951_782_400_123_000_000, "2000-02-29T00:00:00.123Z"),
    (1_795_219_200_000_000_000, "2026-11-21T00:00:00.000Z"), (1_795_219_199_999_999_999, "2026-11-20T23:59:59.999Z"),
    (4_107_542_399_000_000_000, "2100-02-28T23:59:59.000Z"), (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z"),
    (.max, "2554-07-21T23:34:33.709Z"),
  ])
  func timestamps(_ time: UInt64, _ expected: String) {
    var timestamp = Timestamp()
    var bytes: [UInt8] = []
    timestamp.append(time, to: &bytes)
    #expect(text(bytes) == expected)
    // Once more from the second that is kept, and behind another one.
    timestamp.append(time, to: &bytes)
    timestamp.append(3_600_000_000_000, to: &bytes)
    timestamp.append(time, to: &bytes)
    #expect(text(bytes) == "\(expected)\(expected)1970-01-01T01:00:00.000Z\(expected)")
  }
}

@Suite struct LineAssemblerTests {
  func add(_ assembler: inout LineAssembler, _ bytes: [UInt8], time: UInt64) -> [(time: UInt64, text: [UInt8])] {
    var found: [(time: UInt64, text: [UInt8])] = []
    bytes.withUnsafeBytes {
      assembler.add($0, LineOrigin(time: time, received: 0, sequence: 0)) { found.append(($1.time, Array($0))) }
    }
    return found
  }

  func flush(_ assembler: inout LineAssembler) -> [UInt8]? {
    var found: [UInt8]?
    assembler.flush { line, _ in found = Array(line) }
    return found
  }

  /// A line that a program wrote in pieces is one line of the log, with the time of its beginning.
  @Test func putsPiecesTogether() {
    var assembler = LineAssembler()
    #expect(add(&assembler, Array("one\ntw".utf8), time: 1).map(\.text) == [Array("one".utf8)])
    let second = add(&assembler, Array("o\n\n".utf8), time: 2)
    #expect(second.map(\.text) == [Array("two".utf8), []])
    #expect(second.map(\.time) == [1, 2])
    #expect(flush(&assembler) == nil)
    _ = add(&assembler, Array("end".utf8), time: 3)
    #expect(flush(&assembler) == Array("end".utf8))
  }

  @Test func aLineWithoutEndIsCut() {
    var assembler = LineAssembler()
    let out = add(&assembler, [UInt8](repeating: 97, count: 3 * LineAssembler.limit + 5), time: 1)
    #expect(out.count == 3 && out.allSatisfy { $0.text.count == LineAssembler.limit })
    #expect(flush(&assembler)?.count == 5)
  }

  /// Each half would be shown as what it is not.
  @Test func aCharacterIsNotCut() {
    for lead in 0..<4 {
      var assembler = LineAssembler()
      let line =
        [UInt8](repeating: 97, count: lead) + Array(String(repeating: "🎟", count: LineAssembler.limit / 2).utf8)
      let out = add(&assembler, line, time: 1).map(\.text) + [flush(&assembler) ?? []]
      #expect(Array(out.joined()) == line && out.allSatisfy { String(validating: $0, as: UTF8.self) != nil })
    }
    // What only looks like the beginning of one is cut as all else: the line must end somewhere.
    var assembler = LineAssembler()
    let noise = [UInt8](repeating: 0x80, count: LineAssembler.limit) + [0x0a]
    #expect(add(&assembler, noise, time: 1).map(\.text.count) == [LineAssembler.limit, 0])
  }
}

@Suite struct OutgoingBytesTests {
  /// Whatever is written and taken, in any order, comes out as it went in.
  @Test func anyOrder() {
    var bytes = OutgoingBytes()
    var model: [UInt8] = []
    for round in 0..<20000 {
      if Bool.random() {
        let new = (0..<Int.random(in: 0...400)).map { UInt8(truncatingIfNeeded: $0 &+ round) }
        new.withUnsafeBytes { bytes.append($0) }
        model += new
      } else {
        let count = Int.random(in: 0...(Int.random(in: 0...9) == 0 ? model.count : min(model.count, 400)))
        bytes.remove(count)
        model.removeFirst(count)
      }
      #expect(bytes.count == model.count && bytes.bytes.elementsEqual(model))
    }
  }
}

@Suite struct ComplaintsTests {
  /// Twenty thousand hostile streams a minute are a few lines a minute; none is uncounted.
  @Test func aFloodIsAFewLines() {
    var complaints = Complaints<Int>()
    var said: UInt64 = 0
    var counted: UInt64 = 0
    var summaries = 0
    for number in 0..<20000 {
      let now = UInt64(number) * 3_000_000
      for remainder in complaints.end(at: now) {
        counted += remainder.count
        summaries += 1
      }
      if complaints.admits(1, at: now) { said += 1 }
    }
    #expect(said == 30 && summaries == 5)
    let last = complaints.end(at: .max)
    #expect(said + counted + (last.first?.count ?? 0) == 20000)
    #expect(complaints.due == nil)
  }

  @Test func kindsDoNotHideEachOther() {
    var complaints = Complaints<String>()
    for _ in 0..<100 { _ = complaints.admits("flood", at: 5) }
    let other = complaints.admits("other", at: 6)
    #expect(other)
    #expect(complaints.due == 5 + Complaints<String>.window)
    let early = complaints.end(at: 4 + Complaints<String>.window)
    #expect(early.isEmpty)
    let ended = complaints.end(at: 5 + Complaints<String>.window)
    #expect(ended == [.init(kind: "flood", count: 95)] && ended.first?.sentence == "… and 95 more like it in 10 s")
    let again = complaints.admits("flood", at: 5 + Complaints<String>.window)
    #expect(again)
  }
}
