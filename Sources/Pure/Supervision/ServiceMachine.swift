// Theory of operation.
//
// Services are started as soon as all that they need is ready; the program is one of them. When it has ended, those that
// are left are told to stop, one at a time, in the reverse of the order in which they were ready the first time: so nothing
// loses what it needs. Those that were never ready come first. Then every other process of the enclave ends, and then it.
//
//     running ──told to stop──▶ stoppingProgram ──▶ stoppingServices ──▶ stoppingRest ──▶ finished
//        └──────────the program has ended, or will not be started─────────────▲
//
// Where a service drains its connections (the proxy), `draining` comes before `stoppingProgram`: until it says that there are
// none any more, or dies with them, or its time is over, or the enclave is told to stop once more.
//
// Where a service holds files for others (a mount), `stoppingStrays` comes between: what the program has left ends first.
//
// While the program lives, those that were ready before it are started again when they die, also in `stoppingProgram`: it
// may need the network for its last words. The ways of a service:
//
//     down      starting: all that it needs is ready     backoff: its companion could not be started
//               finished: the enclave ends
//     starting  up, ready: it has been started            killed: nobody wants it any more
//               down, backoff, finished, failed: it could not be started
//     up        ready    finished: a one-shot's status 0, or the enclave ends
//     ready     finished: it ended well, or the enclave ends
//     both      down, backoff: it died, and is started again   failed: it died, and is not
//               stopping: it is its turn to stop               killed: its companion died
//     stopping  finished: it ended    killed: not within its time
//     killed    down, backoff: it ended, and is started again   finished: it ended    failed: not within its time
//     backoff   down: the time is over                          finished: the enclave ends
//
// Events about a process that is not there change nothing: the engine knows pids and tells of those only that are the
// newest of their service; here the state says whether an event can be true. An engine may answer later than it was told,
// but tells of a process's start before it tells of its readiness or its end.

/// The life of an enclave's services: one method per event, each answering with what to do. It holds no clock, process or
/// lock; the engine (`ServiceControl`) carries the actions out.
public struct ServiceMachine: Equatable, Sendable {
  public enum Phase: Equatable, Sendable {
    case running
    /// Told to stop: a service lets its connections end. The program knows nothing of it yet.
    case draining
    /// Told to stop: what was ready after the program stops, then the program.
    case stoppingProgram
    /// The program has ended; what it has left is being stopped, where a service holds files for it.
    case stoppingStrays
    /// The other services stop.
    case stoppingServices
    /// Every other process that is left is being stopped.
    case stoppingRest
    case finished
  }

  struct Slot: Equatable, Sendable {
    var state = ServiceState.down
    var backoff = RestartBackoff()
    /// In `starting`: nobody wants it any more, so that it is killed as soon as it is there.
    var isUnwanted = false
    var readyTimerRuns = false
    var hasBeenReady = false
  }

  /// One that came before there was a program to get it.
  struct EarlySignal: Equatable, Sendable {
    var signal: Int32
    var time: Duration
  }

  static let restStopTimeout: Duration = .seconds(1)
  /// For a service that resets its connections itself when their time is over.
  static let drainPatience: Duration = .seconds(1)
  /// How long a service without a bound of its own may fail to start while others wait for it.
  static let startBound: Duration = .seconds(10)
  static let sigint: Int32 = 2
  static let sigquit: Int32 = 3
  static let sigterm: Int32 = 15
  static let sigusr2: Int32 = 12

  public internal(set) var phase = Phase.running
  public let plan: ServicePlan
  var slots: [Slot]
  /// By first start, and by first readiness.
  var startOrder: [Int] = []
  var readinessOrder: [Int] = []
  var status: UInt8 = 0
  /// What the program is told to stop with, as soon as it is its turn.
  var programStop: Int32?
  var signalsBeforeStart: [EarlySignal] = []
  var rules = SignalRules()
  var restKilled = false
  var straysKilled = false
  private var actions: [Action] = []

  public init(_ plan: ServicePlan) {
    self.plan = plan
    slots = [Slot](repeating: Slot(), count: plan.services.count)
  }

  /// - Returns: nil for an id that is not of the plan.
  public func state(_ id: ServiceID) -> ServiceState? { knows(id) ? slots[id.index].state : nil }

  /// s6's death tally: deaths since it last ran steadily.
  public func tally(_ id: ServiceID) -> Int { knows(id) ? slots[id.index].backoff.tally : 0 }

  // MARK: events

  public mutating func start() -> [Action] {
    startWhatCan()
    return answer()
  }

  /// The engine has started its process.
  public mutating func started(_ id: ServiceID) -> [Action] {
    guard knows(id) else { return [] }
    let index = id.index
    switch slots[index].state {
    case .starting where slots[index].isUnwanted:
      slots[index].isUnwanted = false
      takeDown(index)
    case .starting:
      if plan.services[index].readiness == .started { reached(index, .ready) } else { set(index, .up) }
      if id == plan.program { passSignalsOn() }
    // Nobody waits for it any more: a process without a service must not stay.
    case .down, .backoff, .finished, .failed: emit(.kill(id))
    case .up, .ready, .stopping, .killed: break
    }
    return answer()
  }

  /// Its process could not be started.
  /// - Parameter code: the program's is the enclave's status: 127 where it is not there, 126 where it cannot be executed.
  public mutating func startFailed(_ id: ServiceID, code: UInt8) -> [Action] {
    guard knows(id), slots[id.index].state == .starting else { return [] }
    ended(id.index, .exited(code), uptime: .zero)
    return answer()
  }

  /// It has said that it is ready.
  public mutating func ready(_ id: ServiceID) -> [Action] {
    guard knows(id), slots[id.index].state == .up, !plan.services[id.index].readiness.isOneShot else { return [] }
    emit(.log(.info, "\(plan.services[id.index].name) is ready"))
    reached(id.index, .ready)
    return answer()
  }

  /// - Parameter uptime: how long it ran.
  public mutating func exited(_ id: ServiceID, _ exit: ExitStatus, uptime: Duration) -> [Action] {
    guard knows(id), slots[id.index].state.isAlive, slots[id.index].state != .starting else { return [] }
    ended(id.index, exit, uptime: uptime)
    // Its connections have ended with it.
    if phase == .draining, plan.services[id.index].drain != nil { stopProgram() }
    return answer()
  }

  /// A service has no connections any more, and takes none.
  public mutating func drained(_ id: ServiceID) -> [Action] {
    guard knows(id), phase == .draining, plan.services[id.index].drain != nil else { return [] }
    stopProgram()
    return answer()
  }

  /// No process but PID 1 is left.
  public mutating func lastProcessEnded() -> [Action] {
    guard phase == .stoppingRest else { return [] }
    finish()
    return answer()
  }

  /// No process is left but PID 1 and services.
  public mutating func straysEnded() -> [Action] {
    guard phase == .stoppingStrays else { return [] }
    stopServices()
    return answer()
  }

  /// A signal that PID 1 was sent, one of `SignalRules.passed`.
  /// - Parameter time: of any clock that only goes forward.
  public mutating func signal(_ signal: Int32, at time: Duration) -> [Action] {
    take(signal, at: time)
    return answer()
  }

  public mutating func timerFired(_ timer: Timer) -> [Action] {
    switch timer {
    case .ready(let id): if knows(id) { readyTimeIsOver(id.index) }
    case .restart(let id):
      guard knows(id), slots[id.index].state == .backoff else { return [] }
      set(id.index, .down)
      startWhatCan()
    case .stop(let id): if knows(id) { stopTimeIsOver(id.index) }
    case .rest: restTimeIsOver()
    case .drain: if phase == .draining { stopProgram() }
    }
    return answer()
  }

  private func knows(_ id: ServiceID) -> Bool { slots.indices.contains(id.index) }

  // MARK: answers

  mutating func emit(_ action: Action) { actions.append(action) }

  mutating func set(_ index: Int, _ state: ServiceState) {
    guard slots[index].state != state else { return }
    slots[index].state = state
    actions.append(.stateChanged(ServiceID(index), state))
  }

  private mutating func answer() -> [Action] {
    defer { actions = [] }
    return actions
  }
}
