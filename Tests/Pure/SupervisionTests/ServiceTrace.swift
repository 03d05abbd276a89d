@testable import Supervision

/// The usual enclaves, and their actions as lines.
enum Usual {
  static func proxy(_ needs: [ServiceID] = []) -> Service {
    Service("the proxy", needs: needs, readiness: .notified(within: .seconds(10)), end: .startedAgain)
  }

  static func program(_ needs: [ServiceID], stopSignal: Int32 = 15, stopTimeout: Duration = .seconds(10)) -> Service {
    Service(
      "the program", needs: needs, readiness: .started, end: .endsEnclave,
      stop: .init(signal: stopSignal, timeout: stopTimeout, patience: .seconds(2)))
  }

  static func keeper(of proxy: ServiceID) -> Service {
    Service(
      "the proxy's keeper of verdicts", readiness: .started, end: .startedAgainWith(proxy),
      stop: .init(signal: 9, timeout: .seconds(1)))
  }

  static let id0 = ServiceID(0), id1 = ServiceID(1), id2 = ServiceID(2)

  /// Without a network.
  static func alone(stopSignal: Int32 = 15, stopTimeout: Duration = .seconds(10)) throws -> ServiceMachine {
    ServiceMachine(try ServicePlan([program([], stopSignal: stopSignal, stopTimeout: stopTimeout)]))
  }

  /// 0: the proxy, 1: the program.
  static func withProxy() throws -> ServiceMachine {
    ServiceMachine(try ServicePlan([proxy(), program([id0])]))
  }

  /// 0: a proxy that drains its connections, 1: the program.
  static func withDrain() throws -> ServiceMachine {
    var proxy = proxy()
    proxy.drain = .seconds(30)
    return ServiceMachine(try ServicePlan([proxy, program([id0])]))
  }

  /// One of those two, when both have started.
  static func running(_ machine: ServiceMachine) -> ServiceMachine {
    var machine = machine
    _ = machine.start()
    _ = machine.started(id0)
    _ = machine.ready(id0)
    _ = machine.started(id1)
    return machine
  }

  /// 0: the keeper, 1: the proxy, 2: the program.
  static func withKeeper() throws -> ServiceMachine {
    ServiceMachine(try ServicePlan([keeper(of: id1), proxy([id0]), program([id1])]))
  }

  /// 0: the proxy, 1: a mount, 2: the program.
  static func withMount() throws -> ServiceMachine {
    let mount = Service(
      "the mount of /data", needs: [id0], readiness: .completed(within: .seconds(30)), end: .staysDown)
    return ServiceMachine(try ServicePlan([proxy(), mount, program([id0, id1])]))
  }

  /// 0: the proxy, 1: a mount that stays, 2: the program, which waits for it or does not.
  static func withVolume(required: Bool) throws -> ServiceMachine {
    let volume = Service(
      "the mount of /data", needs: [id0], readiness: .notified(within: .seconds(90)), end: .staysDown,
      stop: .init(timeout: .seconds(18)), holdsFiles: true)
    return ServiceMachine(try ServicePlan([proxy(), volume, program(required ? [id0, id1] : [id0])]))
  }
}

extension ServiceMachine.Action {
  func line(_ plan: ServicePlan) -> String {
    func name(_ id: ServiceID) -> String { plan.services[id.index].name }
    func name(_ timer: ServiceMachine.Timer) -> String {
      switch timer {
      case .ready(let id): "readiness of \(name(id))"
      case .restart(let id): "restart of \(name(id))"
      case .stop(let id): "stop of \(name(id))"
      case .rest: "the rest"
      case .drain: "the drain"
      }
    }
    return switch self {
    case .start(let id): "start \(name(id))"
    case .signal(let id, let signal): "signal \(name(id)) \(signal)"
    case .kill(let id): "kill \(name(id))"
    case .signalStrays: "signal what the program has left"
    case .killStrays: "kill what the program has left"
    case .signalRest: "signal the rest"
    case .killRest: "kill the rest"
    case .setTimer(let timer, let delay): "set timer: \(name(timer)), \(delay)"
    case .cancelTimer(let timer): "cancel timer: \(name(timer))"
    case .stateChanged(let id, let state): "\(name(id)): \(state)"
    case .log(let severity, let sentence): "\(severity): \(sentence)"
    case .finish(let status): "finish \(status)"
    }
  }

  var isStateChange: Bool { if case .stateChanged = self { true } else { false } }
}

extension [ServiceMachine.Action] {
  /// What is done, without what is reported of it.
  var deeds: [ServiceMachine.Action] { filter { !$0.isStateChange } }
}

/// Events and what they are answered with, as text.
struct Trace {
  var machine: ServiceMachine
  private(set) var text = ""

  init(_ machine: ServiceMachine) { self.machine = machine }

  mutating func on(_ event: String, _ body: (inout ServiceMachine) -> [ServiceMachine.Action]) {
    text += "\(event)\n"
    for action in body(&machine) { text += "  \(action.line(machine.plan))\n" }
  }
}
