/// A service's place in the list that the machine is made with: a small number, so that tables of services are arrays.
public struct ServiceID: Hashable, Sendable {
  public let index: Int
  public init(_ index: Int) { self.index = index }
}

/// What the machine has to know of a service; how its process is started is the engine's business.
public struct Service: Equatable, Sendable {
  /// When those who need it may start.
  public enum Readiness: Equatable, Sendable {
    /// As soon as its process has been started.
    case started
    /// When it says so (a byte on a pipe).
    case notified(within: Duration)
    /// A one-shot: when its process has ended with status 0.
    case completed(within: Duration)

    var bound: Duration? {
      switch self {
      case .started: nil
      case .notified(let bound), .completed(let bound): bound
      }
    }

    var isOneShot: Bool { if case .completed = self { true } else { false } }
  }

  /// What follows when its process ends without having been told to; a one-shot's status 0 is no such end.
  public enum End: Equatable, Sendable {
    /// It is the program: the enclave ends, with its status. There is one of this kind.
    case endsEnclave
    /// After the delays of `RestartBackoff`.
    case startedAgain
    /// It lives and dies with another one, which is started again: where one of them dies, so does the other.
    case startedAgainWith(ServiceID)
    /// It stays down. Before the program has been started, and if the program needs it, that ends the start.
    case staysDown
  }

  /// How it is told to stop, and what follows when it does not.
  public struct Stop: Equatable, Sendable {
    public var signal: Int32
    /// From the signal to SIGKILL.
    public var timeout: Duration
    /// From SIGKILL until it is given up: what SIGKILL does not end (uninterruptible sleep) must not hold the enclave up.
    public var patience: Duration

    public init(signal: Int32 = 15, timeout: Duration = .seconds(2), patience: Duration = .seconds(1)) {
      self.signal = signal
      self.timeout = timeout
      self.patience = patience
    }
  }

  /// As sentences say it: "the proxy".
  public var name: String
  /// Those that must be ready when it starts.
  public var needs: [ServiceID]
  public var readiness: Readiness
  public var end: End
  public var stop: Stop
  /// Before the program is told to stop, it is told to take no more connections (SIGUSR2), and has so long until those that
  /// are open have ended; nil for a service that has none.
  public var drain: Duration?
  /// Other processes may have files of it open. So whenever it was ready, it stops after the program and after everything
  /// that the program has left.
  public var holdsFiles: Bool

  public init(
    _ name: String, needs: [ServiceID] = [], readiness: Readiness, end: End, stop: Stop = Stop(),
    drain: Duration? = nil, holdsFiles: Bool = false
  ) {
    self.drain = drain
    self.holdsFiles = holdsFiles
    self.name = name
    self.needs = needs
    self.readiness = readiness
    self.end = end
    self.stop = stop
  }
}

/// Where a service is in its life; the words are those of s6. The table of `ServiceMachine` has the ways between them.
public enum ServiceState: Equatable, Sendable, CaseIterable, CustomStringConvertible {
  /// Not started: it waits for those that it needs.
  case down
  /// It has died, and is started again when its timer ends.
  case backoff
  /// The engine has been told to start it, and has not yet answered.
  case starting
  /// It runs, and is not ready yet.
  case up
  case ready
  /// It runs, and has been told to stop.
  case stopping
  /// It runs, and has got SIGKILL.
  case killed
  /// It has ended for good, as it was meant to.
  case finished
  /// It has ended for good otherwise, or could not be ended.
  case failed

  public var description: String {
    switch self {
    case .down: "down"
    case .backoff: "backoff"
    case .starting: "starting"
    case .up: "up"
    case .ready: "ready"
    case .stopping: "stopping"
    case .killed: "killed"
    case .finished: "finished"
    case .failed: "failed"
    }
  }

  /// A process is there, or is just being made.
  var isAlive: Bool {
    switch self {
    case .starting, .up, .ready, .stopping, .killed: true
    case .down, .backoff, .finished, .failed: false
    }
  }
}
