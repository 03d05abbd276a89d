import TOMLKit

/// The configuration that an image gets at `/etc/tombolo.toml`: the one it was given, with a `[program]` table completed
/// from what the image says of itself.
///
/// Which wins, key by key: the command given on the command line; the `[program]` table of the configuration; the image's
/// ENTRYPOINT with CMD, ENV, USER, WORKDIR. Environment variables are completed one by one.
struct ProgramConfiguration {
  /// The finished document.
  let toml: String
  let command: [String]
  /// `KEY=value`
  let environment: [String]

  /// - Parameters:
  ///   - given: the configuration's name (for messages) and text, if there is one.
  init(
    given: (name: String, text: String)?, image: ImageProgram, command asked: [String]
  ) throws(ImageError) {
    let name = given?.name ?? "the image's configuration"
    let strings = asked + image.command + image.environment + [image.user, image.workingDirectory].compactMap { $0 }
    guard !strings.contains(where: { $0.utf8.contains(0) }) else {
      throw .malformed(file: name, "a NUL in the command, environment, user or directory of a program")
    }
    let document = try ProgramConfiguration.parse(given?.text ?? "", name)
    var missing = ProgramConfiguration.entries(image)
    if !asked.isEmpty { missing.merge([("command", .list(asked))]) { $1 } }
    guard let present = document["program"] else {
      // The given text stays as it is, comments and all; a table header ends whatever table stood last.
      let separator = given.map { $0.text.isEmpty || $0.text.hasSuffix("\n") ? $0.text : $0.text + "\n" } ?? ""
      toml = separator + (missing.isEmpty ? "" : (separator.isEmpty ? "" : "\n") + ProgramConfiguration.table(missing))
      self.command = asked.isEmpty ? image.command : asked
      environment = image.environment.filter { $0.utf8.contains(UInt8(ascii: "=")) }
      return
    }
    guard let program = present.table else { throw .malformed(file: name, "program is not a table") }
    for (key, value) in missing where key != "env" && (program[key] == nil || key == "command" && !asked.isEmpty) {
      program[key] = value.toml
    }
    if case .pairs(let variables)? = missing["env"] {
      if program["env"] == nil { program["env"] = TOMLTable() }
      guard let env = program["env"]?.table else { throw .malformed(file: name, "program.env is not a table") }
      for (key, value) in variables where env[key] == nil { env[key] = value }
    }
    toml = document.convert(to: .toml) + "\n"
    self.command = try ProgramConfiguration.strings(program["command"], name, "program.command")
    var environment: [String] = []
    if let env = program["env"]?.table {
      for key in env.keys.sorted() {
        guard let value = env[key]?.string else { throw .malformed(file: name, "program.env.\(key) is not a string") }
        environment.append("\(key)=\(value)")
      }
    }
    self.environment = environment
    _ = try ProgramConfiguration.parse(toml, "\(name) with the image's own values")
  }

  private enum Value {
    case string(String)
    case list([String])
    case pairs([(String, String)])

    var toml: TOMLValueConvertible {
      switch self {
      case .string(let string): string
      case .list(let strings): TOMLArray(strings)
      case .pairs(let pairs): TOMLTable(Dictionary(pairs) { $1 } as [String: any TOMLValueConvertible])
      }
    }

    var text: String {
      switch self {
      case .string(let string): quoted(string)
      case .list(let strings): "[" + strings.map(quoted).joined(separator: ", ") + "]"
      case .pairs(let pairs): "{ " + pairs.map { "\(quoted($0.0)) = \(quoted($0.1))" }.joined(separator: ", ") + " }"
      }
    }
  }

  private static func entries(_ image: ImageProgram) -> [String: Value] {
    var entries: [String: Value] = [:]
    if !image.command.isEmpty { entries["command"] = .list(image.command) }
    if let user = image.user { entries["user"] = .string(user) }
    if let directory = image.workingDirectory { entries["working_directory"] = .string(directory) }
    var variables: [(String, String)] = []
    for entry in image.environment {
      guard let equals = entry.firstIndex(of: "="), equals != entry.startIndex else { continue }
      let key = String(entry[..<equals])
      variables.removeAll { $0.0 == key }  // as in a process's environment, the last one counts
      variables.append((key, String(entry[entry.index(after: equals)...])))
    }
    if !variables.isEmpty { entries["env"] = .pairs(variables) }
    return entries
  }

  private static func table(_ entries: [String: Value]) -> String {
    var lines = ["[program]"]
    for key in ["command", "env", "user", "working_directory"] {
      if let value = entries[key] { lines.append("\(key) = \(value.text)") }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func strings(
    _ value: TOMLValueConvertible?, _ name: String, _ key: String
  ) throws(ImageError) -> [String] {
    guard let value else { return [] }
    guard let array = value.array else { throw .malformed(file: name, "\(key) is not an array of strings") }
    var strings: [String] = []
    for item in array {
      guard let string = item.string else { throw .malformed(file: name, "\(key) is not an array of strings") }
      strings.append(string)
    }
    return strings
  }

  private static func parse(_ text: String, _ name: String) throws(ImageError) -> TOMLTable {
    do {
      return try TOMLTable(string: text)
    } catch let error as TOMLParseError {
      let place = error.source.begin
      throw .malformed(file: "\(name):\(place.line):\(place.column)", error.description)
    } catch {
      throw .malformed(file: name, "\(error)")
    }
  }
}

/// A basic string of TOML (toml.io, v1.0.0).
private func quoted(_ string: String) -> String {
  var out = "\""
  for scalar in string.unicodeScalars {
    switch scalar {
    case "\"": out += "\\\""
    case "\\": out += "\\\\"
    case "\n": out += "\\n"
    case "\t": out += "\\t"
    case _ where scalar.value < 0x20 || scalar.value == 0x7f:
      out += "\\u00" + hex([UInt8(truncatingIfNeeded: scalar.value)])
    default: out.unicodeScalars.append(scalar)
    }
  }
  return out + "\""
}
