import CToml
import SystemText

/// A parsed TOML document as plain values, each with its line.
public struct Document {
  /// Pairs in the order of their keys: tables are small, and a dictionary's first use has the runtime look through every
  /// conformance of the program, which is milliseconds of a boot.
  public typealias Table = [Entry]

  public struct Entry {
    public var key: String
    public var value: Value
    /// nil for what did not come from a text.
    var place: Place?

    public init(_ key: String, _ value: Value) { self.init(key, value, place: nil) }

    init(_ key: String, _ value: Value, place: Place?) {
      self.key = key
      self.value = value
      self.place = place
    }
  }

  /// Both from 1.
  struct Place: Equatable {
    var line: Int
    var column: Int
  }

  public indirect enum Value {
    case string(String)
    case integer(Int)
    case boolean(Bool)
    /// Elements have empty keys.
    case array([Entry])
    case table(Table)
    /// What no configuration has.
    case other(String)

    /// As an error message shows it.
    var shown: String {
      switch self {
      case .string(let text): tomlString(text)
      case .integer(let number): "\(number)"
      case .boolean(let flag): "\(flag)"
      case .array(let values): "[" + values.map(\.value.shown).joined(separator: ", ") + "]"
      case .table: "a table"
      case .other(let kind): "a \(kind)"
      }
    }
  }

  let file: String
  public var root: Table

  /// - Parameter isSystemText: the text's strings are `SystemText` already, as a command line's; otherwise it is Unicode.
  public init(_ text: String, file: String, isSystemText: Bool = false) throws(ConfigurationError) {
    self.file = file
    var problem = ctoml_error()
    var text = text
    let parsed = text.withUTF8 { bytes in
      bytes.withMemoryRebound(to: CChar.self) { ctoml_parse($0.baseAddress, $0.count, &problem) }
    }
    guard let parsed else {
      let reason = withUnsafeBytes(of: problem.problem) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      throw ConfigurationError(file: file, line: Int(problem.line), problem: "not TOML: \(reason)")
    }
    defer { ctoml_free(parsed) }
    root = Self.entries(ctoml_root(parsed))
    if !isSystemText { root = Self.asSystemText(root) }
  }

  /// The line of a key, or of the table around it that there is.
  func line(of keyPath: [String]) -> Int? {
    var table = root
    var found: Int?
    for key in keyPath {
      guard let entry = table.first(where: { $0.key == key }) else { break }
      found = entry.place?.line ?? found
      guard case .table(let inner) = entry.value else { break }
      table = inner
    }
    return found
  }

  /// A character that `SystemText` needs for itself is written as its bytes.
  private static func asSystemText(_ table: Table) -> Table {
    table.map { Entry(systemText($0.key.utf8), asSystemText($0.value), place: $0.place) }
  }

  private static func asSystemText(_ value: Value) -> Value {
    switch value {
    case .string(let text): .string(systemText(text.utf8))
    case .array(let values): .array(asSystemText(values))
    case .table(let table): .table(asSystemText(table))
    case .integer, .boolean, .other: value
    }
  }

  private static func entries(_ node: OpaquePointer?) -> Table {
    var result: Table = []
    withUnsafeMutablePointer(to: &result) { place in
      ctoml_each(node, place) { context, key, length, line, column, value in
        let text = key.map { String(decoding: UnsafeRawBufferPointer(start: $0, count: length), as: UTF8.self) } ?? ""
        let entry = Entry(
          text, Document.value(value), place: line == 0 ? nil : Place(line: Int(line), column: Int(column)))
        context?.assumingMemoryBound(to: Table.self).pointee.append(entry)
      }
    }
    return result
  }

  private static func value(_ node: OpaquePointer?) -> Value {
    switch ctoml_kind_of(node) {
    case CTOML_TABLE: return .table(entries(node))
    case CTOML_ARRAY: return .array(entries(node))
    case CTOML_STRING:
      var length = 0
      let bytes = ctoml_string(node, &length)
      return .string(String(decoding: UnsafeRawBufferPointer(start: bytes, count: length), as: UTF8.self))
    case CTOML_INTEGER: return .integer(Int(ctoml_integer(node)))
    case CTOML_BOOLEAN: return .boolean(ctoml_boolean(node))
    case CTOML_FLOAT: return .other("floating-point number")
    default: return .other("date or time")
    }
  }
}

// Writing, for what completes a configuration. Comments and the order of keys are not kept.
extension Document {
  /// The document as TOML, for the values that a configuration can have.
  public var toml: String { Self.text(root, path: []) }

  private static func text(_ table: Table, path: [String]) -> String {
    var lines: [String] = []
    var below = ""
    for entry in table {
      // Tables of the first level get headers; all deeper ones are short and stand inline.
      if path.isEmpty, case .table(let inner) = entry.value {
        below += "\n[\(key(entry.key))]\n" + text(inner, path: [entry.key])
      } else {
        lines.append("\(key(entry.key)) = \(inline(entry.value))\n")
      }
    }
    return lines.joined() + below
  }

  private static func inline(_ value: Value) -> String {
    switch value {
    case .string(let text): tomlString(plain(text))
    case .array(let values): "[" + values.map { inline($0.value) }.joined(separator: ", ") + "]"
    case .table(let table): "{ " + table.map { "\(key($0.key)) = \(inline($0.value))" }.joined(separator: ", ") + " }"
    case .integer, .boolean, .other: value.shown
    }
  }

  /// The characters that `SystemText` needs for itself as themselves again.
  private static func plain(_ text: String) -> String { String(decoding: systemBytes(text), as: UTF8.self) }

  /// A bare key where it can be one.
  private static func key(_ text: String) -> String {
    let isBare =
      !text.isEmpty
      && text.utf8.allSatisfy {
        (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0) || $0 == 0x2d
          || $0 == 0x5f
      }
    return isBare ? text : tomlString(plain(text))
  }
}

extension [Document.Entry] {
  public subscript(key: String) -> Document.Value? {
    get { first { $0.key == key }?.value }
    set {
      let place = firstIndex { $0.key == key }
      switch (place, newValue) {
      case (let place?, let value?): self[place].value = value
      case (let place?, nil): remove(at: place)
      case (nil, let value?): append(.init(key, value))
      case (nil, nil): break
      }
    }
  }
}
