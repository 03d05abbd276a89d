import CLinux
import Capabilities
import EnclaveConfig
import EventLoop
import LinuxSystem
import LogForwarding
import Proxying
import Supervision
import Wire

// Theory of operation.
//
// `Supervisor` decides, this carries out. Everything arrives through one loop: signals (SIGCHLD too) through a
// signalfd, readiness through a pipe, time through timers. One reaper takes every child there is, its own and orphans.
// The sockets that the proxy works with stay open here, so that clients of a proxy that died wait for the next one.

/// PID 1's work from the first process to the last.
public final class EnclaveSupervision: EventSource {
  /// What the program is passed, and SIGCHLD.
  public static let signals = SignalRules.passed + [SIGCHLD]

  /// The program's start comes before the log's stream, but not by more than this.
  private static let logDelay: Duration = .milliseconds(200)

  private enum Key: Int, CaseIterable { case ready, stop, proxyStop, restStop, startProxy }

  private let loop: EventLoop
  private let configuration: Configuration
  private let forwarder: LogForwarder
  private let signals: FileHandle
  private let session: HostSession
  private let proxyHandOver: ProxyHandOver?
  private let keeperSockets: [FileHandle]
  private let programInput: FileHandle?
  private let separateProxyUser: Bool
  private let log: (Configuration.LogLevel, String) -> Void
  private let finished: (UInt8) -> Void
  private var supervisor: Supervisor
  private var job = JobControl()
  private var proxy: Int32?
  /// The proxy's keeper of verdicts: it lives as long as the proxy.
  private var keeper: Int32?
  private var program: Int32?
  private var proxyStarted: UInt64 = 0
  private var proxyStarts = 0
  private let born: UInt64
  private var timers = [TimerToken?](repeating: nil, count: Key.allCases.count)
  private var readiness: Readiness?
  private var executable: FileHandle

  /// - Parameters:
  ///   - born: when init started, in nanoseconds of the monotonic clock.
  ///   - session: opened already.
  ///   - proxyHandOver: nil in mode "none".
  ///   - programInput: the program's standard input; nil for /dev/null.
  ///   - separateProxyUser: false in a user namespace with a single id.
  ///   - finished: called with the program's status when everything has ended and the log is drained.
  public init(
    loop: EventLoop, born: UInt64, configuration: Configuration, forwarder: LogForwarder, session: HostSession,
    signals: FileHandle, proxyHandOver: ProxyHandOver?, keeperSockets: [FileHandle] = [], programInput: FileHandle?,
    separateProxyUser: Bool,
    log: @escaping (Configuration.LogLevel, String) -> Void, finished: @escaping (UInt8) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.born = born
    self.configuration = configuration
    self.forwarder = forwarder
    self.signals = signals
    self.session = session
    self.proxyHandOver = proxyHandOver
    self.keeperSockets = keeperSockets
    self.programInput = programInput
    self.separateProxyUser = separateProxyUser
    self.log = log
    self.finished = finished
    supervisor = Supervisor(
      .init(
        hasProxy: proxyHandOver != nil, stopSignal: configuration.program.stopSignal,
        stopTimeout: configuration.program.stopTimeout))
    // By descriptor: after the root has changed the file may have no name any more.
    executable = FileHandle(try openFile("/proc/self/exe", O_PATH))
    super.init()
    _ = try loop.add(signals.rawValue, [.readable], self)
  }

  /// The program, asked to stop as a job of a shell, has stopped.
  public var onProgramStopped: (() -> Void)?

  public func start() {
    session.ordered = { [unowned self] in obey($0) }
    session.counters = { [unowned self] in counters($0) }
    forwarder.start(after: Self.logDelay)
    perform(supervisor.start())
  }

  // MARK: the host

  private func obey(_ order: HostOrder) {
    switch order {
    case .stop:
      log(.info, "the host asks for the program to be stopped")
      signalled(SIGTERM)
    case .signal(let number):
      log(.info, "the host asks for signal \(number)")
      signalled(Int32(number))
    // Answered by the session itself.
    case .count: break
    }
  }

  private func counters(_ id: UInt32) -> EnclaveCounters {
    let log = forwarder.counters
    return EnclaveCounters(
      id: id, logBytesWaiting: log.waiting, logRecordsDropped: log.droppedRecords, logBytesDropped: log.droppedBytes,
      proxyRestarts: UInt64(max(0, proxyStarts - 1)), uptime: monotonicNanoseconds() &- born)
  }

  // MARK: events

  override public func ready(_ events: EventSet, tag: Int) {
    while let signal = nextSignal(signals) {
      if signal == SIGCHLD {
        reap()
      } else {
        log(.debug, "got signal \(signal)")
        signalled(signal)
      }
    }
  }

  private func signalled(_ signal: Int32) {
    perform(supervisor.signal(signal, at: .nanoseconds(Int64(clamping: monotonicNanoseconds()))))
  }

  private func reap() {
    while true {
      switch reapChild(stops: true) {
      case .child(let pid, let exited, let signal):
        ended(pid, signal.map { .signalled($0) } ?? .exited(exited ?? 0))
      case .stopped(let pid): if pid == program, job.isAskedToStop { onProgramStopped?() }
      case .noneEnded: return
      case .noChildren:
        perform(supervisor.lastProcessEnded())
        return
      }
    }
  }

  private func ended(_ pid: Int32, _ status: ExitStatus) {
    if pid == program {
      program = nil
      log(.info, "the program \(status)")
      session.report("program", .ended)
      perform(supervisor.programExited(status))
    } else if pid == proxy {
      proxy = nil
      session.report("proxy", .down)
      if let keeper { sendSignal(SIGKILL, to: keeper) }
      keeper = nil
      let uptime = Duration.nanoseconds(Int64(clamping: monotonicNanoseconds() &- proxyStarted))
      perform(supervisor.proxyExited(status, uptime: uptime))
    } else if pid == keeper {
      keeper = nil
      log(.error, "the proxy's keeper of verdicts \(status)")
      if let proxy { sendSignal(SIGKILL, to: proxy) }
    } else {
      log(.debug, "reaped process \(pid), which \(status)")
    }
  }

  override public func timerFired(_ key: Int) {
    guard let key = Key(rawValue: key) else { return }
    timers[key.rawValue] = nil
    switch key {
    case .ready: perform(supervisor.timerFired(.ready))
    case .stop: perform(supervisor.timerFired(.stop))
    case .proxyStop: perform(supervisor.timerFired(.proxyStop))
    case .restStop: perform(supervisor.timerFired(.restStop))
    case .startProxy: startProxy()
    }
  }

  // MARK: actions

  private func perform(_ actions: [Supervisor.Action]) {
    for action in actions { perform(action) }
  }

  private func perform(_ action: Supervisor.Action) {
    switch action {
    case .startProxy(let delay):
      if delay == .zero { startProxy() } else { setTimer(.startProxy, delay) }
    case .startProgram: startProgram()
    case .signalProgram(let signal): signalProgram(signal)
    case .killProgram: if let program { sendSignal(SIGKILL, to: program) }
    case .stopProxy: if let proxy { sendSignal(SIGTERM, to: proxy) }
    case .killProxy: if let proxy { sendSignal(SIGKILL, to: proxy) }
    case .stopRest:
      // SIGCONT too: a stopped process would not see its SIGTERM.
      let anybody = signalRest(SIGTERM)
      _ = signalRest(SIGCONT)
      if !anybody { perform(supervisor.lastProcessEnded()) }
    case .killRest:
      _ = signalRest(SIGKILL)
      reap()
    case .setTimer(let timer, let delay): setTimer(key(timer), delay)
    case .cancelTimer(let timer): cancelTimer(key(timer))
    case .log(let sentence): log(.warning, sentence)
    case .finish(let status):
      // Nobody is left who writes: the program's last words come before its end.
      forwarder.collect()
      session.report(exit: status)
      forwarder.append(.initProcess, .exit(status))
      forwarder.drain { [finished] in finished(status) }
    }
  }

  private func signalProgram(_ signal: Int32) {
    guard let program else { return }
    let delivery = job.delivery(of: signal) {
      .init(of: signal, status: (try? readText("/proc/\(program)/status")) ?? "")
    }
    if delivery.toGroup {
      sendSignal(delivery.signal, toGroupOf: program)
    } else {
      sendSignal(delivery.signal, to: program)
    }
  }

  /// Everything else that runs: as PID 1 all there is, under another init what has become our child.
  /// - Returns: false where nobody is left.
  private func signalRest(_ signal: Int32) -> Bool {
    if processID() == 1 { return signalEveryone(signal) }
    let children = childProcesses()
    for child in children { sendSignal(signal, to: child) }
    return !children.isEmpty
  }

  private func key(_ timer: Supervisor.Timer) -> Key {
    switch timer {
    case .ready: .ready
    case .stop: .stop
    case .proxyStop: .proxyStop
    case .restStop: .restStop
    }
  }

  private func setTimer(_ key: Key, _ delay: Duration) {
    cancelTimer(key)
    timers[key.rawValue] = loop.schedule(after: delay, self, key: key.rawValue)
  }

  private func cancelTimer(_ key: Key) {
    if let timer = timers[key.rawValue] { loop.cancel(timer) }
    timers[key.rawValue] = nil
  }

  // MARK: processes

  private func startProxy() {
    guard var handOver = proxyHandOver, proxy == nil else { return }
    do {
      let (logReading, logWriting) = try makePipe()
      let (readyReading, readyWriting) = try makePipe()
      try readyReading.descriptor.setNonblocking()
      let null = FileHandle(try openFile("/dev/null", O_RDWR))
      handOver.descriptors.readiness = readyWriting
      let (document, files) = handOver.encoded()
      let handed = try makeMemoryFile(document)
      try startKeeper(null.rawValue)
      var request = SpawnRequest(
        .descriptor(executable.rawValue), arguments: ["tombolo-init", "proxy"], environment: [],
        descriptors: [null.rawValue, logWriting.rawValue, logWriting.rawValue, handed.rawValue] + files.map(\.rawValue))
      if separateProxyUser { request.identity = (Configuration.proxyID, Configuration.proxyID, []) }
      request.keptCapabilities = 0
      request.clearsCapabilities = true
      request.noNewPrivileges = true
      request.openFilesLimit = .max
      session.report("proxy", .starting)
      proxy = try spawn(request)
      proxyStarts += 1
      proxyStarted = monotonicNanoseconds()
      try forwarder.attach(logReading, .proxy)
      readiness = try Readiness(loop: loop, pipe: readyReading) { [unowned self] in
        log(.info, "the proxy is ready")
        session.report("proxy", .ready)
        perform(supervisor.proxyReady())
      }
      perform(supervisor.proxyStarted())
    } catch {
      log(.error, "the proxy could not be started: \(error)")
      // Started, and of no use all the same: the reaper tells of its end.
      if let proxy {
        sendSignal(SIGKILL, to: proxy)
        return
      }
      perform(supervisor.proxyExited(.exited(125), uptime: .zero))
    }
  }

  /// The one process besides PID 1's other children that has a right of its own; see VerdictKeeper.
  private func startKeeper(_ null: Int32) throws {
    guard !keeperSockets.isEmpty, keeper == nil else { return }
    var request = SpawnRequest(
      .descriptor(executable.rawValue), arguments: ["tombolo-init", "verdicts", "\(keeperSockets.count - 1)"],
      environment: [], descriptors: [null, null, null] + keeperSockets.map(\.rawValue))
    // Executed by root, it gets what the bounding set has and nothing else (capabilities(7)).
    request.keptCapabilities = CapabilitySet.verdicts.rawValue
    keeper = try spawn(request)
  }

  /// Whoever opens /dev/stdout anew is asked for a right to the pipe, which PID 1 has made as root.
  private func givePipes(_ descriptors: [Int32], to user: UInt32) {
    for fd in descriptors {
      do throws(SystemError) {
        try givePipe(fd, to: user)
      } catch {
        // Under an init that has kept CAP_CHOWN from us: what is open works all the same.
        log(.warning, "the program's user cannot open descriptor \(fd) again: \(error)")
      }
    }
  }

  private func startProgram() {
    do {
      let launch = try ProgramLaunch(configuration.program, hostname: configuration.hostname)
      let (outReading, outWriting) = try makePipe()
      let (errorReading, errorWriting) = try makePipe()
      let input = try programInput ?? FileHandle(openFile("/dev/null", O_RDONLY))
      var request = SpawnRequest(
        .path(launch.path), arguments: launch.arguments, environment: launch.environment,
        descriptors: [input.rawValue, outWriting.rawValue, errorWriting.rawValue])
      request.workingDirectory = launch.workingDirectory
      // Root too: whoever started us may have had supplementary groups.
      if configuration.program.user != nil || separateProxyUser {
        request.identity = (launch.account.uid, launch.account.gid, launch.account.groups)
        request.setsGroups = separateProxyUser
        if launch.account.uid != userID() { givePipes(request.descriptors, to: launch.account.uid) }
      }
      do throws(SpawnError) {
        program = try spawn(request)
      } catch {
        throw ProgramLaunch.failure(error)
      }
      try forwarder.attach(outReading, .programOutput)
      try forwarder.attach(errorReading, .programError)
      let elapsed = (monotonicNanoseconds() &- born) / 1_000_000
      log(.info, "started \(launch.path) as process \(program ?? 0), \(elapsed) ms after init")
      forwarder.append(.initProcess, .started)
      session.report("program", .ready)
      perform(supervisor.programStarted())
      forwarder.connect()
    } catch {
      log(.error, "\(error)")
      perform(supervisor.programFailed(code: (error as? ProgramLaunch.Failure)?.status ?? 125))
    }
  }
}

/// The reading end of a service's readiness pipe: one byte means ready.
final class Readiness: EventSource {
  private let loop: EventLoop
  private let pipe: FileHandle
  private let isReady: () -> Void
  private var registration: Registration?

  init(loop: EventLoop, pipe: FileHandle, isReady: @escaping () -> Void) throws(SystemError) {
    self.loop = loop
    self.pipe = pipe
    self.isReady = isReady
    super.init()
    registration = try loop.add(pipe.rawValue, [.readable], self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    var byte: [UInt8] = [0]
    let result = byte.withUnsafeMutableBytes { readBytes(pipe.rawValue, $0) }
    if result == .wouldBlock { return }
    if let registration { loop.remove(registration) }
    registration = nil
    if case .bytes(1) = result { isReady() }
  }
}
