/// Reads `500ms`, `10s`, `2m`, `1h`; whole numbers only, at most a year.
public func parseDuration(_ text: String) -> Duration? {
  let digits = text.prefix { $0.isASCII && $0.isNumber }
  guard !digits.isEmpty, digits.count <= 9, let number = Int(digits) else { return nil }
  let milliseconds: Int
  switch text.dropFirst(digits.count) {
  case "ms": milliseconds = number
  case "s": milliseconds = number * 1000
  case "m": milliseconds = number * 60_000
  case "h": milliseconds = number * 3_600_000
  default: return nil
  }
  return milliseconds <= 31_536_000_000 ? .milliseconds(milliseconds) : nil
}

/// Reads `4096`, `64KiB`, `4MiB`, `1GiB`: bytes, at most 1 TiB.
public func parseSize(_ text: String) -> Int? {
  let digits = text.prefix { $0.isASCII && $0.isNumber }
  guard !digits.isEmpty, digits.count <= 13, let number = Int(digits) else { return nil }
  let factor: Int
  switch text.dropFirst(digits.count) {
  case "", "B": factor = 1
  case "KiB": factor = 1 << 10
  case "MiB": factor = 1 << 20
  case "GiB": factor = 1 << 30
  default: return nil
  }
  let (size, overflow) = number.multipliedReportingOverflow(by: factor)
  return overflow || size > 1 << 40 ? nil : size
}

/// The numbers of signal(7), the same on every architecture that enclaves run on (x86-64 and arm64).
private let signalNumbers: [String: Int32] = [
  "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
  "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19,
  "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28,
  "IO": 29, "PWR": 30, "SYS": 31,
]

/// Reads `SIGTERM`, `TERM`, `15` and `SIGRTMIN+3` (34 to 64, as glibc counts them).
public func parseSignal(_ text: String) -> Int32? {
  let name = text.hasPrefix("SIG") ? String(text.dropFirst(3)) : text
  if let known = signalNumbers[name] { return known }
  if let number = Int32(name), (1...64).contains(number), number != 32, number != 33 { return number }
  if name.hasPrefix("RTMIN+"), let offset = Int32(name.dropFirst(6)), (0...30).contains(offset) { return 34 + offset }
  return nil
}

/// A TOML basic string (toml.io/en/v1.0.0, "String").
public func tomlString(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case _ where scalar.value < 0x20 || scalar.value == 0x7f:
      let hex = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - hex.utf8.count) + hex
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
