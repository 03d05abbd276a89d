import CLinux
import EnclaveConfig
import EventLoop
import LinuxSystem
import LogForwarding
import Supervision
import Wire

// Theory of operation.
//
// `ServiceMachine` decides, this carries out. Everything arrives through one loop: signals (SIGCHLD too) through a
// signalfd, readiness through pipes, time through timers. One reaper takes every child there is, those of services, which
// it tells by a table of pids, and orphans. What the machine answers is carried out in the order in which it was said, also
// where carrying out has led to the next event.

/// PID 1's work from the first process to the last.
public final class EnclaveSupervision: EventSource {
  /// What the program is passed, and SIGCHLD.
  public static let signals = SignalRules.passed + [SIGCHLD]

  /// The program's start comes before the log's stream, but not by more than this.
  private static let logDelay: Duration = .milliseconds(200)

  /// The newest process of a service.
  private struct Life {
    /// nil where there is none, or it has been reaped.
    var pid: Int32?
    var start: UInt64 = 0
    var readiness: Readiness?
  }

  private let loop: EventLoop
  private let forwarder: LogForwarder
  private let session: HostSession
  private let signals: FileReference
  private let null: FileReference
  private let descriptions: [any ServiceDescription]
  private let log: (Configuration.LogLevel, String) -> Void
  private let finished: (UInt8) -> Void
  private let born: UInt64
  private var machine: ServiceMachine
  private var job = JobControl()
  private var lives: [Life]
  private var starts: [UInt64]
  private var timers: [TimerToken?]
  private var actions: [ServiceMachine.Action] = []
  private var isActing = false

  /// Called with the place of a service in the plan, its name and its new state.
  public var onStateChange: ((Int, String, ServiceState) -> Void)?

  /// - Parameters:
  ///   - born: when init started, in nanoseconds of the monotonic clock.
  ///   - session: opened already.
  ///   - finished: called with the program's status when everything has ended and the log is drained.
  public init(
    loop: EventLoop, born: UInt64, services: EnclaveServices, forwarder: LogForwarder, session: HostSession,
    signals: FileReference,
    log: @escaping (Configuration.LogLevel, String) -> Void, finished: @escaping (UInt8) -> Void
  ) throws {
    self.loop = loop
    self.born = born
    self.forwarder = forwarder
    self.session = session
    self.signals = signals
    self.log = log
    self.finished = finished
    null = FileReference(try openFile("/dev/null", O_RDWR))
    descriptions = try services.descriptions(log)
    machine = ServiceMachine(try ServicePlan(descriptions.map { $0.service }))
    lives = [Life](repeating: Life(), count: descriptions.count)
    starts = [UInt64](repeating: 0, count: descriptions.count)
    timers = [TimerToken?](repeating: nil, count: ServiceMachine.Timer.keys(services: descriptions.count))
    super.init()
    _ = try loop.add(signals.rawValue, [.readable], self)
  }

  /// The program, asked to stop as a job of a shell, has stopped.
  public var onProgramStopped: (() -> Void)?

  public func start() {
    session.ordered = { [unowned self] in obey($0) }
    session.counters = { [unowned self] in counters($0) }
    forwarder.start(after: Self.logDelay)
    perform(machine.start())
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
    var restarts: UInt64 = 0
    for index in descriptions.indices where descriptions[index] is ProxyService && starts[index] > 1 {
      restarts = starts[index] - 1
    }
    return EnclaveCounters(
      id: id, logBytesWaiting: log.waiting, logRecordsDropped: log.droppedRecords, logBytesDropped: log.droppedBytes,
      proxyRestarts: restarts, uptime: monotonicNanoseconds() &- born)
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
    perform(machine.signal(signal, at: .nanoseconds(Int64(clamping: monotonicNanoseconds()))))
  }

  private func reap() {
    while true {
      switch reapChild(stops: true) {
      case .child(let pid, let exited, let signal):
        ended(pid, signal.map { .signalled($0) } ?? .exited(exited ?? 0))
      case .stopped(let pid):
        if pid == lives[machine.plan.program.index].pid, job.isAskedToStop { onProgramStopped?() }
      case .noneEnded: return noteStrays()
      case .noChildren:
        perform(machine.lastProcessEnded())
        return
      }
    }
  }

  private func ended(_ pid: Int32, _ status: ExitStatus) {
    for index in lives.indices where lives[index].pid == pid {
      let uptime = Duration.nanoseconds(Int64(clamping: monotonicNanoseconds() &- lives[index].start))
      lives[index].readiness?.cancel()
      lives[index] = Life()
      perform(machine.exited(ServiceID(index), status, uptime: uptime))
      return
    }
    // An orphan, or one that was given up and has another in its place.
    log(.debug, "reaped process \(pid), which \(status)")
  }

  override public func timerFired(_ key: Int) {
    guard let timer = ServiceMachine.Timer(key: key), timers.indices.contains(key) else { return }
    timers[key] = nil
    perform(machine.timerFired(timer))
  }

  // MARK: actions

  private func perform(_ more: [ServiceMachine.Action]) {
    actions += more
    guard !isActing else { return }
    isActing = true
    var next = 0
    while next < actions.count {
      perform(actions[next])
      next += 1
    }
    actions.removeAll(keepingCapacity: true)
    isActing = false
  }

  private func perform(_ action: ServiceMachine.Action) {
    switch action {
    case .start(let id): start(id)
    case .signal(machine.plan.program, let signal): signalProgram(signal)
    case .signal(let id, let signal): send(signal, to: id)
    case .kill(let id): send(SIGKILL, to: id)
    case .signalStrays:
      signalStrays(SIGTERM)
      // A stopped process would not see it.
      signalStrays(SIGCONT)
      noteStrays()
    case .killStrays: signalStrays(SIGKILL)
    case .signalRest:
      // SIGCONT too: a stopped process would not see its SIGTERM.
      let anybody = signalRest(SIGTERM)
      _ = signalRest(SIGCONT)
      if !anybody { perform(machine.lastProcessEnded()) }
    case .killRest:
      _ = signalRest(SIGKILL)
      reap()
    case .setTimer(let timer, let delay):
      cancel(timer)
      timers[timer.key] = loop.schedule(after: delay, self, key: timer.key)
    case .cancelTimer(let timer): cancel(timer)
    case .stateChanged(let id, let state):
      session.report(descriptions[id.index].reportName, Self.report(state))
      if let onStateChange { onStateChange(id.index, machine.plan.services[id.index].name, state) }
    case .log(let severity, let sentence): log(Self.level(severity), sentence)
    case .finish(let status):
      // Nobody is left who writes: the program's last words come before its end.
      forwarder.collect()
      session.report(exit: status)
      forwarder.append(.initProcess, .exit(status))
      forwarder.drain { [finished] in finished(status) }
    }
  }

  /// What the host is told of the machine's states.
  private static func report(_ state: ServiceState) -> ServiceReport {
    switch state {
    case .down, .backoff: .down
    case .starting, .up: .starting
    case .ready: .ready
    case .stopping, .killed: .stopping
    case .finished, .failed: .ended
    }
  }

  private static func level(_ severity: ServiceMachine.Severity) -> Configuration.LogLevel {
    switch severity {
    case .info: .info
    case .warning: .warning
    case .error: .error
    }
  }

  private func cancel(_ timer: ServiceMachine.Timer) {
    if let token = timers[timer.key] { loop.cancel(token) }
    timers[timer.key] = nil
  }

  private func send(_ signal: Int32, to id: ServiceID) {
    if let pid = lives[id.index].pid { sendSignal(signal, to: pid) }
  }

  private func signalProgram(_ signal: Int32) {
    guard let program = lives[machine.plan.program.index].pid else { return }
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

  // MARK: processes

  /// What is left of the program.
  private var strays: [Int32] {
    let own = lives.compactMap(\.pid)
    return otherProcesses().filter { !own.contains($0) }
  }

  private func signalStrays(_ signal: Int32) { for pid in strays { sendSignal(signal, to: pid) } }

  private func noteStrays() {
    if machine.phase == .stoppingStrays, strays.isEmpty { perform(machine.straysEnded()) }
  }

  private func start(_ id: ServiceID) {
    let description = descriptions[id.index]
    // One that was given up may still be there, and says nothing any more.
    lives[id.index].readiness?.cancel()
    lives[id.index] = Life()
    do {
      var ends = try ServiceEnds(description, null: null, log: forwarder)
      var life = Life()
      if let pipe = ends.readinessReading {
        life.readiness = try Readiness(loop: loop, pipe: pipe) { [unowned self] in
          perform(machine.ready(id))
        } isDrained: { [unowned self] in
          perform(machine.drained(id))
        }
      }
      do {
        let request = try description.request(&ends)
        life.pid = try withExtendedLifetime(ends) { try spawn(request) }
        life.start = monotonicNanoseconds()
        lives[id.index] = life
        starts[id.index] += 1
        if id == machine.plan.program { programStarted(request, life) }
      } catch {
        life.readiness?.cancel()
        throw error
      }
      perform(machine.started(id))
    } catch {
      let failure = description.failure(error)
      log(.error, failure.sentence)
      perform(machine.startFailed(id, code: failure.status))
    }
  }

  private func programStarted(_ request: SpawnRequest, _ life: Life) {
    if case .path(let path) = request.executable {
      log(.info, "started \(path) as process \(life.pid ?? 0), \((life.start &- born) / 1_000_000) ms after init")
    }
    forwarder.append(.initProcess, .started)
    forwarder.connect()
  }
}
