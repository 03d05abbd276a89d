import EnclaveConfig
import SystemText

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
  /// Whether `tombolo-dns` is to be beside init.
  let needsDNSClient: Bool
  /// Whether `tombolo-attest` is to be.
  let needsAttestation: Bool

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
    guard strings.allSatisfy(isPlainText) else {
      throw .malformed(
        file: name, "bytes that are not UTF-8 in the command, environment, user or directory of a program")
    }
    if let given { _ = try ProgramConfiguration.check(given.text, given.name) }
    let completed = try ProgramConfiguration.complete(given?.text ?? "", name, image, asked)
    let result = try ProgramConfiguration.check(completed, given == nil ? name : "\(name) with the image's own values")
    toml = completed
    command = result.program.command
    needsDNSClient = result.needsDNSClient
    needsAttestation = result.needsAttestation
    environment = result.program.environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
  }

  private static func check(_ text: String, _ name: String) throws(ImageError) -> Configuration {
    do {
      let configuration = try Configuration(toml: text, file: name)
      if let defect = configuration.defect { throw ConfigurationError(file: name, problem: defect) }
      return configuration
    } catch {
      throw .refused("\(error)")
    }
  }

  private static func complete(
    _ text: String, _ name: String, _ image: ImageProgram, _ asked: [String]
  ) throws(ImageError) -> String {
    var document: Document
    do { document = try Document(text, file: name) } catch { throw .refused("\(error)") }
    var missing = entries(image)
    if !asked.isEmpty { missing["command"] = .array(asked.map { Document.Entry("", .string($0)) }) }
    if missing.isEmpty { return text }
    guard case .table(var program)? = document.root["program"] else {
      // The given text stays as it is, comments and all; a table's header ends whatever table stood last.
      let ended = text.isEmpty || text.utf8.last == UInt8(ascii: "\n") ? text : text + "\n"
      document.root = [.init("program", .table(missing))]
      return ended + document.toml.drop { ended.isEmpty && $0 == "\n" }
    }
    for entry in missing where program[entry.key] == nil || entry.key == "command" && !asked.isEmpty {
      program[entry.key] = entry.value
    }
    if case .table(let variables)? = missing["env"], case .table(var env)? = program["env"] {
      for variable in variables where env[variable.key] == nil { env[variable.key] = variable.value }
      program["env"] = .table(env)
    }
    document.root["program"] = .table(program)
    return document.toml
  }

  private static func entries(_ image: ImageProgram) -> Document.Table {
    var entries: Document.Table = []
    if !image.command.isEmpty { entries["command"] = .array(image.command.map { Document.Entry("", .string($0)) }) }
    if let user = image.user { entries["user"] = .string(user) }
    if let directory = image.workingDirectory {
      // A relative WORKDIR is one below the root (docs.docker.com, "WORKDIR").
      entries["working_directory"] = .string(directory.utf8.first == UInt8(ascii: "/") ? directory : "/" + directory)
    }
    var variables: Document.Table = []
    for entry in image.environment {
      guard let equals = entry.firstIndex(of: "="), equals != entry.startIndex else { continue }
      let key = String(entry[..<equals])
      // As in a process's environment, the last one counts.
      variables[key] = .string(String(entry[entry.index(after: equals)...]))
    }
    if !variables.isEmpty { entries["env"] = .table(variables) }
    return entries.sorted { $0.key < $1.key }
  }
}
