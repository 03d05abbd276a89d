import Policy

/// What an enclave is configured to be; every key with its default in docs/configuration.md.
public struct Configuration: Equatable, Sendable {
  public struct Program: Equatable, Sendable {
    /// argv; element 0 is looked up in PATH where it has no slash.
    public var command: [String] = []
    public var environment: [String: String] = [:]
    /// `name`, `uid`, with `:group` or `:gid`.
    public var user: String?
    /// nil: "/".
    public var workingDirectory: String?
    public var stopSignal: Int32 = 15
    public var stopTimeout: Duration = .seconds(10)
    /// What `/dev/shm` holds at most, in bytes.
    public var sharedMemory = 64 << 20
    public var rights = ProgramRights()
  }

  public enum NetworkMode: String, CaseIterable, Sendable {
    case tcp, raw, none
  }

  /// What the redirect is programmed with.
  public enum Firewall: String, CaseIterable, Sendable {
    /// nf_tables where the kernel has it, else legacy xtables.
    case auto
    case nftables, xtables
  }

  /// When a program's connect succeeds in TCP mode.
  public enum ConnectResults: String, CaseIterable, Sendable {
    /// When the host's has; it fails as the host's does. Where the kernel has no TUN device: as below.
    case real = "true"
    /// At once.
    case early
  }

  public enum LogLevel: String, CaseIterable, Sendable, Comparable {
    case debug, info, warning, error

    public static func < (a: Self, b: Self) -> Bool {
      (allCases.firstIndex(of: a) ?? 0) < (allCases.firstIndex(of: b) ?? 0)
    }
  }

  public enum Transport: Equatable, Sendable {
    case vsock
    /// A directory of Unix sockets; a local enclave's is set by `tombolo run`.
    case unix(String)
  }

  public enum HeartbeatMode: String, CaseIterable, Sendable {
    /// Where the kernel started us, as on AWS.
    case auto
    case always, never
  }

  public enum End: String, CaseIterable, Sendable { case reboot, poweroff }

  /// What counts only where the kernel started us.
  public struct Boot: Equatable, Sendable {
    public var heartbeat = HeartbeatMode.auto
    public var heartbeatTimeout: Duration = .seconds(10)
    /// How long to wait for the host's side before giving up.
    public var hostTimeout: Duration = .seconds(30)
    public var end = End.reboot
  }

  public struct Logs: Equatable, Sendable {
    /// Bytes kept while the host is away or slow; 64 KiB to 1 GiB.
    public var buffer = 4 << 20
    /// How long a full buffer may hold the program up while the host is connected; nil without limit.
    public var patience: Duration? = .seconds(1)
    /// How long the end waits for the host to take what is left; nil without limit (while it is connected).
    public var drain: Duration? = .seconds(5)
    public var level = LogLevel.info
  }

  public var hostname = "enclave"
  public var program = Program()
  public var networkMode = NetworkMode.tcp
  public var raw = RawNetwork()
  public var firewall = Firewall.auto
  public var connect = ConnectResults.real
  public var connections = ConnectionLimits(connect: ConnectionLimits.enclaveConnect)
  /// How long open connections have to end when the enclave stops, before the program is told to.
  public var drain: Duration = .zero
  public var transport = Transport.vsock
  /// The CID that stands for the host; nil: 3, then 2.
  public var parentCID: UInt32?
  /// The vsock port at which the host listens.
  public var parentPort = Configuration.defaultPort
  public var boot = Boot()
  /// Ports of the program that the host may reach.
  public var ingressPorts: [UInt16] = []
  /// Those whose program is told who the client is.
  public var proxyProtocols: [(port: UInt16, version: ProxyVersion)] { portSettings.map { ($0.port, $0.version) } }
  var portSettings: [PortSetting] = []
  public var egress = EgressSettings()
  public var logs = Logs()
  public var resolver = ResolverSettings()
  /// Each behind those that it needs.
  public var mounts: [MountSettings] = []
  /// Plain streams of other people's tools.
  public var forwards: [StaticForward] = []
  public var attestation = AttestationSettings()

  /// The one vsock port on each side.
  public static let defaultPort: UInt32 = 7766

  public static let defaultPath = "/etc/tombolo.toml"

  /// The proxy's user and group: above what distributions and systemd give out, below 65534 (nobody).
  public static let proxyID: UInt32 = 61_042
  /// The attestation service's; 61043 is the host side's.
  public static let attestationID: UInt32 = 61_044

  public init() {}

  /// - Parameter file: the name that errors carry.
  public init(toml text: String, file: String) throws(ConfigurationError) {
    self.init()
    try apply(toml: text, file: file)
  }

  /// A file's text.
  /// - Throws: where it is not UTF-8, which TOML is.
  public static func text(_ bytes: [UInt8], file: String, kind: String = "TOML") throws(ConfigurationError) -> String {
    if let text = String(validating: bytes, as: UTF8.self) { return text }
    var line = 1
    for part in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      if String(validating: part, as: UTF8.self) == nil { break }
      line += 1
    }
    throw ConfigurationError(file: file, line: line, problem: "not \(kind): found bytes that are not UTF-8")
  }

  /// Sets what `text` says and leaves the rest: how a command line's own settings go over a file's. Variables are
  /// added to those there, everything else replaces.
  /// - Parameters:
  ///   - isSystemText: see `Document`.
  ///   - relativePaths: a relative working directory is taken from the one that holds so far, as on a command line.
  public mutating func apply(
    toml text: String, file: String, isSystemText: Bool = false, relativePaths: Bool = false
  ) throws(ConfigurationError) {
    var reader = TableReader(try Document(text, file: file, isSystemText: isSystemText))
    if let name = try reader.value("hostname", "a host name of 1 to 64 letters, digits, \"-\" and \".\"", Self.hostname)
    {
      hostname = name
    }
    try reader.table("program") { (table) throws(ConfigurationError) in try readProgram(&table, relativePaths) }
    try reader.table("network") { (table) throws(ConfigurationError) in
      networkMode =
        try table.value("mode", Self.choices(NetworkMode.self)) { NetworkMode(rawValue: $0) } ?? networkMode
      transport =
        try table.value("transport", "\"vsock\" or \"unix:\" and an absolute path", Self.transport) ?? transport
      if let cid = try table.integer("parent_cid", in: 1...0xffff_fffe) { parentCID = UInt32(cid) }
      if let port = try table.integer("parent_port", in: 1...0xffff_fffe) { parentPort = UInt32(port) }
      try raw.read(&table)
      connect =
        try table.value("connect", Self.choices(ConnectResults.self)) { ConnectResults(rawValue: $0) } ?? connect
      drain = try table.value("drain", Self.durationForm, parseDuration) ?? drain
      try readConnections(&table)
      firewall = try table.value("firewall", Self.choices(Firewall.self)) { Firewall(rawValue: $0) } ?? firewall
    }
    try reader.table("dns") { (table) throws(ConfigurationError) in try resolver.read(&table) }
    try reader.tables("forward") { (table) throws(ConfigurationError) in try readForward(&table) }
    try reader.table("ingress") { (table) throws(ConfigurationError) in
      try readPorts(&table)
    }
    try reader.table("egress") { (table) throws(ConfigurationError) in
      try egress.read(&table, isAddition: isSystemText)
    }
    try reader.table("boot") { (table) throws(ConfigurationError) in try readBoot(&table) }
    try reader.table("logs") { (table) throws(ConfigurationError) in try readLogs(&table) }
    try readMounts(&reader)
    try reader.table("attestation") { (table) throws(ConfigurationError) in try attestation.read(&table) }
    program.rights.makesNoDevices = attestation.isWanted && attestation.device == .closed
    try reader.finish()
  }

  private mutating func readProgram(
    _ table: inout TableReader, _ relativePaths: Bool
  ) throws(ConfigurationError) {
    try program.rights.read(&table)
    if let command = try table.strings("command") {
      guard let first = command.first, !first.isEmpty else {
        throw table.error("command", "found no program, expected at least its name")
      }
      program.command = command
    }
    if let variables = try table.environment("env") {
      program.environment.merge(variables) { _, new in new }
    }
    program.user =
      try table.value("user", "name or uid, and after a \":\" group or gid") { Self.user($0) }
      ?? program.user
    let base = program.workingDirectory ?? "/"
    program.workingDirectory =
      try table.value("working_directory", relativePaths ? "a path" : "an absolute path") { path in
        if path.hasPrefix("/") { return path }
        return relativePaths && !path.isEmpty ? (base.hasSuffix("/") ? base : base + "/") + path : nil
      } ?? program.workingDirectory
    program.stopSignal =
      try table.value("stop_signal", "a signal such as \"SIGTERM\"", parseSignal) ?? program.stopSignal
    program.stopTimeout =
      try table.value("stop_timeout", Self.durationForm, parseDuration) ?? program.stopTimeout
    program.sharedMemory =
      try table.value("shared_memory", "a size from \"64KiB\" to \"1024GiB\"") { text in
        parseSize(text).flatMap { $0 >= 65536 ? $0 : nil }
      } ?? program.sharedMemory
  }

  private mutating func readBoot(_ table: inout TableReader) throws(ConfigurationError) {
    boot.heartbeat =
      try table.value("heartbeat", Self.choices(HeartbeatMode.self)) { HeartbeatMode(rawValue: $0) } ?? boot.heartbeat
    boot.heartbeatTimeout =
      try table.value("heartbeat_timeout", Self.durationForm, parseDuration) ?? boot.heartbeatTimeout
    boot.hostTimeout = try table.value("host_timeout", Self.durationForm, parseDuration) ?? boot.hostTimeout
    boot.end = try table.value("at_end", Self.choices(End.self)) { End(rawValue: $0) } ?? boot.end
  }

  private static func transport(_ text: String) -> Transport? {
    if text == "vsock" { return .vsock }
    return text.hasPrefix("unix:/") ? .unix(String(text.dropFirst(5))) : nil
  }

  private mutating func readLogs(_ table: inout TableReader) throws(ConfigurationError) {
    logs.buffer =
      try table.value("buffer", "a size from \"64KiB\" to \"1GiB\"") { text in
        parseSize(text).flatMap { (65536...(1 << 30)).contains($0) ? $0 : nil }
      } ?? logs.buffer
    logs.patience = try table.value("patience", Self.limitForm, Self.limit) ?? logs.patience
    logs.drain = try table.value("drain", Self.limitForm, Self.limit) ?? logs.drain
    logs.level = try table.value("level", Self.choices(LogLevel.self)) { LogLevel(rawValue: $0) } ?? logs.level
  }

  static let durationForm = "a duration such as \"10s\", \"500ms\" or \"2m\""
  static let limitForm = "\"forever\" or " + durationForm

  /// A duration; `.some(nil)` for "forever".
  static func limit(_ text: String) -> Duration?? {
    if text == "forever" { return .some(nil) }
    return parseDuration(text).map { .some($0) } ?? nil
  }

  private static func choices<T: CaseIterable & RawRepresentable>(_: T.Type) -> String where T.RawValue == String {
    T.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")
  }

  /// sethostname(2) takes 64 bytes; the alphabet is RFC 1123's.
  private static func hostname(_ text: String) -> String? {
    let good = text.utf8.allSatisfy { byte in
      (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
        || byte == UInt8(ascii: "-") || byte == UInt8(ascii: ".")
    }
    return good && (1...64).contains(text.utf8.count) ? text : nil
  }

  /// `name` or `uid`, with `:group` or `:gid`.
  static func user(_ text: String) -> String? {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    return (1...2).contains(parts.count) && parts.allSatisfy { !$0.isEmpty } ? text : nil
  }
}
