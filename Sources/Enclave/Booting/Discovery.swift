import BootPlanning
import CLinux
import Digests
import EnclaveConfig
import Inet
import LinuxSystem
import Relaying
import SystemText
import Wire

// Theory of operation.
//
// A start is found out in the order of `Question`. For a kernel's init `prepare` makes first what that needs: devices, the
// console, modules, random numbers. Then the configuration is read where its file is at this moment (below /rootfs, in the
// tree of a local enclave); it says how the host is found. The session with the host is opened before any step of the plan:
// neither vsock nor Unix sockets need a network, and nobody else in the enclave can be first.

/// What a start has found, and the first stream to the host.
public final class FoundStart {
  public let facts: StartFacts
  /// Whether there is a configuration file.
  public let hasFile: Bool
  /// Of the effective policy.
  public let policyDigest: [UInt8]
  /// Opens this boot's sessions.
  public let hello: Hello
  /// Where the host is when the plan has been carried out.
  public let host: StreamTarget
  private var session: (stream: FileReference, early: [UInt8])?
  /// Sentences for the log.
  public let notes: [String]
  /// What was done before there was a plan.
  public let prepared: [BootStep]
  public let answered: [Question]

  init(
    _ facts: StartFacts, hasFile: Bool, policyDigest: [UInt8], hello: Hello, host: StreamTarget,
    session: (stream: FileReference, early: [UInt8]),
    notes: [String], prepared: [BootStep], answered: [Question]
  ) {
    self.facts = facts
    self.hasFile = hasFile
    self.policyDigest = policyDigest
    self.hello = hello
    self.host = host
    self.session = session
    self.notes = notes
    self.prepared = prepared
    self.answered = answered
  }

  /// Gives the session away: who ends it closes its stream, and the host lets the next one in.
  public func takeSession() throws -> (stream: FileReference, early: [UInt8]) {
    guard let taken = session else { throw HostQuestions.Failure(description: "the session has been taken already") }
    session = nil
    return taken
  }
}

/// Finds out what a start has to know.
public final class Discovery {
  public let kind: StartKind
  private let arguments: InitArguments
  private let document: LocalDocument.Content?
  /// Where the enclave's files are, until they are the root.
  private let root: String
  private var notes: [String] = []
  private var prepared: [BootStep] = []
  private var answered: [Question] = []
  private var processors = 1
  private var hasSecurityModule = true
  /// What the host has given, for the text that is measured.
  private var given: [String] = []
  private var hasFile = false
  /// As far as it is known: what the end of a start that failed needs.
  public private(set) var configuration = Configuration()

  /// Whether it is known how the host is reached.
  public var hasConfiguration: Bool { !answered.isEmpty }

  /// Under another init.
  public convenience init(child arguments: InitArguments) { self.init(.child, arguments, nil, root: "") }

  /// - Parameter document: what `tombolo run` wrote.
  public convenience init(local document: LocalDocument.Content) {
    self.init(.local(document.local), InitArguments(), document, root: document.local.rootfs ?? "")
  }

  /// By a kernel, of an image that has /rootfs or has not. Nobody meant what is on its command line for us.
  public convenience init(kernel hasRootfs: Bool) {
    self.init(.kernel(hasRootfs: hasRootfs), InitArguments(), nil, root: hasRootfs ? "/rootfs" : "")
  }

  private init(_ kind: StartKind, _ arguments: InitArguments, _ document: LocalDocument.Content?, root: String) {
    self.kind = kind
    self.arguments = arguments
    self.document = document
    self.root = root
  }

  /// For `--plan`: what is known without asking the host, on the machine where it is printed.
  public static func outline(
    _ kind: InitArguments.PlanKind, _ arguments: InitArguments, _ document: LocalDocument.Content?
  ) throws -> StartFacts {
    let discovery: Discovery
    if let document {
      discovery = Discovery(local: document)
    } else {
      switch kind {
      case .child: discovery = Discovery(child: arguments)
      // Where it runs in such an image's first root the configuration is there; elsewhere it is at its usual place.
      case .kernel:
        let isThere = fileKind("/rootfs") == .directory && arguments.configurationPath == nil
        discovery = Discovery(.kernel(hasRootfs: true), arguments, nil, root: isThere ? "/rootfs" : "")
      case .kernelWithoutRootfs: discovery = Discovery(.kernel(hasRootfs: false), arguments, nil, root: "")
      }
    }
    _ = try discovery.read()
    discovery.processors = processorCount()
    return discovery.facts
  }

  /// What must be there before anything can be asked.
  public func prepare() throws {
    var found: [String] = []
    do {
      var runner = BootRunner { found.append($0) }
      defer { prepared = runner.done }
      try runner.run(StartPlan.early(kind))
    }
    notes += found
  }

  /// Asks everything there is to ask.
  public func find() throws -> FoundStart {
    let digest = try read()
    let policy = lineDigest(configuration.policyLines)
    let hello = BootIdentity.own.hello(digest, policy: policy)
    var host = Self.host(document, configuration)
    var session: (stream: FileReference, early: [UInt8])?
    var offer: RuntimeOffer?
    for question in Question.rest(kind, configuration) {
      switch question {
      case .configuration, .contract: break
      case .heartbeat(let cid, let timeout): try ParentSearch.beat(cid: cid, timeout: timeout)
      case .host(let cid, let port, let timeout):
        let found = try ParentSearch.find(cid: cid, port: port, timeout: timeout)
        host = StreamTarget(.vsock(cid: found, port: port))
      case .session(let timeout):
        let opened = try HostQuestions.session(host, hello, timeout: timeout)
        session = (opened.stream, opened.early)
        offer = opened.offer
        try refuse(opened.offer)
      case .runtime(_, _, let timeout):
        guard let offer, offer.hasArguments || offer.hasVariables else { break }
        let taken = try HostQuestions.runtime(host, token: BootIdentity.own.secrets.session, timeout: timeout)
        // The answer counts, not what was announced.
        try refuse(RuntimeOffer(taken))
        try take(taken)
      case .addresses(_, _, _, let timeout):
        let asked = configuration.raw
        configuration.raw = try HostQuestions.addresses(
          host, token: BootIdentity.own.secrets.session, configuration.raw, timeout: timeout)
        notes.append("the host's addresses: \(configuration.raw.givenAddresses)")
        given += Self.lines(asked, configuration.raw)
      // The rules name the queues, so their number is settled before them.
      case .processors: processors = processorCount()
      }
      answered.append(question)
    }
    guard let session else { throw HostQuestions.Failure(description: "no session with the host was asked for") }
    hasSecurityModule = fileKind(EnclaveLayout.securityModule) != nil
    // Its directory is elsewhere when the enclave's root is the root.
    if kind.isLocal { host = StreamTarget(.unix(EnclaveLayout.hostSocket(in: EnclaveLayout.transportDirectory))) }
    return FoundStart(
      facts, hasFile: hasFile, policyDigest: policy, hello: hello, host: host, session: session, notes: notes,
      prepared: prepared, answered: answered)
  }

  private var facts: StartFacts {
    var facts = StartFacts(kind, configuration, defaultDirectory: document?.defaultDirectory)
    facts.processors = processors
    facts.hasSecurityModule = hasSecurityModule
    facts.given = given
    return facts
  }

  /// - Throws: where the host gives what the image does not take.
  private func refuse(_ offer: RuntimeOffer) throws(HostQuestions.Failure) {
    for (isThere, isTaken, word, option) in [
      (offer.hasArguments, configuration.takesArguments, "arguments", "--enclave-argument"),
      (offer.hasVariables, configuration.takesVariables, "variables", "--enclave-variable"),
    ] where isThere && !isTaken {
      throw HostQuestions.Failure(
        description: "the host gives \(word) (\(option)), which this image does not take: expected \"\(word)\" in "
          + "attestation.runtime, or a host that gives none")
    }
  }

  private func take(_ taken: RuntimeParameters) throws(HostQuestions.Failure) {
    guard taken.arguments.isEmpty || !configuration.program.command.isEmpty else {
      throw HostQuestions.Failure(
        description: "the host gives arguments, and the image has no program that they could be of (program.command)")
    }
    configuration.program.command += taken.arguments.map { systemText($0) }
    for variable in taken.variables { configuration.program.environment[variable.name] = systemText(variable.value) }
    let names = taken.variables.map(\.name).joined(separator: ", ")
    notes.append(
      "the host gives \(taken.arguments.count) arguments, and \(names.isEmpty ? "no variables" : "the variables \(names)")"
    )
    given += taken.lines
  }

  /// What of the link the host has chosen.
  private static func lines(_ asked: RawNetwork, _ raw: RawNetwork) -> [String] {
    var lines: [String] = []
    if asked.asksForAddress { lines.append("address \(raw.address)") }
    if asked.asksForAddress6, !raw.lacksIPv6 { lines.append("address \(raw.address6)") }
    return lines + ["mtu \(raw.mtu)"]
  }

  private func read() throws -> ConfigurationDigest {
    var reading = try ConfigurationReading(arguments, document, root: root)
    configuration = reading.configuration
    if kind.isKernel {
      try reading.addContract()
      try reading.unwrap(root: root)
      configuration = reading.configuration
    }
    hasFile = reading.hasFile
    if let defect = facts.defect { throw ConfigurationError(file: reading.file, problem: defect) }
    answered += Question.first(kind)
    return reading.digest
  }

  /// Where the host is now; of vsock until it has been looked for.
  private static func host(_ document: LocalDocument.Content?, _ configuration: Configuration) -> StreamTarget {
    if let document { return StreamTarget(.unix(EnclaveLayout.hostSocket(in: document.local.transport))) }
    switch configuration.transport {
    case .unix(let directory): return StreamTarget(.unix(EnclaveLayout.hostSocket(in: directory)))
    case .vsock:
      return StreamTarget(
        .vsock(cid: configuration.parentCID ?? Question.candidates.first ?? 2, port: configuration.parentPort))
    }
  }
}
