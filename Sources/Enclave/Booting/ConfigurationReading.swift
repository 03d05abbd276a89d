import BootPlanning
import CLinux
import Digests
import EnclaveConfig
import LinuxSystem
import SystemText

/// The configuration, and the digest of the texts that it was made of.
struct ConfigurationReading {
  var configuration = Configuration()
  var digest = ConfigurationDigest()
  /// Whether there is a file, however little it says.
  var hasFile = false
  /// Its name, there or not.
  var file = Configuration.defaultPath

  /// - Parameters:
  ///   - document: of a local enclave; what it brings takes the place of a file.
  ///   - root: where the enclave's files are, not yet the root; "" where they are.
  init(_ arguments: InitArguments, _ document: LocalDocument.Content?, root: String) throws {
    if let given = document?.configuration {
      try apply(given.text, given.name)
    } else {
      let path = arguments.configurationPath ?? Configuration.defaultPath
      // Only the default may be absent.
      let bytes = try Self.readFile(path, in: root, mayBeAbsent: arguments.configurationPath == nil)
      if let bytes { try apply(try Configuration.text(bytes, file: path), path) }
    }
    if let overrides = document?.overrides { try apply(overrides, "command line", isCommandLine: true) }
    if !arguments.command.isEmpty {
      configuration.program.command = arguments.command
      for word in arguments.command { digest.add(systemBytes(word)) }
    }
    file = document?.configuration?.name ?? arguments.configurationPath ?? Configuration.defaultPath
    if let defect = configuration.defect {
      throw ConfigurationError(file: file, problem: defect)
    }
  }

  private mutating func apply(_ text: String, _ file: String, isCommandLine: Bool = false) throws {
    try configuration.apply(toml: text, file: file, isSystemText: isCommandLine, relativePaths: isCommandLine)
    hasFile = hasFile || !isCommandLine
    digest.add(isCommandLine ? systemBytes(text) : Array(text.utf8))
  }

  /// - Parameter root: perhaps with links that would lead out of it.
  private static func readFile(_ path: String, in root: String, mayBeAbsent: Bool) throws(SystemError) -> [UInt8]? {
    do throws(SystemError) {
      return try root.isEmpty ? LinuxSystem.readFile(path) : ForeignTree(root).read(path)
    } catch {
      guard mayBeAbsent, error.errno == ENOENT else { throw error }
      return nil
    }
  }

  /// What AWS's ramdisk says of the program; its files are removed by a step of the plan.
  mutating func addContract() throws {
    func bytes(_ path: String) throws -> [UInt8]? { fileKind(path) == nil ? nil : try LinuxSystem.readFile(path) }
    let contract = try BootContract(
      command: bytes(BootContract.commandFile), environment: bytes(BootContract.environmentFile))
    for entry in (contract.command ?? []) + contract.environment { digest.add(systemBytes(entry)) }
    try contract.apply(to: &configuration.program)
  }

  /// A program that is tombolo-init again gives place to its own.
  mutating func unwrap(root: String) throws {
    guard let entrypoint = try Entrypoint.arguments(of: configuration.program.command) else { return }
    guard entrypoint.configurationPath != nil else {
      configuration.program.command = entrypoint.command
      return
    }
    let known = configuration.program
    self = try ConfigurationReading(entrypoint, nil, root: root)
    Entrypoint.complete(&configuration.program, with: known)
  }
}
