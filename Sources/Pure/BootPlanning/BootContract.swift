import EnclaveConfig
import SystemText

/// `/cmd` and `/env` of AWS's first ramdisk: one entry a line, any bytes but the NUL, which no argument can have. What the
/// configuration says wins, except that it need not say anything.
public struct BootContract: Sendable {
  public static let commandFile = "/cmd"
  public static let environmentFile = "/env"
  public static let files = [commandFile, environmentFile]

  /// nil where there is no `/cmd`.
  public let command: [String]?
  /// `KEY=VALUE` each.
  public let environment: [String]

  public struct Mistake: Error, CustomStringConvertible {
    public var description: String
  }

  /// - Parameters: the files' bytes, nil for one that is not there.
  public init(command: [UInt8]?, environment: [UInt8]?) throws(Mistake) {
    if let command { self.command = try Self.lines(command, Self.commandFile) } else { self.command = nil }
    self.environment = try Self.lines(environment ?? [], Self.environmentFile)
    for entry in self.environment where Self.equals(in: entry) == nil {
      throw Mistake(description: "/env: found \"\(entry)\", expected KEY=VALUE")
    }
  }

  /// Behind a name; by bytes, since with a combining mark behind it "=" is not a Character.
  private static func equals(in entry: String) -> String.Index? {
    entry.utf8.firstIndex(of: UInt8(ascii: "=")).flatMap { $0 == entry.startIndex ? nil : $0 }
  }

  private static func lines(_ bytes: [UInt8], _ file: String) throws(Mistake) -> [String] {
    guard !bytes.contains(0) else { throw Mistake(description: "\(file): found a NUL byte, expected none") }
    return bytes.split(separator: UInt8(ascii: "\n")).map { systemText(Array($0)) }
  }

  public func apply(to program: inout Configuration.Program) throws(Mistake) {
    if program.command.isEmpty {
      if command?.isEmpty == true { throw Mistake(description: "/cmd is empty: there is no program to start") }
      program.command = command ?? []
    }
    for entry in environment {
      guard let equals = Self.equals(in: entry) else { continue }
      let name = String(entry[..<equals])
      if program.environment[name] == nil {
        program.environment[name] = String(entry[entry.utf8.index(after: equals)...])
      }
    }
  }
}

/// An image whose ENTRYPOINT is tombolo-init, as docs/boot.md has it for nitro-cli: what that one would do is done
/// already, by us, and of its command line the program and `--config` count.
public enum Entrypoint {
  /// - Returns: the command line of a tombolo-init that starts an enclave; nil where the program is something else.
  public static func arguments(of command: [String]) throws(InitArguments.Misuse) -> InitArguments? {
    guard let first = command.first, first == "tombolo-init" || first.hasSuffix("/tombolo-init") else { return nil }
    let arguments = try InitArguments(Array(command.dropFirst()))
    return arguments.role == .enclave ? arguments : nil
  }

  /// What was known of the program goes on counting where that command line's configuration does not say.
  public static func complete(_ program: inout Configuration.Program, with known: Configuration.Program) {
    for (name, value) in known.environment where program.environment[name] == nil { program.environment[name] = value }
    if program.user == nil { program.user = known.user }
    if program.workingDirectory == nil { program.workingDirectory = known.workingDirectory }
  }
}
