import ArgumentParser
import Digests
import EnclaveConfig
import HostStatus
import LinuxSystem
import Policy
import SystemText
import Wire

struct CheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check",
    abstract: "Read a configuration as the enclave would, and say what may leave.",
    discussion: """
      Prints the effective policy, a line each, and its digest: two configurations with the same one allow the same. Ends \
      with status 125 where the file has an error, with its line. With --would it prints what decides instead, for each, and \
      ends with status 1 where one of them is denied. With --seen and --suggest it reads a log and no configuration. See \
      docs/policy.md.
      """)

  @Option(
    help: ArgumentHelp(
      "Whether this may be reached: api.example.com:443, 10.0.0.1:5432, udp://10.0.0.1:53, icmp://10.0.0.1; a name alone: whether it may be asked for. May be repeated.",
      valueName: "destination"))
  var would: [String] = []
  @Option(name: .customLong("as"), help: "enclave (a configuration) or host (the rules of `--policy`).")
  var side: Side = .enclave
  @Option(
    help: ArgumentHelp(
      "Print what was used and what was denied, as this log tells it, in whichever form it is; - for standard input.",
      valueName: "log"))
  var seen: String?
  @Option(
    help: ArgumentHelp(
      "Print a policy that allows exactly what was used, as this log tells it; - for standard input.",
      valueName: "log"))
  var suggest: String?
  @Argument(help: ArgumentHelp("The configuration, or the host's policy.", valueName: "file"))
  var file: String?

  enum Side: String, ExpressibleByArgument, CaseIterable { case enclave, host }

  func run() throws {
    do {
      try check()
    } catch let code as ExitCode {
      throw code
    } catch {
      throw fail("\(error)")
    }
  }

  private func check() throws {
    if let log = seen ?? suggest {
      guard seen == nil || suggest == nil, file == nil, would.isEmpty else {
        throw Misuse(
          "--seen and --suggest read a log and nothing else: expected one of them, without a file and --would")
      }
      return try read(log)
    }
    guard let file else { throw Misuse("expected a file, --seen or --suggest") }
    let text = try Configuration.text(readFile(file), file: file)
    var configuration = Configuration()
    switch side {
    case .enclave: configuration = try Configuration(toml: text, file: file)
    case .host: configuration.egress = try HostPolicyFile(toml: text, file: file).egress
    }
    if let defect = configuration.defect {
      throw ConfigurationError(file: file, problem: defect)
    }
    guard would.isEmpty else {
      let answers = try would.map { try answer($0, configuration) }
      if answers.contains(false) { throw ExitCode(1) }
      return
    }
    let lines = configuration.policyLines
    for line in lines { print(line) }
    print("digest \(hexadecimal(lineDigest(lines)))")
  }

  private func read(_ path: String) throws {
    let log = try SeenLog(reading: path)
    if log.canBeForged {
      say("\(path): this log has the form \"raw\", in which the program can have written any of these lines itself")
    }
    if seen != nil {
      for line in log.lines { print(HostStatus.printable(line)) }
    } else {
      print(log.suggestion(from: HostStatus.printable(shownText(path))), terminator: "")
    }
  }

  private func answer(_ text: String, _ configuration: Configuration) throws -> Bool {
    let question: PolicyQuestion
    do throws(DestinationRuleError) {
      question = try PolicyQuestion(text)
    } catch {
      throw Misuse("--would: found \"\(text)\", \(error)")
    }
    let found: (isAllowed: Bool, reason: String)
    switch configuration.networkMode {
    case .none: found = (false, "network.mode is \"none\"")
    case .tcp, .raw: found = question.answer(Destinations(configuration.egress.rules))
    }
    print("\(text): \(found.isAllowed ? "allowed" : "denied"): \(found.reason)")
    return found.isAllowed
  }
}
