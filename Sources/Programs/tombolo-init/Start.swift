import BootPlanning
import Booting
import CLinux
import EnclaveConfig
import EventLoop
import LinuxSystem
import LogForwarding
import Logging
import Proxying
import Relaying
import Roles
import ServiceControl
import Supervision
import Wire

/// Carries out a start: makes the plan of what was found, takes its steps, and brings its services up. Returns when the loop
/// ends, which it does by ending the process or the machine.
final class Start {
  private let found: FoundStart
  private let plan: StartPlan
  private let signals: FileReference
  private let target = EnclaveLogTarget()
  private let born = clinux_started_at()

  /// The program's standard input; nil for /dev/null.
  var input: FileReference?
  /// Users and groups from 0 to below this exist.
  var userCount = UInt32.max
  /// Called when the program, asked to stop as a job of a shell, has stopped.
  var onProgramStopped: (() -> Void)?

  init(_ found: FoundStart, _ signals: FileReference) {
    self.found = found
    plan = StartPlan(found.facts)
    self.signals = signals
  }

  /// - Parameter finished: ends the process, or the machine.
  func run(finished: @escaping (UInt8) -> Void) throws {
    let notes = Notes()
    notes.sentences = found.notes
    var runner = BootRunner { notes.sentences.append($0) }
    // Its mistakes are said where there is no log yet: thrown.
    try runner.run(plan.steps)
    try confineSupervisor(
      found.facts.configuration.program.rights, isLocal: found.facts.kind.isLocal,
      mounts: !found.facts.configuration.mounts.volumes.isEmpty)
    try serve(runner, notes.sentences, finished)
  }

  /// Collects what steps say until there is a log.
  private final class Notes {
    var sentences: [String] = []
  }

  private func serve(
    _ runner: BootRunner, _ notes: [String], _ finished: @escaping (UInt8) -> Void
  ) throws {
    let configuration = configurationInTheEnclave()
    let loop = try EventLoop()
    let forwarder = LogForwarder(
      loop: loop, target: found.host, token: BootIdentity.own.secrets.session,
      settings: .init(
        capacity: configuration.logs.buffer, patience: configuration.logs.patience, drain: configuration.logs.drain))
    let logger = Logger(label: "tombolo-init") { [target, level = configuration.logs.level] _ in
      EnclaveLogHandler(target: target, logLevel: Logger.Level(level))
    }
    target.forwarder = forwarder
    if found.facts.kind.isKernel { target.console = true }
    forwarder.onBegin = { [target] in target.release() }
    // Whatever goes wrong from here on, what was found before stands above it.
    defer { target.release() }
    for note in notes { logger.info("\(note)") }
    if configuration.networkMode != .none, configuration.egress.isUnsaid {
      // Who starts a local enclave without a configuration has left no policy out of it.
      logger.log(
        level: found.facts.kind.isLocal && !found.hasFile ? .info : .warning,
        "the configuration has no section [egress], so the program may reach everything but what is denied without a rule (docs/policy.md)"
      )
    }
    if plan.steps.contains(.simulateSecurityModule) {
      logger.warning("there is no security module: one in memory takes its place, and nobody signs its documents")
    }
    logger.info("policy: \(hexadecimal(found.policyDigest))")
    let trace = configuration.logs.level == .debug ? StartTrace(plan.services) { logger.debug("step: \($0)") } : nil
    trace?.begin(found.prepared, found.answered, runner.done)

    let session = try hostSession(loop) { logger.log(level: .warning, "\($0)") }
    var services = EnclaveServices(
      configuration, plan.services.compactMap { if case .start(let service) = $0 { service } else { nil } })
    services.proxyHandOver = handOver(configuration, runner.sockets)
    services.keeperSockets = runner.sockets.keeper
    services.dnsClient = runner.dnsClient.map {
      DNSClientHandOver(executable: $0.executable, certificates: $0.certificates, link: $0.clientEnd)
    }
    services.attestation = runner.attestation.map { files in
      var made = AttestationHandOver(
        executable: files.executable, module: files.module, listeners: files.listeners, callers: files.callers,
        runtime: RuntimeText.text(found.facts.given))
      made.keys = files.keys
      made.publicHalves = files.publicHalves
      made.document = files.document
      return made
    }
    services.programInput = input
    services.isLocal = found.facts.kind.isLocal
    services.userCount = userCount
    let supervision = try EnclaveSupervision(
      loop: loop, born: born, services: services, forwarder: forwarder, session: session, signals: signals,
      log: { level, sentence in logger.log(level: Logger.Level(level), "\(sentence)") }, finished: finished)
    supervision.onProgramStopped = onProgramStopped
    if let trace {
      supervision.onStateChange = { index, name, state in
        logger.debug("\(name): \(state)")
        trace.changed(index, state)
      }
    }
    let clock = ClockSource(loop) { logger.log(level: $0, "\($1)") }
    if found.facts.kind.isKernel { clock.start() }
    supervision.start()
    try withExtendedLifetime((supervision, clock, session)) { try loop.run() }
  }

  /// Nobody but what it gives holds the stream.
  private func hostSession(_ loop: EventLoop, log: @escaping (String) -> Void) throws -> HostSession {
    let opened = try found.takeSession()
    return try HostSession(
      loop: loop, target: found.host, hello: found.hello, stream: opened.stream, early: opened.early, log: log)
  }

  /// Where the program starts is only known when its root is there.
  private func configurationInTheEnclave() -> Configuration {
    var configuration = found.facts.configuration
    if configuration.program.workingDirectory == nil, let directory = found.facts.defaultDirectory,
      fileKind(directory) == .directory
    {
      configuration.program.workingDirectory = directory
    }
    return configuration
  }

  private func handOver(_ configuration: Configuration, _ sockets: ProxySockets) -> ProxyHandOver? {
    guard configuration.hasProxy else { return nil }
    let secrets = BootIdentity.own.secrets
    var settings = ProxySettings(hostTarget: found.host, proxyToken: secrets.proxy, hostToken: secrets.host)
    settings.ingressPorts = configuration.ingressPorts
    for entry in configuration.proxyProtocols {
      settings.proxyProtocols[entry.port] = entry.version == .v1 ? .v1 : .v2
    }
    settings.forwards = configuration.forwards
    settings.drain = configuration.drain
    settings.kept = configuration.volumeServers
    settings.egress = configuration.egress.rules
    settings.sni = configuration.egress.sni
    settings.names = configuration.resolver.names
    settings.connections = configuration.connections
    settings.verbose = configuration.logs.level == .debug
    settings.reportsUse = configuration.logs.level <= .info
    if configuration.networkMode == .raw {
      // There each packet would have to be looked up in a table of flows, for an image that has no rules.
      if configuration.egress.isUnsaid { settings.reportsUse = settings.verbose }
      let raw = configuration.raw
      settings.tunnelAddresses = [raw.address] + (raw.lacksIPv6 ? [] : [raw.address6])
      settings.tunnelMTU = UInt16(clamping: raw.mtu)
    }
    var made = ProxyHandOver(settings)
    made.descriptors = sockets.descriptors
    return made
  }
}

/// Says what a start has done, in the words of its plan.
private final class StartTrace {
  private let services: [ServiceStep]
  private let say: (String) -> Void
  /// Those that have run.
  private var started: [Bool]
  private var proxyWasReady = false

  init(_ services: [ServiceStep], say: @escaping (String) -> Void) {
    self.services = services
    started = [Bool](repeating: false, count: services.count)
    self.say = say
  }

  func begin(_ prepared: [BootStep], _ answered: [Question], _ done: [BootStep]) {
    for step in prepared { sayLines(step.description) }
    for question in answered { sayLines(question.description) }
    for step in done { sayLines(step.description) }
    for case .forwardLog(let bytes) in services { sayLines(ServiceStep.forwardLog(bytes: bytes).description) }
  }

  /// - Parameter index: among those that are started.
  func changed(_ index: Int, _ state: ServiceState) {
    guard state == .up || state == .ready else { return }
    var place = 0
    for case .start(let service) in services {
      defer { place += 1 }
      guard place == index else { continue }
      if !started[index] { sayLines(service.description) }
      started[index] = true
      if state == .ready, !proxyWasReady, case .proxy = service {
        proxyWasReady = true
        sayLines(ServiceStep.awaitProxy.description)
      }
    }
  }

  private func sayLines(_ text: String) { text.split(separator: "\n").forEach { say(String($0)) } }
}

/// Keeps the clock right while the enclave runs.
final class ClockSource: EventSource {
  private let loop: EventLoop
  private let log: (Logger.Level, String) -> Void
  private let clock = EnclaveClock()

  init(_ loop: EventLoop, _ log: @escaping (Logger.Level, String) -> Void) {
    self.loop = loop
    self.log = log
  }

  func start() {
    if clock != nil { loop.schedule(after: EnclaveClock.interval, self) }
  }

  override func timerFired(_ key: Int) {
    guard let clock else { return }
    do throws(SystemError) {
      if let sentence = try clock.discipline() { log(.warning, sentence) }
      loop.schedule(after: EnclaveClock.interval, self)
    } catch {
      log(.warning, "the clock is not kept any more: \(error)")
    }
  }
}
