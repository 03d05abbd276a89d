import BootPlanning
import CLinux
import DNS
import EventLoop
import HostGateway
import HostNetwork
import HostRights
import Inet
import LinuxSystem
import LogText
import Policy
import Relaying
import Supervision

/// What `tombolo run` was asked for, checked.
public struct LocalRunRequest {
  public var initPath: String
  public var rootfs: String?
  /// Of the machine's own files, without `rootfs`.
  public var files: ShownFiles?
  public var configuration: (name: String, text: String)?
  public var overrides: String
  public var passesInput = false
  /// Where there are no users but root inside, it is said why.
  public var explainsUsers = false
  /// The host's side; in raw mode its gateway is configured already.
  public var host: HostSettings
  /// Init prints its plan to our standard output and ends.
  public var printsPlan = false

  public init(initPath: String, overrides: String, host: HostSettings) {
    self.initPath = initPath
    self.overrides = overrides
    self.host = host
  }
}

/// Why a local enclave could not be started.
public struct LocalRunError: Error, CustomStringConvertible {
  public var sentence: String
  public var description: String { sentence }
}

// Theory of operation.
//
// Everything that can fail without the enclave fails first: ports, directories, rights. Then init is cloned into new
// namespaces and waits at a gate until its ids are mapped. From there on one loop serves as the host and waits for
// init to end; init's status is the program's. Init dies with us (PR_SET_PDEATHSIG), and with it all its namespaces
// hold. Before the loop runs this process gives up every right but that to signal init; what it has made on the machine its
// caretaker takes away.

/// One local enclave from start to end.
public final class LocalRun: EventSource {
  private enum Tag { static let signals = 0, stops = 1 }

  private let request: LocalRunRequest
  private let loop: EventLoop
  private let signals: FileReference
  private let report: (String) -> Void
  private var side: HostSide?
  private var initPID: Int32 = 0
  private var stopsRegistration: Registration?
  private var status: Int32?
  private var hasFailed = false
  private var directory: RunDirectory?
  private var root = RootDirectory()
  private var rootfsPieces: [RootPiece] = []
  /// Has a byte for every time that the program has stopped as it was asked to.
  private var stops: FileReference?
  private var job = JobControl()

  public init(_ request: LocalRunRequest, report: @escaping (String) -> Void) throws(SystemError) {
    self.request = request
    self.report = report
    signals = try openSignals(SignalRules.passed + [SIGCHLD])
    loop = try HostSide.makeLoop()
    super.init()
    _ = try loop.add(signals.rawValue, [.readable], self, tag: Tag.signals)
  }

  /// Runs the enclave to its end.
  /// - Returns: the exit status to give.
  /// - Throws: where it could not be started; nothing is left then.
  public func run() throws -> Int32 {
    defer { cleanUp() }
    try start()
    try loop.run()
    return hasFailed ? 125 : status ?? 125
  }

  private func start() throws {
    let published = try request.host.openPublished()
    let home = try RunDirectory(in: environmentVariable("TMPDIR") ?? "/tmp", other: HostRights.user)
    directory = home
    let transport = home.path + "/host"
    let stage = home.path + "/stage"
    try makeDirectories(transport)
    // The proxy inside has a user of its own; the directory above is ours alone. Whatever our umask is.
    try changeMode(transport, 0o755)
    if let user = HostRights.user {
      // We shall be somebody else, and connect to the socket that init makes there: it gets the directory's group.
      try changeOwner(transport, user: nil, group: user)
      try changeMode(transport, 0o2755)
      try home.giveAway()
    }
    try makeDirectories(stage)
    if let rootfs = request.rootfs { rootfsPieces = try root.prepare(rootfs) }

    var place = HostPlace(
      listen: .unix(EnclaveLayout.hostSocket(in: transport)),
      enclave: StreamTarget(.unix(EnclaveLayout.enclaveSocket(in: transport))), transport: "unix:\(transport)")
    // Without root it is the enclave's init that can give the socket to the proxy's group, where there is one.
    place.group = EnclaveLayout.proxyID
    place.isOwn = true
    let made = try HostSide(
      request.host, command: "run", place: place, loop: loop, transport: try place.open(), published: published,
      log: report)
    made.onLogStreamClosed = { [unowned self] in stopIfDone() }
    made.onOutputLost = { [unowned self] in outputLost($0) }
    made.onHelperLost = { [unowned self] in helperLost($0) }
    side = made
    try startInit(transport: transport, stage: stage)
    var root = root
    try made.reduceRights(
      signalled: [initPID], kept: root.held, note: { if request.host.verbose { report($0) } },
      atEnd: {
        root.restore()
        home.remove()
      })
  }

  private func startInit(transport: String, stage: String) throws {
    let needsUserNamespace = effectiveUserID() != 0
    let machine = ResolverConfiguration(resolvConf: (try? readText("/etc/resolv.conf", limit: 65536)) ?? "")
    var local = LocalEnclave(
      rootfs: request.rootfs, stage: stage, transport: transport,
      pieces: request.rootfs == nil ? try pieces(hasUserNamespace: needsUserNamespace) : rootfsPieces,
      hasUserNamespace: needsUserNamespace,
      nameServer: nameServer.description,
      search: machine.search,
      resolverOptions: machine.options)
    local.hidden = request.files?.hidden ?? []
    // Written when the ids are known, before init goes on.
    let document = try makeMemoryFile([])
    let null = FileReference(try openFile("/dev/null", O_RDWR))
    let executable = FileReference(try openFile(request.initPath, O_PATH))
    let (stopsReading, stopsWriting) = try makePipe()
    try stopsReading.descriptor.setNonblocking()
    // PID 1 never waits for us, who may be stopped.
    try stopsWriting.descriptor.setNonblocking()
    var spawnRequest = SpawnRequest(
      .descriptor(executable.rawValue),
      arguments: ["tombolo-init", "--local", "3", "--stops", "4"] + (request.printsPlan ? ["--plan"] : []),
      environment: [],
      descriptors: [
        request.passesInput ? 0 : null.rawValue, request.printsPlan ? 1 : null.rawValue, 2, document.rawValue,
        stopsWriting.rawValue,
      ])
    // What we pass on before init has its signalfd waits for it.
    spawnRequest.keepsSignalMask = true
    spawnRequest.parentDeathSignal = SIGKILL
    // Not ours, which may have been raised for the connections: a program that goes through all that it may have open would
    // take long.
    spawnRequest.limitOpenFiles(givenOpenFilesLimit())
    var namespaces: Namespaces = [.pid, .network, .mount, .uts, .ipc]
    if needsUserNamespace { namespaces.insert(.user) }
    let gate = try makePipe()
    do throws(SystemError) {
      initPID = try spawnInNamespaces(namespaces, gate: gate.reading.rawValue, spawnRequest)
    } catch {
      throw LocalRunError(sentence: Self.explain(error, user: needsUserNamespace))
    }
    stops = stopsReading
    stopsRegistration = try loop.add(stopsReading.rawValue, [.readable], self, tag: Tag.stops)
    if needsUserNamespace {
      let ids = try IDMapping(process: initPID)
      local.userCount = ids.count
      if let missing = ids.missing, request.explainsUsers {
        report("without root there is no user but root in the enclave: \(missing)")
      }
    }
    let content = LocalDocument.Content(
      local: local, configuration: request.configuration, overrides: request.overrides,
      passesInput: request.passesInput, defaultDirectory: request.rootfs == nil ? currentDirectory() : nil)
    try writeAll(document.rawValue, LocalDocument.encode(content), "memfd")
    try writeAll(gate.writing.rawValue, [1], "gate")
    // Behind the ids' mapping, for which /proc has to show this process's children to its user. The secrets come later.
    try forbidInspection()
  }

  /// What the program asks. Where rules of the machine's have names, in raw mode that is Tombolo's own server, which asks the
  /// other.
  private var nameServer: IPAddress {
    let own = IPAddress.v4(AgreedAddresses.nameServer)
    let isOwn = request.host.rawGateway != nil && request.host.destinations.rules.hasNames
    return isOwn ? own : request.host.nameServer ?? own
  }

  private func pieces(hasUserNamespace: Bool) throws -> [RootPiece] {
    let mounts = MountTable.mounts(mountinfo: try readText("/proc/self/mountinfo"))
    if let shown = request.files?.shown, !shown.isEmpty {
      var budget = MountTable.copyLimit
      return try ShownRoot.pieces(
        shown, links: MountTable.entries(of: "/"), entry: { MountTable.entry(at: $0) },
        whole: { path, found in
          hasUserNamespace
            ? MountTable.whole(path, found, mounts, &budget, entries: MountTable.entries)
            : MountTable.whole(path, mounts) { fileKind($0) == .directory }
        })
    }
    return hasUserNamespace
      ? MountTable.pieces(mounts, entries: MountTable.entries)
      : MountTable.pieces(mounts) { fileKind($0) == .directory }
  }

  private static func explain(_ error: SystemError, user: Bool) -> String {
    switch (error.errno, user) {
    case (EPERM, true):
      "this user may not create namespaces: the kernel restricts user namespaces (sysctl "
        + "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, or a container's seccomp "
        + "profile); run as root, or allow them (\(error))"
    case (EPERM, false):
      "creating namespaces needs CAP_SYS_ADMIN, which this root does not have (a container?) (\(error))"
    case (ENOSPC, _):
      "no more namespaces may be created here (sysctl user.max_*_namespaces) (\(error))"
    default: "\(error)"
    }
  }

  // MARK: events

  override public func ready(_ events: EventSet, tag: Int) {
    if tag == Tag.stops {
      readStops()
      return
    }
    while let signal = nextSignal(signals) {
      if signal == SIGCHLD {
        reap()
      } else if status != nil {
        signalledAtEnd(signal)
      } else {
        job.pass(signal)
        sendSignal(signal, to: initPID)
      }
    }
  }

  /// The program has ended already, and only our output waits for a reader.
  private func signalledAtEnd(_ signal: Int32) {
    if JobControl.stopsJob(signal) {
      stopOneself()
    } else if [SIGTERM, SIGINT, SIGHUP, SIGQUIT].contains(signal) {
      loop.stop()
    }
  }

  /// Our own stop comes behind the program's, so that a shell sees a stopped job where there is one. What it sends to
  /// continue it goes the same way as every signal.
  private func readStops() {
    guard let stops else { return }
    var bytes: [UInt8] = [0, 0, 0, 0]
    switch bytes.withUnsafeMutableBytes({ readBytes(stops.rawValue, $0) }) {
    case .wouldBlock: break
    case .bytes(1...): if job.isAskedToStop { stopOneself() }
    default:
      if let stopsRegistration { loop.remove(stopsRegistration) }
      stopsRegistration = nil
    }
  }

  /// A pipeline whose reader has gone ends its writer, and nobody says a word. Anything else has lost what the program
  /// wrote, whatever its own status will be. The enclave is stopped in order.
  private func outputLost(_ error: SystemError) {
    if error.errno != EPIPE {
      hasFailed = true
      report("\(error): what the program writes is lost, and it is stopped")
    }
    if initPID > 1 { sendSignal(SIGTERM, to: initPID) }
  }

  /// The enclave goes on without a caretaker, and without the network it had does not.
  private func helperLost(_ helper: LostHelper) {
    report("\(helper)")
    guard case .keeper = helper else { return }
    hasFailed = true
    if initPID > 1 { sendSignal(SIGTERM, to: initPID) }
  }

  private func reap() {
    while case .child(let pid, let exited, let signal) = reapChild() {
      guard pid == initPID else { continue }
      status = exited.map { Int32($0) } ?? 128 + (signal ?? 0)
      if let signal { report("the enclave's init was ended by signal \(signal)") }
      initPID = 0
      stopIfDone()
    }
  }

  /// Init has ended and everything it had to say has been written.
  private func stopIfDone() {
    guard status != nil, let side else { return }
    if side.isLogDelivered {
      loop.stop()
    } else {
      loop.schedule(after: .milliseconds(10), self)
    }
  }

  override public func timerFired(_ key: Int) { stopIfDone() }

  private func cleanUp() {
    if initPID > 1 {
      sendSignal(SIGKILL, to: initPID)
      clinux_wait(initPID)
      initPID = 0
    }
    let hasCaretaker = side?.hasCaretaker == true
    side?.close()
    request.host.rawGateway?.close()
    guard !hasCaretaker else { return }
    root.restore()
    directory?.remove()
  }
}
