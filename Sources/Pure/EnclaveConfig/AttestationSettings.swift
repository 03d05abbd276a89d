/// What programs of the enclave get of the Nitro Secure Module: `[attestation]`.
public struct AttestationSettings: Equatable, Sendable {
  /// Who may open `/dev/nsm` besides.
  public enum Device: Equatable, Sendable {
    /// Nobody: it has no name any more.
    case closed
    /// Everybody.
    case open
    /// Root, and this group of the enclave.
    case group(String)
  }

  /// What follows where the machine has no security module. A local enclave has none, and one is simulated.
  public enum Missing: String, CaseIterable, Sendable { case end, simulate }

  /// What the host may give at run time.
  public enum Given: String, CaseIterable, Sendable { case addresses, arguments, variables }

  /// There is such a section: the service is there, and what the host gives is measured.
  public var isWanted = false
  /// Users of the enclave, names or ids; nil: all.
  public var callers: [String]?
  /// TCP ports of 127.0.0.1.
  public var ports: [UInt16] = []
  public var device = Device.closed
  /// Registers that callers may extend and lock.
  public var registers: [UInt16] = []
  /// Requests to the device, a second and caller.
  public var rate: UInt32 = 100
  public var runtime: [Given] = []
  /// Where what the host gave is measured.
  public var runtimeRegister: UInt16 = 16
  public var missing = Missing.end
  /// Where a document is that is always valid; below /run.
  public var document: String?
  /// Made at the start; the first one's public half is in every document that names no other.
  public var keys: [Key] = []

  static let portLimit = 8
  static let callerLimit = 256

  public init() {}

  mutating func read(_ table: inout TableReader) throws(ConfigurationError) {
    isWanted = true
    if try table.hasWord("all", "callers") {
      callers = nil
    } else if let list = try table.strings("callers") {
      guard (1...Self.callerLimit).contains(list.count), !list.contains(where: { $0.isEmpty || $0.utf8.contains(0x3a) })
      else {
        throw table.error("callers", "expected \"all\", or 1 to \(Self.callerLimit) users by name or uid")
      }
      callers = list
    }
    if let list = try table.integers("listen", in: 1...65535) {
      guard list.count <= Self.portLimit, Set(list).count == list.count else {
        throw table.error("listen", "found \(list.count) ports, expected at most \(Self.portLimit), each once")
      }
      ports = list.map { UInt16($0) }
    }
    device =
      try table.value("device", "\"closed\", \"open\", or the name or gid of a group", Self.device) ?? device
    if let list = try table.integers("pcrs", in: 16...31) {
      guard Set(list).count == list.count else { throw table.error("pcrs", "found a number twice, expected each once") }
      registers = list.map { UInt16($0) }
    }
    if let rate = try table.integer("rate", in: 1...10_000) { self.rate = UInt32(rate) }
    if try table.hasWord("none", "runtime") {
      runtime = []
    } else if let list = try table.values(
      "runtime", { (text) throws(RuntimeWordError) in try Given(word: text) })
    {
      runtime = list
    }
    if let index = try table.integer("runtime_pcr", in: 16...31) { runtimeRegister = UInt16(index) }
    missing =
      try table.value("without_module", "\"end\" or \"simulate\"") { Missing(rawValue: $0) } ?? missing
    document =
      try table.value(
        "document", "an absolute path below /run without \".\" and \"..\", not in /run/tombolo", Self.documentPath)
      ?? document
    try readKeys(&table)
    if callers != nil, !ports.isEmpty {
      throw table.error(
        "listen",
        "found ports together with a list in attestation.callers, which is for the socket alone: nobody can tell who a "
          + "client on 127.0.0.1 is")
    }
    if registers.contains(runtimeRegister) {
      throw table.error(
        "pcrs", "found \(runtimeRegister), which is attestation.runtime_pcr: it is locked before a program starts")
    }
  }

  private static func documentPath(_ text: String) -> String? {
    guard !text.hasSuffix("/"), let path = MountSettings.path(text), path.hasPrefix("/run/"),
      !MountSettings.isReserved(path)
    else { return nil }
    return path
  }

  private static func device(_ text: String) -> Device? {
    switch text {
    case "closed": .closed
    case "open": .open
    default: text.isEmpty || text.utf8.contains(0x3a) ? nil : .group(text)
    }
  }
}

struct RuntimeWordError: Error, CustomStringConvertible {
  var description: String { "expected \"addresses\", \"arguments\" or \"variables\"" }
}

extension AttestationSettings.Given {
  init(word: String) throws(RuntimeWordError) {
    guard let given = Self(rawValue: word) else { throw RuntimeWordError() }
    self = given
  }
}

extension Configuration {
  /// What the host may give for the program; nothing without a section `[attestation]`, which measures it.
  public var takesArguments: Bool { attestation.isWanted && attestation.runtime.contains(.arguments) }
  public var takesVariables: Bool { attestation.isWanted && attestation.runtime.contains(.variables) }

  /// Whether the attestation service is there.
  public var needsAttestation: Bool { attestation.isWanted }

  /// Why keys of [attestation] and others cannot go together.
  var attestationDefect: String? {
    guard attestation.isWanted else { return nil }
    if networkMode == .raw, raw.asksHost, !attestation.runtime.contains(.addresses) {
      return "attestation.runtime: the host gives the enclave's addresses (network.address), expected "
        + "\"addresses\" in it"
    }
    if attestation.device == .closed, let set = program.rights.capabilities, set & ProgramRights.mknod != 0 {
      return "program.capabilities: found MKNOD, with which the program can make /dev/nsm anew; expected "
        + "attestation.device = \"open\", or no MKNOD"
    }
    return nil
  }
}
