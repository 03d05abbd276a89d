import TOMLKit

/// A parsed TOML document as plain values.
struct Document {
  indirect enum Value {
    case string(String)
    case integer(Int)
    case boolean(Bool)
    case array([Value])
    case table([String: Value])
    case other(String)

    /// As an error message shows it.
    var shown: String {
      switch self {
      case .string(let text): "\"\(text)\""
      case .integer(let number): "\(number)"
      case .boolean(let flag): "\(flag)"
      case .array(let values): "[" + values.map(\.shown).joined(separator: ", ") + "]"
      case .table: "a table"
      case .other(let kind): "a \(kind)"
      }
    }
  }

  let file: String
  let root: [String: Value]
  private let text: String

  init(_ text: String, file: String) throws(ConfigurationError) {
    self.file = file
    self.text = text
    let table: TOMLTable
    do {
      table = try TOMLTable(string: text)
    } catch let error as TOMLParseError {
      throw ConfigurationError(file: file, line: error.source.begin.line, problem: "not TOML: \(error.description)")
    } catch {
      throw ConfigurationError(file: file, problem: "not TOML: \(error)")
    }
    root = Self.values(table)
  }

  /// Only errors ask, so the lines are not looked for before.
  func line(of keyPath: [String]) -> Int? { KeyLines(text).line(of: keyPath) }

  private static func values(_ table: TOMLTable) -> [String: Value] {
    var result: [String: Value] = [:]
    for key in table.keys {
      if let value = table[key] { result[key] = convert(value) }
    }
    return result
  }

  private static func convert(_ value: TOMLValueConvertible) -> Value {
    switch value.type {
    case .string: .string(value.string ?? "")
    case .int: value.int.map { .integer($0) } ?? .other("number")
    case .bool: .boolean(value.bool ?? false)
    case .table: .table(value.table.map(values) ?? [:])
    case .array: .array(value.array.map { array in array.map { convert($0) } } ?? [])
    case .double: .other("floating-point number")
    case .date, .time, .dateTime: .other("date or time")
    }
  }
}

/// The lines on which keys stand. TOMLKit tells the place of syntax errors only, and an unknown key or a wrong value
/// must be found too. Keys inside an inline table have their table's line.
struct KeyLines {
  private var lines: [String: Int] = [:]

  init(_ text: String) {
    var table: [String] = []
    var inMultiline: String?
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      if let mark = inMultiline {
        if line.contains(mark) { inMultiline = nil }
        continue
      }
      let trimmed = line.drop { $0 == " " || $0 == "\t" }
      if trimmed.hasPrefix("[") {
        let name = trimmed.drop { $0 == "[" }.prefix { $0 != "]" }
        table = Self.path(name)
        record(table, index + 1)
      } else if let equals = trimmed.firstIndex(of: "="), !trimmed.hasPrefix("#") {
        record(table + Self.path(trimmed[..<equals]), index + 1)
        let value = trimmed[trimmed.index(after: equals)...].drop { $0 == " " || $0 == "\t" }
        for mark in ["\"\"\"", "'''"] where value.hasPrefix(mark) && !value.dropFirst(3).contains(mark) {
          inMultiline = mark
        }
      }
    }
  }

  private mutating func record(_ path: [String], _ line: Int) {
    for length in 1...max(1, path.count) where length <= path.count {
      let key = path[..<length].joined(separator: "\u{0}")
      if lines[key] == nil { lines[key] = line }
    }
  }

  private static func path(_ text: Substring) -> [String] {
    text.split(separator: ".").map { part in
      String(part.filter { !" \t\"'".contains($0) })
    }
  }

  func line(of keyPath: [String]) -> Int? {
    for length in stride(from: keyPath.count, to: 0, by: -1) {
      if let line = lines[keyPath[..<length].joined(separator: "\u{0}")] { return line }
    }
    return nil
  }
}
