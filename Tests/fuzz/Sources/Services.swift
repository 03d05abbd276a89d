import Supervision

/// Any events in any order at the services of an enclave: the machine finishes once, starts nothing whose needs are not
/// there or whose last start has not been answered, and asks for nothing that it has not.
let services = Harness("services", limit: 512) { bytes in
  var choices = Choices(bytes)
  var list: [Service] = []
  let count = 1 + choices.below(5)
  for index in 0..<count {
    let needs = (0..<count).filter { _ in choices.below(4) == 1 }.map { ServiceID($0) }
    let readiness: Service.Readiness =
      switch choices.below(3) {
      case 0: .started
      case 1: .notified(within: .seconds(10))
      default: .completed(within: .seconds(10))
      }
    let end: Service.End =
      switch choices.below(4) {
      case 0: .endsEnclave
      case 1: .startedAgain
      case 2: .startedAgainWith(ServiceID(choices.below(count + 1)))
      default: .staysDown
      }
    list.append(Service("s\(index)", needs: needs, readiness: readiness, end: end))
  }
  guard let plan = try? ServicePlan(list) else { return }
  var world = World(plan)
  world.perform(world.machine.start())
  while !choices.isEmpty { world.step(&choices) }
}

private struct World {
  var machine: ServiceMachine
  private var states: [ServiceState]
  /// Starts that have not been answered.
  private var asked = Set<ServiceID>()
  private var time = Duration.zero
  private var finished = false

  init(_ plan: ServicePlan) {
    machine = ServiceMachine(plan)
    states = plan.services.map { _ in .down }
  }

  mutating func step(_ choices: inout Choices) {
    // One that there is not, too.
    let id = ServiceID(choices.below(states.count + 1))
    time += .milliseconds(choices.below(256))
    switch choices.below(8) {
    case 0, 1:
      asked.remove(id)
      perform(machine.started(id))
    case 2:
      asked.remove(id)
      perform(machine.startFailed(id, code: choices.byte()))
    case 3: perform(machine.ready(id))
    case 4:
      perform(machine.exited(id, choices.flag() ? .exited(choices.byte()) : .signalled(9), uptime: time))
    case 5: perform(machine.signal(Int32(choices.below(66)), at: time))
    case 6:
      if let timer = ServiceMachine.Timer(key: choices.below(24)) { perform(machine.timerFired(timer)) }
    default: perform(machine.lastProcessEnded())
    }
  }

  mutating func perform(_ actions: [ServiceMachine.Action]) {
    for action in actions {
      switch action {
      case .start(let id):
        check(asked.insert(id).inserted, "\(id) is asked for twice")
        for need in machine.plan.services[id.index].needs {
          check(states[need.index] == .ready || states[need.index] == .finished, "\(id) starts before \(need)")
        }
      case .signal(let id, _), .kill(let id): check(states.indices.contains(id.index), "\(id) is no service")
      case .stateChanged(let id, let state): states[id.index] = state
      case .finish:
        check(!finished, "it finishes twice")
        finished = true
      default: break
      }
    }
  }
}
