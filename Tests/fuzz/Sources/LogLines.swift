import FoundationEssentials
import LogText
import Policy
import Wire

/// What the log's lines show of any bytes: `text` has nothing that acts on a terminal, `json` is JSON from which the bytes
/// can be had back. What any bytes say, read as a log.
let logLines = Harness("log-lines") { bytes in
  var choices = Choices(bytes)
  var text = LogLines(.text)
  var json = LogLines(.json)
  var textBytes = OutgoingBytes()
  var jsonBytes = OutgoingBytes()
  var sequence: UInt64 = 0
  var sent: [UInt8] = []
  for piece in choices.pieces() {
    sequence += 1
    sent += piece
    let record = LogRecord(sequence: sequence, time: sequence << 40, source: .programOutput, body: .output(piece))
    text.add(record, received: sequence, to: &textBytes)
    json.add(record, received: sequence, to: &jsonBytes)
  }
  let end = LogRecord(sequence: sequence + 1, time: 0, source: .initProcess, body: .exit(0))
  text.add(end, received: 0, to: &textBytes)
  json.add(end, received: 0, to: &jsonBytes)
  actsOnNothing(Array(textBytes.bytes))
  readBack(Array(jsonBytes.bytes), sent)
  let foreign = String(decoding: bytes, as: UTF8.self)
  _ = LoggedLine(json: foreign)
  _ = LoggedLine(text: foreign)
  _ = LoggedLine(raw: foreign)
  if let rule = Sighting(foreign)?.subject.rule {
    check((try? DestinationRule("\(rule)")) == rule, "a rule that is none")
  }
}

private func actsOnNothing(_ text: [UInt8]) {
  guard let string = String(validating: text, as: UTF8.self) else { return check(false, "text is not UTF-8") }
  for scalar in string.unicodeScalars {
    switch scalar.value {
    case 0x09, 0x0a: break
    case 0..<0x20, 0x7f..<0xa0, 0x61c, 0x200e, 0x200f, 0x2028...0x202e, 0x2066...0x2069:
      check(false, "text has U+\(String(scalar.value, radix: 16))")
    default: break
    }
  }
}

private struct Line: Decodable {
  var source: String
  var line: String
  var base64: String?
}

private func readBack(_ json: [UInt8], _ sent: [UInt8]) {
  var lines: [[UInt8]] = []
  for text in json.split(separator: 0x0a) {
    guard let line = try? JSONDecoder().decode(Line.self, from: Data(text)) else { return check(false, "not JSON") }
    let ours = LoggedLine(json: String(decoding: text, as: UTF8.self))
    check(ours?.line == line.line && ours?.source == line.source, "our reader reads JSON otherwise")
    guard line.source == "stdout" else { continue }
    if let base64 = line.base64 {
      guard let data = Data(base64Encoded: base64) else { return check(false, "not base 64") }
      lines.append(Array(data))
    } else {
      lines.append(Array(line.line.utf8))
    }
  }
  var expected = sent.split(separator: 0x0a, omittingEmptySubsequences: false).map(Array.init)
  if expected.last == [] { expected.removeLast() }
  check(lines == expected, "the lines are others")
}
