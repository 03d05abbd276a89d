import Inet
import LogText
import Policy
import Testing
import Wire

/// A log read again, and what it says of destinations.
struct LoggedLineTests {
  private static func written(_ text: String, _ format: LogFormat, source: LogSource = .proxy, label: String = "")
    -> String
  {
    var lines = LogLines(format)
    var bytes = OutgoingBytes()
    let record = LogRecord(
      sequence: 7, time: 1_764_279_000_000_000_000, source: source, body: .output(Array((text + "\n").utf8)))
    lines.add(record, label: label, received: 1_764_279_001_000_000_000, to: &bytes)
    return String(decoding: Array(bytes.bytes).dropLast(), as: UTF8.self)
  }

  /// Every form gives back what was written, and whose it was.
  @Test(arguments: [
    "egress to 10.0.0.1:22 denied: egress.deny has \"private:22\"", "a\\b \u{1b}[2J é → \u{202e} \u{1f600}", "",
    "a | b: c",
  ])
  func whatIsWrittenCanBeRead(_ text: String) throws {
    for (source, label) in [(LogSource.proxy, ""), (.proxy, "16/"), (.programOutput, "")] {
      let json = try #require(LoggedLine(json: Self.written(text, .json, source: source, label: label)))
      #expect(json.line == text && json.source == label + source.description)
      let plain = try #require(LoggedLine(text: Self.written(text, .text, source: source, label: label)))
      #expect(plain.source == json.source && plain.isOfProxy == (source == .proxy))
      if text.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) { #expect(plain.line == text) }
    }
    let raw = try #require(LoggedLine(raw: Self.written(text, .raw, label: "16/")))
    #expect(raw.source == "16/proxy" && raw.isOfProxy)
  }

  /// Tools write JSON in their own way.
  @Test func otherSpellingsOfJSON() {
    let line = LoggedLine(
      json: "{ \"line\" : \"a\\u00e9\\ud83d\\ude00\\/\\t\" ,\n \"sequence\":1e3, \"x\": null, \"source\":\"proxy\" }\r")
    #expect(line?.line == "aé\u{1f600}/\t" && line?.isOfProxy == true)
    for bad in [
      "", "{", "{}", "[]", "{\"line\":\"a\"}", "{\"source\":\"proxy\",\"line\":\"a\"",
      "{\"source\":\"proxy\",\"line\":\"\\ud800\"}",
      "{\"source\":\"proxy\",\"line\":\"\\u+123\"}", "{\"source\":\"proxy\",\"line\":\"a\"} x",
      "{\"source\":\"proxy\",\"line\":{\"a\":1}}",
      "{\"source\":\"proxy\",\"line\":\"a\\q\"}", "{\"source\":\"proxy\",\"line\":}", "{\"source\" \"proxy\"}",
    ] { #expect(LoggedLine(json: bad) == nil, "\(bad)") }
  }

  @Test func randomBytesGiveLinesOrNothing() {
    var random = SplitMix(seed: 5)
    let pieces = [
      "{", "}", "\"", "\\", "\\u", "d83d", "source", "line", "proxy", ":", ",", " ", "|", "1", "egress to ", "dns: ",
      "(", ")", " denied: ", "10.0.0.1:1",
    ]
    for _ in 0..<20_000 {
      let text = (0..<random.next() % 12).map { _ in pieces[Int(random.next() % UInt64(pieces.count))] }.joined()
      _ = LoggedLine(json: text)
      _ = LoggedLine(text: text)
      _ = LoggedLine(raw: text)
      _ = Sighting(text)
    }
  }

  private static let sentences: [(String, String, Bool, String, UInt64)] = [
    (
      "egress to 10.9.0.2:8081 (ok.test) denied: no rule of egress.allow names it", "ok.test:8081", false,
      "no rule of egress.allow names it", 0
    ),
    (
      "egress to [fd09::2]:443 allowed: egress.default is \"allow\"", "[fd09::2]:443", true,
      "egress.default is \"allow\"", 0
    ),
    (
      "connection to 10.0.0.1:22 denied: egress.deny has \"private:22\" (and 12 more were denied since the last such line)",
      "10.0.0.1:22", false, "egress.deny has \"private:22\"", 12
    ),
    (
      "packets to 10.0.0.1:53 (UDP) denied: no rule of egress.allow names it", "udp://10.0.0.1:53", false,
      "no rule of egress.allow names it", 0
    ),
    ("packets to 10.0.0.1:443 (TCP) denied: x", "10.0.0.1:443", false, "x", 0),
    ("packets to 10.0.0.1 denied: x", "icmp://10.0.0.1", false, "x", 0),
    (
      "dns: other.test A denied: no rule of egress.allow names it", "dns other.test", false,
      "no rule of egress.allow names it", 0
    ),
    ("name: other.test AAAA denied: x", "dns other.test", false, "x", 0),
  ]

  @Test func sentencesAreRead() throws {
    for (line, subject, isAllowed, reason, more) in Self.sentences {
      let sighting = try #require(Sighting(line), "\(line)")
      #expect(sighting.subject.description == subject && sighting.isAllowed == isAllowed, "\(line)")
      #expect(sighting.reason == reason && sighting.more == more, "\(line)")
    }
    for other in [
      "", "egress", "egress to ", "egress to 10.0.0.1:22: Connection refused (ECONNREFUSED)",
      "dns: the host refused to resolve: denied",
      "ingress to port 80 denied: port 80 is not in [ingress] ports []", "egress to nowhere denied: x",
      "dns: rebind.test A: taken out of the answer: 127.0.0.1, which must not be reached",
    ] { #expect(Sighting(other) == nil, "\(other)") }
  }

  /// What was used is named by a rule that allows it, and not the port beside it.
  @Test func rulesNameWhatWasUsed() throws {
    for (line, rule) in [
      ("egress to 10.9.0.2:8080 (Private) allowed: x", "private.:8080"),
      ("egress to 10.9.0.2:80 allowed: x", "10.9.0.2:80"),
      ("egress to [fd09::2]:80 allowed: x", "[fd09::2]:80"), ("dns: text.test TXT allowed: x", "icmp://text.test"),
      ("packets to 10.0.0.1:53 (UDP) allowed: x", "udp://10.0.0.1:53"),
      ("packets to 10.0.0.1 allowed: x", "icmp://10.0.0.1"),
    ] {
      let found = try #require(Sighting(line)?.subject.rule)
      #expect(found.description == rule)
      #expect(try DestinationRule(rule) == found)
    }
    #expect(try #require(Sighting("dns: a\\032b.test A allowed: x")).subject.rule == nil)
  }

  @Test func countsAreBounded() {
    var counts = BoundedCounts<Int>(limit: 3)
    for number in 0..<10 { counts.add(number % 5, 2) }
    #expect(counts.counts == [0: 4, 1: 4, 2: 4] && counts.others == 8)
  }
}
