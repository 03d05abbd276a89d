import ArgumentParser
import CLinux
import EnclaveConfig
import HostGateway
import HostNetwork
import Inet
import LinuxSystem
import LocalRunning
import LogText
import Policy

extension LogFormat: ExpressibleByArgument {}
extension Configuration.NetworkMode: ExpressibleByArgument {}

struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Run a program in a local enclave on this machine.",
    discussion: """
      The program runs unmodified in namespaces of its own: no network but what Tombolo carries, and a throw-away \
      overlay of this machine's files unless --rootfs names others. Its output and exit status are ours (128+n for \
      signal n); 125 means that Tombolo itself failed, 126 that the program cannot be executed, 127 that it is not \
      there. The program can read whatever the user that it runs as can read on this machine (as root: everything), but \
      for /proc, /sys, /dev, /run and /tmp, which the enclave has of its own; --hide covers paths, --show names those that \
      are there, --rootfs gives it other files. It can change none of them, but for those of --rootfs.
      """)

  @Option(help: "Run in this directory as the root file system; writes stay in it.")
  var rootfs: String?
  @Option(
    help: ArgumentHelp(
      "Of this machine's files show this file or directory only; may be repeated. Programs need /usr and often /etc.",
      valueName: "path"))
  var show: [String] = []
  @Option(
    help: ArgumentHelp("Cover this file or directory, which then is empty; may be repeated.", valueName: "path"))
  var hide: [String] = []
  @Option(help: "The enclave's configuration (default: /etc/tombolo.toml of the enclave, which may be absent).")
  var config: String?
  @Option(name: .customShort("e"), help: ArgumentHelp("Set a variable of the program.", valueName: "key=value"))
  var environment: [String] = []
  @Option(
    name: .customShort("w"),
    help: ArgumentHelp(
      "The program's working directory; a relative path is taken from where it would start without this.",
      valueName: "dir"))
  var workingDirectory: String?
  @Option(
    name: .customShort("u"), help: ArgumentHelp("Run the program as this user: name or uid[:group].", valueName: "user")
  )
  var user: String?
  @OptionGroup
  var gateway: GatewayOptions
  @Option(
    name: .customLong("dns-search"),
    help: ArgumentHelp(
      "A domain that short names are looked up in (default: this machine's; \".\": none).", valueName: "domain"))
  var searchDomains: [String] = []
  @Option(
    name: .customLong("dns-option"),
    help: ArgumentHelp(
      "A word for resolv.conf's options, such as ndots:2 (default: this machine's).", valueName: "option"))
  var resolverOptions: [String] = []
  @Option(
    help: ArgumentHelp(
      "The network: tcp (connections end at Tombolo and start anew), raw (every packet; needs root), none.",
      valueName: "mode"))
  var mode: Configuration.NetworkMode?
  @Option(
    help: ArgumentHelp(
      "In raw mode: tun (an address of its own, translated) or nfqueue (this machine's own address, some of its ports).",
      valueName: "way"))
  var capture: RawNetwork.Capture?
  @Option(help: "The enclave's host name (default: enclave).")
  var hostname: String?
  @Option(help: "raw (the program's bytes as they are), text or json (a line each, escaped, with times and source).")
  var logFormat: LogFormat = .raw
  @Flag(name: .customShort("i"), help: "Give the program our standard input (default: /dev/null).")
  var interactive = false
  @Flag(name: .shortAndLong, help: "Say what Tombolo does; twice: every connection.")
  var verbose: Int
  @Flag(help: "Print what the enclave's init would do, in its order, and start nothing.")
  var plan = false
  @Option(help: ArgumentHelp("The tombolo-init to start (default: the one beside this program).", valueName: "file"))
  var `init`: String?
  @Argument(parsing: .postTerminator, help: "The program and its arguments, after \"--\".")
  var command: [String] = []

  func run() throws {
    do {
      let request = try request()
      let run = try LocalRun(request, report: say)
      throw ExitCode(try run.run())
    } catch let code as ExitCode {
      throw code
    } catch {
      throw fail("\(error)")
    }
  }

  private func request() throws -> LocalRunRequest {
    var file: (name: String, text: String)?
    if let config {
      file = (config, try Configuration.text(try readFile(config), file: config))
      // Said now, where the file and its name are at hand, and not by init.
      _ = try Configuration(toml: file?.text ?? "", file: config)
    }
    var settings = try gateway.settings()
    let published = settings.published
    let root = try rootfs.map { path in
      guard fileKind(path) == .directory, let real = realPath(path) else {
        throw Misuse("--rootfs: \(path) is not a directory")
      }
      do throws(SystemError) {
        _ = try openFile(real, O_RDONLY | O_DIRECTORY)
      } catch {
        throw Misuse("--rootfs: this user cannot read \(path), which somebody else owns (\(error))")
      }
      return real
    }
    let files = try files()
    var configuration = try Configuration(toml: file?.text ?? "", file: config ?? "")
    var overrides = try overrides(published, isRaw: (mode ?? configuration.networkMode) == .raw)
    try configuration.apply(toml: overrides, file: "command line", isSystemText: true, relativePaths: true)
    if let mode { configuration.networkMode = mode }
    if let capture {
      guard configuration.networkMode == .raw else { throw Misuse("--capture: expected --mode raw with it") }
      configuration.raw.capture = capture
    }
    try gateway.check(raw: configuration.networkMode == .raw)
    if let defect = configuration.defect {
      throw ConfigurationError(file: config ?? "command line", problem: defect)
    }
    var lifted = try gateway.destinations().allowed
    // In raw mode the program itself asks the server that it was given, so that one is named as well. Where rules here have
    // names, the machine's side asks it.
    if configuration.networkMode == .raw, !settings.destinations.rules.hasNames, let server = settings.nameServer,
      let whole = IPPrefix(server, UInt8(clamping: server.bitCount))
    {
      let rules = [
        DestinationRule(whole, ports: 53...53), DestinationRule(.prefix(whole), ports: 53...53, transport: .udp),
      ]
      lifted += rules
      settings.destinations.allowed += rules
    }
    // What is denied on both sides is allowed on both.
    overrides +=
      "[egress]\nallow = [\(lifted.map { tomlString("\($0)") }.joined(separator: ", "))]\n"
    if configuration.networkMode == .raw, configuration.raw.capture == .nfqueue {
      try gateway.refuseHostPorts()
      let made = try RawMode.sharedAddressGateway(published, configuration, isQuiet: verbose == 0)
      overrides += try RawMode.configure(made, &configuration)
      settings.rawGateway = made
    } else if configuration.networkMode == .raw {
      let made = try RawMode.rawGateway(
        published, RawMode.ranges(configuration.raw), configuration.firewall, hostPorts: gateway.hostPorts(),
        isQuiet: verbose == 0)
      overrides += try RawMode.configure(made, &configuration)
      settings.rawGateway = made
    } else if let mode {
      overrides += "[network]\nmode = \"\(mode.rawValue)\"\n"
    }
    settings.logFormat = logFormat
    settings.verbose = verbose > 1
    settings.name = configuration.hostname
    var request = LocalRunRequest(initPath: try initPath(), overrides: overrides, host: settings)
    request.rootfs = root
    request.configuration = file
    request.passesInput = interactive
    request.files = files
    request.printsPlan = plan
    request.explainsUsers = verbose > 0 || ![nil, "root", "0", "root:root", "0:0"].contains(configuration.program.user)
    return request
  }

  private func files() throws -> ShownFiles? {
    guard !show.isEmpty || !hide.isEmpty else { return nil }
    guard rootfs == nil else {
      throw Misuse(
        "\(show.isEmpty ? "--hide" : "--show"): expected no --rootfs, which shows none of this machine's files")
    }
    return try ShownFiles(show: show, hide: hide, directory: currentDirectory() ?? "/") { fileKind($0) }
  }

  private func initPath() throws -> String {
    if let path = self.`init` {
      guard fileKind(path) == .file else { throw Misuse("--init: \(path) is not a file") }
      return path
    }
    let own = try readLink("/proc/self/exe")
    let beside = own.lastIndex(of: "/").map { own[...$0] + "tombolo-init" } ?? "tombolo-init"
    guard fileKind(String(beside)) == .file else {
      throw Misuse("\(beside) is not there; --init FILE names another tombolo-init")
    }
    return String(beside)
  }

  /// Without --rootfs the program starts where we were started, and so does a path from there. What the image's own
  /// configuration says only the enclave's init knows, which takes a relative path from it.
  private func resolved(_ directory: String) -> String {
    guard rootfs == nil, !directory.isEmpty, !directory.hasPrefix("/"), let current = currentDirectory() else {
      return directory
    }
    return (current == "/" ? "" : current) + "/" + directory
  }

  /// The command line in the configuration's own language.
  private func overrides(_ published: [PublishedPort], isRaw: Bool) throws -> String {
    var lines: [String] = []
    if let hostname { lines.append("hostname = \(tomlString(hostname))") }
    lines.append("[program]")
    if !command.isEmpty { lines.append("command = [\(command.map(tomlString).joined(separator: ", "))]") }
    if let user { lines.append("user = \(tomlString(user))") }
    if let workingDirectory { lines.append("working_directory = \(tomlString(resolved(workingDirectory)))") }
    let variables = try environment.map { text in
      // By bytes: with a combining mark behind it "=" is not a Character.
      guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")), equals != text.startIndex else {
        throw Misuse("-e: found \"\(text)\", expected KEY=VALUE")
      }
      return (String(text[..<equals]), String(text[text.utf8.index(after: equals)...]))
    }
    if !variables.isEmpty {
      lines.append("[program.env]")
      let unique = Dictionary(variables) { _, last in last }
      lines += unique.sorted { $0.key < $1.key }.map { "\(tomlString($0.key)) = \(tomlString($0.value))" }
    }
    if !searchDomains.isEmpty || !resolverOptions.isEmpty { lines.append("[dns]") }
    func list(_ words: [String]) -> String { "[\(words.map(tomlString).joined(separator: ", "))]" }
    if !searchDomains.isEmpty { lines.append("search = \(list(searchDomains == ["."] ? [] : searchDomains))") }
    if !resolverOptions.isEmpty { lines.append("options = \(list(resolverOptions))") }
    lines.append("[ingress]")
    // In raw mode of TCP; datagrams are the host side's word alone there (docs/raw-mode.md).
    let ports = published.filter { $0.transport == .tcp || !isRaw }.map { "\($0.enclavePort)" }
    lines.append("ports = [\(ports.joined(separator: ", "))]")
    // As under `docker run`: the reader of our output may be slow, and loses nothing.
    lines += ["[logs]", "patience = \"forever\"", "drain = \"forever\""]
    lines.append("level = \"\(verbose == 0 ? "warning" : verbose == 1 ? "info" : "debug")\"")
    return lines.joined(separator: "\n") + "\n"
  }
}

/// Something on the command line that cannot be meant.
struct Misuse: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}
