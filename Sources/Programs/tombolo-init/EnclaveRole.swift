import BootPlanning
import Booting
import CLinux
import Capabilities
import Digests
import EnclaveConfig
import EventLoop
import Inet
import LinuxSystem
import LogForwarding
import Logging
import Relaying
import ServiceControl
import Wire

/// The enclave's init, in its ways to be started: by a kernel, by `tombolo run`, under another init.
struct EnclaveRole {
  private let arguments: InitArguments
  private let kind: StartKind
  private let document: LocalDocument.Content?
  private let signals: FileHandle
  private let target = EnclaveLogTarget()
  /// What was found before there was a log.
  private var notes: [EarlyNote] = []
  private let born = clinux_started_at()

  static func run(_ arguments: InitArguments) throws {
    setProcessName("tombolo-init")
    // Our memory has the secrets of this boot. Whatever was open where we were started is not for the program.
    try forbidInspection()
    clinux_close_on_exec_from(3)
    // First of all, so that none is lost: they wait in the signalfd until the loop runs.
    let signals = try openSignals(EnclaveSupervision.signals)
    ignoreBrokenPipes()
    raiseOpenFilesLimit()
    // As a kernel starts its init: what is made from here on is for the proxy's and the program's users, too.
    if processID() == 1 { setCreationMask(0o022) }
    if processID() == 1, clinux_started_bare() {
      try KernelStart.run(arguments, signals)
      return
    }
    let document = try arguments.localDescriptor.map(readLocalDocument)
    if let document {
      guard processID() == 1 else { throw InitArguments.Misuse(description: "--local is for `tombolo run`") }
      var role = EnclaveRole(arguments, .local(document.local), document, signals)
      try role.run { status in exit(Int32(status)) }
    } else {
      // Docker's or AWS's init is above us: orphans are ours to reap, the machine is not ours to end.
      try check("prctl", "PR_SET_CHILD_SUBREAPER", clinux_become_subreaper())
      var digest = ConfigurationDigest()
      let configuration = try readConfiguration(arguments, digest: &digest)
      do {
        var role = EnclaveRole(arguments, .child, nil, signals)
        try role.run(known: (configuration, digest)) { status in exit(Int32(status)) }
      } catch {
        // Standard error is a console that an enclave in production has not.
        LastWords.deliver("\(error)", configuration)
        throw error
      }
    }
  }

  init(_ arguments: InitArguments, _ kind: StartKind, _ document: LocalDocument.Content?, _ signals: FileHandle) {
    self.arguments = arguments
    self.kind = kind
    self.document = document
    self.signals = signals
  }

  private static func readLocalDocument(_ fd: Int32) throws -> LocalDocument.Content {
    let file = OwnedFileDescriptor(fd)
    guard let content = LocalDocument.decode(try readFile("/proc/self/fd/\(file.rawValue)")) else {
      throw InitArguments.Misuse(description: "--local: not what `tombolo run` writes")
    }
    return content
  }

  /// - Parameters:
  ///   - known: the configuration, where it has been read already.
  ///   - finished: ends the process, or the machine.
  mutating func run(
    known given: (Configuration, ConfigurationDigest)? = nil, notes earlier: [EarlyNote] = [],
    finished: @escaping (UInt8) -> Void
  ) throws {
    notes = earlier
    var digest = given?.1 ?? ConfigurationDigest()
    var configuration =
      try given?.0 ?? readConfiguration(arguments, document, root: document?.local.rootfs ?? "", digest: &digest)
    var plan = BootPlan(configuration, kind)
    try boot(plan.fileSystem)
    if case .local(let local) = kind, document?.configuration == nil, local.rootfs != nil {
      // The image's own configuration can only be read now that the image is the root.
      configuration = try readConfiguration(arguments, document, digest: &digest)
      plan = BootPlan(configuration, kind)
    }
    if configuration.program.workingDirectory == nil, let directory = document?.defaultDirectory,
      fileKind(directory) == .directory
    {
      configuration.program.workingDirectory = directory
    }
    // Streams to the host need no IP: neither vsock nor Unix sockets do. The session is the first of them.
    let addresses = try transport(configuration)
    let hello = BootIdentity.own.hello(digest)
    let opened = try SessionOpening.open(addresses.host, hello, timeout: configuration.boot.hostTimeout)
    if configuration.networkMode == .raw, configuration.raw.asksHost {
      configuration.raw = try AddressAssignment.ask(
        addresses.host, token: BootIdentity.own.secrets.session, configuration.raw,
        timeout: configuration.boot.hostTimeout)
      notes.append(EarlyNote(sentence: "the host's addresses: \(configuration.raw.givenAddresses)"))
      plan = BootPlan(configuration, kind)
    }
    if configuration.networkMode == .raw, configuration.raw.capture == .nfqueue, configuration.raw.queues == nil {
      // The rules name the queues, so the number is settled before them.
      configuration.raw.queues = configuration.raw.queueCount(processors: processorCount())
      plan = BootPlan(configuration, kind)
    }
    try boot(plan.network)
    try Capabilities.dropBounding(.harmful)

    let loop = try EventLoop()
    let forwarder = LogForwarder(
      loop: loop, target: addresses.host, token: BootIdentity.own.secrets.session,
      settings: .init(
        capacity: configuration.logs.buffer, patience: configuration.logs.patience, drain: configuration.logs.drain))
    var sockets = ProxySockets()
    if configuration.networkMode == .tcp {
      try sockets.open(host: addresses.host, listen: addresses.listen, configuration)
    }
    if configuration.networkMode == .raw { try sockets.openTunnel(host: addresses.host, configuration) }
    // Our own socket is in it now. Nobody inside puts another in the place of the host's.
    if case .local = kind { try makeMountReadOnly(EnclaveLayout.transportDirectory) }
    let isLocal = if case .local = kind { true } else { false }
    try Capabilities.keepOnly(
      .supervising, permitting: CapabilitySet(rawValue: configuration.program.rights.bounding(isLocal: isLocal)))
    let logger = Logger(label: "tombolo-init") { [target, level = configuration.logs.level] _ in
      EnclaveLogHandler(target: target, logLevel: Logger.Level(level))
    }
    target.forwarder = forwarder
    if case .kernel = kind { target.console = true }
    forwarder.onBegin = { [target] in target.release() }
    // Whatever goes wrong from here on, what was found before stands above it.
    defer { target.release() }
    for note in notes { logger.log(level: note.level, "\(note.sentence)") }
    let session = try HostSession(
      loop: loop, target: addresses.host, hello: hello, stream: opened.stream, early: opened.early
    ) { logger.log(level: .warning, "\($0)") }
    var services = EnclaveServices(configuration)
    services.proxyHandOver = sockets.handOver
    services.keeperSockets = sockets.keeper
    services.programInput = try programInput()
    services.isLocal = isLocal
    services.userCount = document?.local.userCount ?? .max
    let supervision = try EnclaveSupervision(
      loop: loop, born: born, services: services, forwarder: forwarder, session: session, signals: signals,
      log: { level, sentence in logger.log(level: Logger.Level(level), "\(sentence)") }, finished: finished)
    supervision.onProgramStopped = stopNotice()
    if configuration.logs.level == .debug {
      supervision.onStateChange = { name, state in logger.debug("\(name): \(state)") }
    }
    let clock = ClockSource(loop) { logger.log(level: $0, "\($1)") }
    if case .kernel = kind { clock.start() }
    supervision.start()
    try withExtendedLifetime((supervision, clock, session)) { try loop.run() }
  }

  private mutating func boot(_ steps: [BootStep]) throws {
    var found: [String] = []
    defer { notes += found.map { EarlyNote(sentence: $0) } }
    try BootRunner.run(steps) { found.append($0) }
  }

  /// The process that started us sees a stopped job: `tombolo run` when it is told, a shell when we have stopped. A kernel, or
  /// an engine whose PID 1 we are, would look for no such thing.
  private func stopNotice() -> (() -> Void)? {
    if let fd = arguments.stopDescriptor {
      let pipe = FileHandle(OwnedFileDescriptor(fd))
      return { try? writeAll(pipe.rawValue, [UInt8(1)]) }
    }
    if kind == .child, processID() != 1 { return { stopOneself() } }
    return nil
  }

  /// A child's program keeps the standard input that we were started with; a local one gets it where asked for.
  private func programInput() throws -> FileHandle? {
    switch kind {
    case .kernel: nil
    case .local: document?.passesInput == true ? try duplicateOfStandardInput() : nil
    case .child: try duplicateOfStandardInput()
    }
  }

  /// Descriptor 0 itself stays open: whatever is opened next would get its number, and lose it when a child's
  /// descriptors are put in place.
  private func duplicateOfStandardInput() throws(SystemError) -> FileHandle {
    FileHandle(OwnedFileDescriptor(try checkErrno("fcntl", "F_DUPFD_CLOEXEC") { clinux_dup_cloexec(0) }))
  }

  /// Where the host is, and where it finds us.
  private struct Place {
    var host: StreamTarget
    var listen: SocketAddress
  }

  private func transport(_ configuration: Configuration) throws -> Place {
    func unix(_ directory: String) -> Place {
      Place(
        host: StreamTarget(.unix(EnclaveLayout.hostSocket(in: directory))),
        listen: .unix(EnclaveLayout.enclaveSocket(in: directory)))
    }
    if case .local = kind { return unix(EnclaveLayout.transportDirectory) }
    switch configuration.transport {
    case .unix(let directory): return unix(directory)
    case .vsock:
      let port = configuration.parentPort
      if kind == .child, configuration.boot.heartbeat == .always {
        try ParentSearch.beat(cid: configuration.parentCID, timeout: configuration.boot.heartbeatTimeout)
      }
      let cid = try ParentSearch.find(
        cid: configuration.parentCID, port: port, timeout: configuration.boot.hostTimeout)
      return Place(
        host: StreamTarget(.vsock(cid: cid, port: port)), listen: .vsock(cid: .max, port: EnclaveLayout.port))
    }
  }
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
