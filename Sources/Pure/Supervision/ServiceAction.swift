extension ServiceMachine {
  /// All that an engine has to be able to do.
  public enum Action: Equatable, Sendable {
    /// Answered with `started` or `startFailed`.
    case start(ServiceID)
    case signal(ServiceID, Int32)
    case kill(ServiceID)
    /// SIGTERM to every process that is neither PID 1 nor a service. Answered with `straysEnded` where there is none.
    case signalStrays
    case killStrays
    /// SIGTERM to every other process but PID 1.
    case signalRest
    case killRest
    /// A timer that runs already begins anew.
    case setTimer(Timer, Duration)
    case cancelTimer(Timer)
    case stateChanged(ServiceID, ServiceState)
    case log(Severity, String)
    /// Drain the log and end with this status.
    case finish(UInt8)
  }

  public enum Severity: Sendable { case info, warning, error }

  public enum Timer: Equatable, Sendable {
    /// Until it must be ready.
    case ready(ServiceID)
    /// Until it is started again.
    case restart(ServiceID)
    /// Until SIGKILL, and from then until it is given up.
    case stop(ServiceID)
    case rest
    /// Until the program is told to stop, connections or not.
    case drain

    /// A number of its own, from 0 on without gaps: tables of timers are arrays.
    public var key: Int {
      switch self {
      case .rest: 0
      case .drain: 1
      case .ready(let id): 2 + 3 * id.index
      case .restart(let id): 3 + 3 * id.index
      case .stop(let id): 4 + 3 * id.index
      }
    }

    public init?(key: Int) {
      guard key >= 0 else { return nil }
      guard key > 1 else {
        self = key == 0 ? .rest : .drain
        return
      }
      let id = ServiceID((key - 2) / 3)
      switch (key - 2) % 3 {
      case 0: self = .ready(id)
      case 1: self = .restart(id)
      default: self = .stop(id)
      }
    }

    /// How many keys there are for so many services.
    public static func keys(services: Int) -> Int { 2 + 3 * services }
  }
}
