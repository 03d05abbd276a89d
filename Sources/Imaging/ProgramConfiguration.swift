import EnclaveConfig
import TOMLKit

/// The configuration that an image gets at `/etc/tombolo.toml`: the one it was given, with a `[program]` table completed
/// from what the image says of itself.
///
/// Which wins, key by key: the command given on the command line; the `[program]` table of the configuration; the image's
/// ENTRYPOINT with CMD, ENV, USER, WORKDIR. Environment variables are completed one by one.
struct ProgramConfiguration {
  /// The finished document, which `EnclaveConfig` takes.
  let toml: String
  let command: [String]
  /// `KEY=value`, sorted.
  let environment: [String]

  /// - Parameter given: the configuration's name (for messages) and text, if there is one.
  /// - Throws: for a configuration that `tombolo-init` would refuse: now, not when it boots.
  init(
    given: (name: String, text: String)?, image: ImageProgram, command asked: [String]
  ) throws(ImageError) {
    let name = given?.name ?? "the image's configuration"
    let strings = asked + image.command + image.environment + [image.user, image.workingDirectory].compactMap { $0 }
    guard !strings.contains(where: { $0.utf8.contains(0) }) else {
      throw .malformed(file: name, "a NUL in the command, environment, user or directory of a program")
    }
    if let given { _ = try ProgramConfiguration.check(given.text, given.name) }
    let completed = try ProgramConfiguration.complete(given?.text ?? "", name, image, asked)
    let result = try ProgramConfiguration.check(completed, given == nil ? name : "\(name) with the image's own values")
    toml = completed
    command = result.program.command
    environment = result.program.environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
  }

  private static func check(_ text: String, _ name: String) throws(ImageError) -> Configuration {
    do { return try Configuration(toml: text, file: name) } catch { throw .refused("\(error)") }
  }

  private static func complete(
    _ text: String, _ name: String, _ image: ImageProgram, _ asked: [String]
  ) throws(ImageError) -> String {
    let document: TOMLTable
    do { document = try TOMLTable(string: text) } catch { throw .malformed(file: name, "\(error)") }
    var missing = entries(image)
    if !asked.isEmpty { missing["command"] = .list(asked) }
    if missing.isEmpty { return text }
    guard let program = document["program"]?.table else {
      // The given text stays as it is, comments and all; a table's header ends whatever table stood last.
      let ended = text.isEmpty || text.utf8.last == UInt8(ascii: "\n") ? text : text + "\n"
      return ended + (ended.isEmpty ? "" : "\n") + table(missing)
    }
    for (key, value) in missing where key != "env" && (program[key] == nil || key == "command" && !asked.isEmpty) {
      program[key] = value.toml
    }
    if case .pairs(let variables)? = missing["env"] {
      if program["env"] == nil { program["env"] = TOMLTable() }
      if let env = program["env"]?.table {
        for (key, value) in variables where env[key] == nil { env[key] = value }
      }
    }
    return document.convert(to: .toml) + "\n"
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
      case .string(let string): tomlString(string)
      case .list(let strings): "[" + strings.map(tomlString).joined(separator: ", ") + "]"
      case .pairs(let pairs):
        "{ " + pairs.map { "\(tomlString($0.0)) = \(tomlString($0.1))" }.joined(separator: ", ") + " }"
      }
    }
  }

  private static func entries(_ image: ImageProgram) -> [String: Value] {
    var entries: [String: Value] = [:]
    if !image.command.isEmpty { entries["command"] = .list(image.command) }
    if let user = image.user { entries["user"] = .string(user) }
    if let directory = image.workingDirectory {
      // A relative WORKDIR is one below the root (docs.docker.com, "WORKDIR").
      entries["working_directory"] = .string(directory.utf8.first == UInt8(ascii: "/") ? directory : "/" + directory)
    }
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
}
