/// A configuration that cannot be used: where, what was found, what was expected.
///
/// Prints as `/etc/tombolo.toml:7: program.stop_timeout: found "soon", expected a duration such as "10s"`.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
  public var file: String
  /// Counts from 1; nil where the line is not known.
  public var line: Int?
  /// Counts from 1; known of elements of arrays only.
  public var column: Int?
  /// Dotted, empty for the document as a whole.
  public var keyPath: String
  public var problem: String

  public init(file: String, line: Int? = nil, keyPath: String = "", problem: String) {
    self.file = file
    self.line = line
    self.keyPath = keyPath
    self.problem = problem
  }

  public var description: String {
    "\(file)\(line.map { ":\($0)" } ?? "")\(column.map { ":\($0)" } ?? ""): \(keyPath.isEmpty ? "" : keyPath + ": ")\(problem)"
  }
}
