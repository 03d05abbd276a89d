/// The life of an enclave's processes as a state machine: one method per event, each answering with what to do. It
/// holds no clock, process or lock; the engine (`ServiceControl`) carries the actions out.
///
///     proxy ──ready──▶ program ──ends or is told to──▶ proxy ends ──▶ the rest ends ──▶ finished(status)
public struct Supervisor: Equatable, Sendable {
  public enum Phase: Equatable, Sendable {
    /// The proxy has been started and has not yet said that it is ready.
    case preparing
    case running
    /// The program has been told to stop.
    case stopping
    /// The program has ended; the proxy is being stopped.
    case stoppingProxy
    /// Whatever else is left is being stopped.
    case stoppingRest
    case finished
  }

  public enum Action: Equatable, Sendable {
    case startProxy(after: Duration)
    case startProgram
    case signalProgram(Int32)
    case killProgram
    case stopProxy
    case killProxy
    /// Every other process but PID 1: SIGTERM first, SIGKILL when the timer ends.
    case stopRest
    case killRest
    case setTimer(Timer, Duration)
    case cancelTimer(Timer)
    /// Drain the log and end with this status.
    case finish(UInt8)
    case log(String)
  }

  public enum Timer: Hashable, Sendable { case ready, stop, proxyStop, restStop }

  public struct Settings: Equatable, Sendable {
    /// False in mode "none".
    public var hasProxy: Bool
    /// What the program gets instead of a SIGTERM.
    public var stopSignal: Int32
    /// From the request to stop to SIGKILL.
    public var stopTimeout: Duration
    /// How long the proxy may take to be ready the first time.
    public var readyTimeout: Duration

    public init(
      hasProxy: Bool, stopSignal: Int32 = 15, stopTimeout: Duration = .seconds(10),
      readyTimeout: Duration = .seconds(10)
    ) {
      self.hasProxy = hasProxy
      self.stopSignal = stopSignal
      self.stopTimeout = stopTimeout
      self.readyTimeout = readyTimeout
    }
  }

  static let serviceStopTimeout: Duration = .seconds(2)
  static let restStopTimeout: Duration = .seconds(1)
  private static let sigint: Int32 = 2
  private static let sigquit: Int32 = 3
  private static let sigterm: Int32 = 15

  public private(set) var phase = Phase.preparing
  private let settings: Settings
  private var backoff = RestartBackoff()
  private var status: UInt8 = 0
  private var proxyRuns = false
  private var rules = SignalRules()
  private var signalsBeforeStart: [Int32] = []

  public init(_ settings: Settings) { self.settings = settings }

  public mutating func start() -> [Action] {
    guard settings.hasProxy else { return startProgram() }
    return [.startProxy(after: .zero), .setTimer(.ready, settings.readyTimeout)]
  }

  public mutating func proxyStarted() -> [Action] {
    proxyRuns = true
    // Started while everything was already being stopped: it goes at once.
    return phase == .preparing || phase == .running || phase == .stopping ? [] : [.killProxy]
  }

  public mutating func proxyReady() -> [Action] {
    guard phase == .preparing else { return [] }
    return [.cancelTimer(.ready)] + startProgram()
  }

  private mutating func startProgram() -> [Action] {
    phase = .running
    return [.startProgram]
  }

  /// The program could not be started: `code` is 127 where it is not there, 126 where it cannot be executed.
  public mutating func programFailed(code: UInt8) -> [Action] {
    guard phase == .running || phase == .stopping else { return [] }
    return programEnded(code)
  }

  public mutating func programStarted() -> [Action] {
    defer { signalsBeforeStart = [] }
    return signalsBeforeStart.map { .signalProgram($0) }
  }

  public mutating func programExited(_ status: ExitStatus) -> [Action] {
    guard phase == .running || phase == .stopping else { return [] }
    return programEnded(status.code)
  }

  private mutating func programEnded(_ code: UInt8) -> [Action] {
    status = code
    let cancel: [Action] = [.cancelTimer(.stop), .cancelTimer(.ready)]
    guard proxyRuns else { return cancel + stopRest() }
    phase = .stoppingProxy
    return cancel + [.stopProxy, .setTimer(.proxyStop, Self.serviceStopTimeout)]
  }

  private mutating func stopRest() -> [Action] {
    phase = .stoppingRest
    return [.stopRest, .setTimer(.restStop, Self.restStopTimeout)]
  }

  /// - Parameter uptime: how long it ran.
  public mutating func proxyExited(_ exit: ExitStatus, uptime: Duration) -> [Action] {
    proxyRuns = false
    switch phase {
    case .preparing, .running, .stopping:
      let delay = backoff.delay(afterUptime: uptime)
      return [.log("the proxy \(exit); starting it again in \(delay)"), .startProxy(after: delay)]
    case .stoppingProxy: return [.cancelTimer(.proxyStop)] + stopRest()
    case .stoppingRest, .finished: return []
    }
  }

  /// No process but PID 1 is left.
  public mutating func lastProcessEnded() -> [Action] {
    guard phase == .stoppingRest else { return [] }
    return finish()
  }

  private mutating func finish() -> [Action] {
    phase = .finished
    return [.cancelTimer(.restStop), .finish(status)]
  }

  /// A signal that PID 1 was sent, one of `SignalRules.passed`.
  /// - Parameter time: of any clock that only goes forward.
  public mutating func signal(_ signal: Int32, at time: Duration) -> [Action] {
    let passed = signal == Self.sigterm ? settings.stopSignal : signal
    switch phase {
    case .preparing:
      // There is no program yet whose affair a SIGINT or SIGQUIT could be.
      guard signal == Self.sigterm || signal == Self.sigint || signal == Self.sigquit else {
        signalsBeforeStart.append(signal)
        return []
      }
      return [.log("told to stop before the program was started")] + programEnded(UInt8(128 + signal))
    case .running where rules.endsProgram(signal, at: time):
      phase = .stopping
      return [.signalProgram(passed), .setTimer(.stop, settings.stopTimeout)]
    case .running, .stopping:
      return [.signalProgram(passed)]
    case .stoppingProxy, .stoppingRest, .finished:
      return []
    }
  }

  public mutating func timerFired(_ timer: Timer) -> [Action] {
    switch (timer, phase) {
    case (.ready, .preparing):
      return [.log("the proxy was not ready within \(settings.readyTimeout)")] + programEnded(125)
    // What SIGKILL does not end (uninterruptible sleep) must not hold the enclave up: a second timer ends each wait.
    case (.stop, .stopping):
      guard !programKilled else { return programEnded(137) }
      programKilled = true
      return [
        .log("the program did not stop within \(settings.stopTimeout): SIGKILL"), .killProgram,
        .setTimer(.stop, Self.serviceStopTimeout),
      ]
    case (.proxyStop, .stoppingProxy):
      guard !proxyKilled else {
        proxyRuns = false
        return stopRest()
      }
      proxyKilled = true
      return [.killProxy, .setTimer(.proxyStop, Self.restStopTimeout)]
    case (.restStop, .stoppingRest):
      guard !restKilled else { return finish() }
      restKilled = true
      return [.killRest, .setTimer(.restStop, Self.restStopTimeout)]
    default:
      return []
    }
  }

  private var programKilled = false
  private var proxyKilled = false
  private var restKilled = false
}
