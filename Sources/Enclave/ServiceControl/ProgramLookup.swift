import BootPlanning
import CLinux
import EnclaveConfig
import LinuxSystem

/// The user's program as it will be started, or why it cannot be.
public struct ProgramLaunch {
  public var path: String
  public var arguments: [String]
  public var environment: [String]
  public var account: Account
  public var workingDirectory: String

  /// What the program cannot be started for, with the status that shells give: 127 not there, 126 not executable.
  public struct Failure: Error, CustomStringConvertible {
    public var sentence: String
    public var status: UInt8
    public var description: String { sentence }
  }

  /// Where programs are looked up unless the configuration says PATH.
  public static let defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

  /// - Parameter defaultDirectory: where the program starts when the configuration does not say.
  public init(
    _ program: Configuration.Program, hostname: String, hasAttestation: Bool = false
  ) throws(Failure) {
    guard let name = program.command.first else {
      throw Failure(sentence: "no program: [program] command is empty and none is on the command line", status: 127)
    }
    do throws(AccountError) {
      account =
        if let user = program.user {
          try Account(user, passwd: Self.text("/etc/passwd"), group: Self.text("/etc/group"))
        } else {
          (try? Account("0", passwd: Self.text("/etc/passwd"), group: Self.text("/etc/group"))) ?? .root
        }
    } catch {
      throw Failure(sentence: "program.user: \(error)", status: 125)
    }
    if program.user == nil { account.groups = [] }
    let searchPath = program.environment["PATH"] ?? Self.defaultPath
    var own = [("HOME", account.home), ("HOSTNAME", hostname), ("PATH", Self.defaultPath)]
    if hasAttestation { own.append((EnclaveLayout.attestationVariable, EnclaveLayout.attestationSocket)) }
    environment = own.filter { program.environment[$0.0] == nil }.map { "\($0.0)=\($0.1)" }
    environment += program.environment.map { "\($0.key)=\($0.value)" }
    // The same every time, whatever the dictionary's order is.
    if !program.environment.isEmpty { environment.sort() }
    arguments = program.command
    workingDirectory = program.workingDirectory ?? "/"
    guard fileKind(workingDirectory) == .directory else {
      throw Failure(
        sentence: "program.working_directory: \(workingDirectory) is not a directory of the enclave", status: 125)
    }
    path = try Self.find(name, in: searchPath, from: workingDirectory)
  }

  private static func text(_ path: String) -> String { (try? readText(path)) ?? "" }

  private static func find(_ name: String, in searchPath: String, from directory: String) throws(Failure) -> String {
    if name.contains("/") {
      let absolute = name.hasPrefix("/") ? name : directory + "/" + name
      guard let kind = fileKind(absolute) else {
        throw Failure(sentence: "\(name): not found in the enclave", status: 127)
      }
      guard kind == .file, isExecutable(absolute) else {
        throw Failure(sentence: "\(name): \(kind == .directory ? "is a directory" : "not executable")", status: 126)
      }
      return name
    }
    var found: String?
    for part in searchPath.utf8.split(separator: UInt8(ascii: ":")) {
      let candidate = "\(Substring(part))/\(name)"
      guard fileKind(candidate) == .file else { continue }
      if isExecutable(candidate) { return candidate }
      found = found ?? candidate
    }
    if let found { throw Failure(sentence: "\(found): not executable", status: 126) }
    throw Failure(sentence: "\(name): not found in the enclave's PATH (\(searchPath))", status: 127)
  }

  /// execve(2)'s own errors as sentences: ENOENT for a file that is there means its interpreter is not.
  public static func failure(_ error: SpawnError) -> Failure {
    switch (error.stage, error.errno) {
    case (.exec, ENOENT):
      Failure(sentence: "\(error.program): its interpreter or dynamic loader is not in the enclave", status: 127)
    case (.exec, ENOEXEC):
      Failure(sentence: "\(error.program): not a program that this kernel can execute (ENOEXEC)", status: 126)
    case (.exec, _): Failure(sentence: error.description, status: 126)
    case (.setuid, EINVAL), (.setgid, EINVAL), (.setgroups, EPERM), (.setgroups, EINVAL), (.setgid, EPERM),
      (.setuid, EPERM):
      Failure(
        sentence: "program.user: this user namespace has no such id; run as root, or give your user subordinate ids "
          + "(subuid(5), newuidmap(1)), to start programs as other users (\(error))", status: 125)
    default: Failure(sentence: error.description, status: 125)
    }
  }
}
