/// Takes keys out of one table; what nobody took is unknown and refused.
struct TableReader {
  private let document: Document
  private let path: [String]
  private var rest: Document.Table
  private var known: [String] = []

  init(_ document: Document) {
    self.init(document, [], document.root)
  }

  private init(_ document: Document, _ path: [String], _ values: Document.Table) {
    self.document = document
    self.path = path
    rest = values
  }

  /// Those that nobody has taken.
  var keys: [String] { rest.map(\.key) }

  /// - Parameter entry: a name in the inline table that the key has.
  func error(_ key: String, entry: String? = nil, _ problem: String) -> ConfigurationError {
    let full = path + [key] + (entry.map { [$0] } ?? [])
    return ConfigurationError(
      file: document.file, line: document.line(of: full), keyPath: full.joined(separator: "."), problem: problem)
  }

  private func expected(_ what: String, _ key: String, _ found: Document.Value) -> ConfigurationError {
    error(key, "found \(found.shown), expected \(what)")
  }

  private mutating func take(_ key: String) -> Document.Value? {
    known.append(key)
    return rest.firstIndex { $0.key == key }.map { rest.remove(at: $0).value }
  }

  mutating func table(
    _ key: String, _ body: (inout TableReader) throws(ConfigurationError) -> Void
  ) throws(ConfigurationError) {
    guard let value = take(key) else { return }
    guard case .table(let values) = value else { throw expected("a table", key, value) }
    var reader = TableReader(document, path + [key], values)
    try body(&reader)
    try reader.finish()
  }

  /// Every table of an array of them (`[[key]]`).
  mutating func tables(
    _ key: String, _ body: (inout TableReader) throws(ConfigurationError) -> Void
  ) throws(ConfigurationError) {
    guard let value = take(key) else { return }
    guard case .array(let values) = value else { throw expected("tables, each headed [[\(key)]]", key, value) }
    for (index, element) in values.enumerated() {
      guard case .table(let table) = element.value else {
        throw expected("tables, each headed [[\(key)]]", key, value)
      }
      var reader = reader(of: element, table, "\(key)[\(index + 1)]")
      try body(&reader)
      try reader.finish()
    }
  }

  /// A reader of one table of an array, with a document of its own, in which the table is found by its number.
  private func reader(of element: Document.Entry, _ table: Document.Table, _ name: String) -> TableReader {
    var inner = document
    inner.root = [Document.Entry(name, element.value, place: element.place)]
    for outer in path.reversed() { inner.root = [Document.Entry(outer, .table(inner.root), place: element.place)] }
    return TableReader(inner, path + [name], table)
  }

  /// An error about a key that is not there: of the table.
  func missing(_ key: String, _ problem: String) -> ConfigurationError { error(key, problem) }

  enum Element {
    case integer(Int)
    case table(TableReader)
  }

  /// Each of an array of numbers and tables; `body` says whether it is one that is expected.
  mutating func elements(
    _ key: String, _ what: String, _ body: (Element) throws(ConfigurationError) -> Bool
  ) throws(ConfigurationError) {
    guard let value = take(key) else { return }
    guard case .array(let values) = value else { throw expected(what, key, value) }
    for (index, entry) in values.enumerated() {
      switch entry.value {
      case .integer(let number): if try body(.integer(number)) { continue }
      case .table(let table):
        if try body(.table(reader(of: entry, table, "\(key)[\(index + 1)]"))) { continue }
      default: break
      }
      throw expected(what, key, value)
    }
  }

  mutating func string(_ key: String) throws(ConfigurationError) -> String? {
    guard let value = take(key) else { return nil }
    guard case .string(let text) = value else { throw expected("a string", key, value) }
    guard !text.utf8.contains(0) else { throw error(key, "found a NUL byte, expected text without one") }
    return text
  }

  /// A string that `parse` understands; `what` completes "expected …".
  mutating func value<T>(
    _ key: String, _ what: @autoclosure () -> String, _ parse: (String) -> T?
  ) throws(ConfigurationError) -> T? {
    guard let text = try string(key) else { return nil }
    guard let parsed = parse(text) else { throw error(key, "found \"\(text)\", expected \(what())") }
    return parsed
  }

  mutating func flag(_ key: String) throws(ConfigurationError) -> Bool? {
    guard let value = take(key) else { return nil }
    guard case .boolean(let flag) = value else { throw expected("true or false", key, value) }
    return flag
  }

  mutating func strings(_ key: String) throws(ConfigurationError) -> [String]? {
    guard let value = take(key) else { return nil }
    guard case .array(let values) = value else { throw expected("an array of strings", key, value) }
    var result: [String] = []
    for element in values {
      guard case .string(let text) = element.value, !text.utf8.contains(0) else {
        throw expected("an array of strings without NUL bytes", key, value)
      }
      result.append(text)
    }
    return result
  }

  /// Strings that `parse` each understands; its error completes "found "…", ". An error has the element's own place.
  mutating func values<T, Problem: Error & CustomStringConvertible>(
    _ key: String, _ parse: (String) throws(Problem) -> T
  ) throws(ConfigurationError) -> [T]? {
    guard let value = take(key) else { return nil }
    guard case .array(let values) = value else { throw expected("an array of strings", key, value) }
    var result: [T] = []
    for element in values {
      guard case .string(let text) = element.value, !text.utf8.contains(0) else {
        throw expected("an array of strings", key, value)
      }
      do throws(Problem) {
        result.append(try parse(text))
      } catch let problem {
        var error = error(key, "found \"\(text)\", \(problem)")
        error.line = element.place?.line ?? error.line
        error.column = element.place?.column
        throw error
      }
    }
    return result
  }

  /// Takes the key where it is this word, for keys that else are an array.
  mutating func hasWord(_ word: String, _ key: String) throws(ConfigurationError) -> Bool {
    guard let index = rest.firstIndex(where: { $0.key == key }), case .string(let text) = rest[index].value else {
      return false
    }
    guard text == word else { throw error(key, "found \"\(text)\", expected \"\(word)\" or an array of strings") }
    _ = take(key)
    return true
  }

  mutating func integers(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> [Int]? {
    guard let value = take(key) else { return nil }
    let what = "an array of numbers from \(range.lowerBound) to \(range.upperBound)"
    guard case .array(let values) = value else { throw expected(what, key, value) }
    var result: [Int] = []
    for element in values {
      guard case .integer(let number) = element.value, range.contains(number) else { throw expected(what, key, value) }
      result.append(number)
    }
    return result
  }

  mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> Int? {
    guard let value = take(key) else { return nil }
    guard case .integer(let number) = value, range.contains(number) else {
      throw expected("a number from \(range.lowerBound) to \(range.upperBound)", key, value)
    }
    return number
  }

  mutating func environment(_ key: String) throws(ConfigurationError) -> [String: String]? {
    guard let value = take(key) else { return nil }
    guard case .table(let values) = value else { throw expected("a table of strings", key, value) }
    var result: [String: String] = [:]
    for entry in values {
      let (name, element) = (entry.key, entry.value)
      guard case .string(let text) = element, !text.utf8.contains(0) else {
        throw error(key, entry: name, "found \(element.shown), expected a string without NUL bytes")
      }
      guard !name.isEmpty, !name.utf8.contains(UInt8(ascii: "=")), !name.utf8.contains(0) else {
        throw error(key, entry: name, "found \"\(name)\", expected a variable's name without \"=\"")
      }
      result[name] = text
    }
    return result
  }

  func finish() throws(ConfigurationError) {
    guard let unknown = rest.map(\.key).min() else { return }
    throw error(unknown, "unknown key; known here: \(known.sorted().joined(separator: ", "))")
  }
}
