import Testing

@testable import Supervision

/// Ten services with random needs under random schedules: whatever comes in whatever order, each ends.
struct RandomScheduleTests {
  /// Processes that behave, some of which die, in any order that is possible. Some take longer to end than anybody waits.
  @Test func manySchedules() throws { try run(0..<20_000, hostile: false) }

  /// And with starts that fail, processes that nothing ends, timers that come after they were cancelled, and every event
  /// again at any later time.
  @Test func manySchedulesOfAnEngineThatErrs() throws { try run(100_000..<120_000, hostile: true) }

  private func run(_ seeds: Range<UInt64>, hostile: Bool) throws {
    var faults: [String] = []
    for seed in seeds {
      var random = SplitMix(seed: seed &* 0x9e37_79b9_7f4a_7c15)
      let plan = try ServicePlan(RandomServices.make(10, &random))
      var world = World(plan, hostile: hostile, random)
      world.run()
      faults += world.faults.map { "seed \(seed): \($0)" }
      if world.finishes != 1 { faults.append("seed \(seed): the enclave ends \(world.finishes) times") }
      for index in plan.services.indices {
        let state = world.machine.state(ServiceID(index))
        if state != .finished, state != .failed {
          faults.append("seed \(seed): \(plan.services[index].name) is \(state?.description ?? "unknown") at the end")
        }
      }
      if !world.timers.isEmpty { faults.append("seed \(seed): a timer outlives the enclave") }
    }
    #expect(faults.prefix(20) == [])
  }

  /// The schedules are worth something: each way of the table is gone, and services are stopped in many of them.
  @Test func theSchedulesGoEveryWay() throws {
    var ways = Set<Way>()
    var stops = 0
    for seed in 0..<1_300 where seed < 300 || seed >= 1_000 {
      var random = SplitMix(seed: UInt64(seed) &* 0x9e37_79b9_7f4a_7c15)
      var world = World(try ServicePlan(RandomServices.make(10, &random)), hostile: seed >= 1_000, random)
      world.run()
      ways.formUnion(world.ways)
      stops += world.stopped.count
    }
    #expect(
      ways == Way.table, "not gone: \(Way.table.subtracting(ways)), not in the table: \(ways.subtracting(Way.table))")
    #expect(stops > 1_000)
  }
}

/// From a state to a state: the table of `ServiceMachine`.
struct Way: Hashable {
  var from: ServiceState
  var to: ServiceState

  static let table: Set<Way> = {
    let ways: [ServiceState: [ServiceState]] = [
      .down: [.starting, .backoff, .finished],
      .starting: [.up, .ready, .killed, .down, .backoff, .finished, .failed],
      .up: [.ready, .finished, .down, .backoff, .failed, .stopping, .killed],
      .ready: [.finished, .down, .backoff, .failed, .stopping, .killed],
      .stopping: [.finished, .killed],
      .killed: [.down, .backoff, .finished, .failed],
      .backoff: [.down, .finished],
      .finished: [],
      .failed: [],
    ]
    return Set(ways.flatMap { from, all in all.map { Way(from: from, to: $0) } })
  }()
}

/// An engine, its processes and its time, all of which happen in any order.
struct World {
  private enum Event: Hashable {
    case started(Int), startFailed(Int), ready(Int), exited(Int, UInt8), timer(Int), signal(Int32), strays, last
  }

  private struct Process {
    var startAsked = false
    var runs = false
    var isTold = false
    /// It has got SIGKILL: whether it has ended or not, no instruction of its program is run any more.
    var isKilled = false
    /// Uninterruptible: not even SIGKILL ends it.
    var isStuck = false
    var saidReady = false
  }

  private(set) var machine: ServiceMachine
  private let hostile: Bool
  private var random: SplitMix
  private var processes: [Process]
  private var states: [ServiceState]
  private var past: [Event] = []
  private var firstReady: [Int] = []
  private(set) var timers = Set<Int>()
  private(set) var stopped: [Int] = []
  private(set) var ways = Set<Way>()
  private(set) var faults: [String] = []
  private(set) var finishes = 0

  init(_ plan: ServicePlan, hostile: Bool, _ random: SplitMix) {
    machine = ServiceMachine(plan)
    self.hostile = hostile
    self.random = random
    processes = [Process](repeating: Process(), count: plan.services.count)
    states = [ServiceState](repeating: .down, count: plan.services.count)
  }

  private mutating func chance(_ percent: Int) -> Bool { Int.random(in: 0..<100, using: &random) < percent }

  mutating func run() {
    let stopAt = Int.random(in: 0..<120, using: &random)
    perform(machine.start())
    for step in 0..<20_000 where machine.phase != .finished {
      if step == stopAt { happen(.signal(15)) }
      // An engine's own mistakes are over some day, or nothing could be promised.
      if hostile, step < 400, chance(15), let event = past.randomElement(using: &random) { happen(event) }
      if let event = possible().randomElement(using: &random) { happen(event) }
    }
    checkOrder()
  }

  private mutating func possible() -> [Event] {
    var events: [Event] = []
    for index in processes.indices {
      let process = processes[index]
      if process.startAsked { events.append(hostile && chance(20) ? .startFailed(index) : .started(index)) }
      guard process.runs else { continue }
      if case .notified = machine.plan.services[index].readiness, !process.saidReady { events.append(.ready(index)) }
      let isOneShot = machine.plan.services[index].readiness.isOneShot
      if process.isTold ? !process.isStuck : chance(isOneShot ? 50 : 3) {
        events.append(
          .exited(index, !process.isTold && isOneShot && !chance(20) ? 0 : UInt8.random(in: 0...2, using: &random)))
      }
    }
    // Mostly things happen in time.
    if events.isEmpty || chance(5) { events += timers.sorted().map { .timer($0) } }
    if chance(2) { events.append(.signal(SignalRules.passed.filter { $0 != 15 }.randomElement(using: &random) ?? 1)) }
    if machine.phase == .stoppingStrays { events.append(.strays) }
    if machine.phase == .stoppingRest { events.append(.last) }
    return events
  }

  private mutating func happen(_ event: Event) {
    past.append(event)
    switch event {
    case .started(let index):
      if processes[index].startAsked { processes[index] = Process(runs: true, isStuck: hostile && chance(10)) }
      perform(machine.started(ServiceID(index)))
    case .startFailed(let index):
      processes[index].startAsked = false
      perform(machine.startFailed(ServiceID(index), code: 125))
    case .ready(let index):
      processes[index].saidReady = true
      perform(machine.ready(ServiceID(index)))
    case .exited(let index, let status):
      processes[index].runs = false
      perform(
        machine.exited(ServiceID(index), .exited(status), uptime: .seconds(Int.random(in: 0...20, using: &random))))
    case .timer(let key):
      timers.remove(key)
      if let timer = ServiceMachine.Timer(key: key) { perform(machine.timerFired(timer)) }
    case .signal(let signal): perform(machine.signal(signal, at: .milliseconds(100 * past.count)))
    case .strays: perform(machine.straysEnded())
    case .last: perform(machine.lastProcessEnded())
    }
  }

  private mutating func perform(_ actions: [ServiceMachine.Action]) {
    for action in actions {
      switch action {
      case .start(let id): start(id.index)
      case .signal(let id, _): if machine.phase != .running { processes[id.index].isTold = processes[id.index].runs }
      case .kill(let id):
        processes[id.index].isTold = processes[id.index].runs
        processes[id.index].isKilled = processes[id.index].runs
      case .setTimer(let timer, _): timers.insert(timer.key)
      case .cancelTimer(let timer): timers.remove(timer.key)
      case .stateChanged(let id, let state): changed(id.index, state)
      case .finish: finishes += 1
      case .signalRest:
        for index in states.indices where states[index].isAlive {
          faults.append("\(index) lives when the rest is told to end")
        }
      case .killRest, .log, .signalStrays, .killStrays: break
      }
    }
  }

  private mutating func start(_ index: Int) {
    for need in machine.plan.services[index].needs {
      let isReady = states[need.index] == .ready || states[need.index] == .finished
      if !isReady { faults.append("\(index) starts while \(need.index), which it needs, is \(states[need.index])") }
    }
    // One that SIGKILL has not ended in its time is given up, and another takes its place.
    if processes[index].runs, !processes[index].isKilled { faults.append("\(index) runs twice") }
    if processes[index].startAsked { faults.append("\(index) is asked for twice") }
    processes[index] = Process(startAsked: true)
  }

  private mutating func changed(_ index: Int, _ state: ServiceState) {
    let way = Way(from: states[index], to: state)
    if !Way.table.contains(way) { faults.append("\(index): \(way.from) to \(way.to)") }
    ways.insert(way)
    states[index] = state
    if state == .stopping { stopped.append(index) }
    let isReady =
      state == .ready || state == .finished && way.from == .up && machine.plan.services[index].readiness.isOneShot
    if isReady, !firstReady.contains(index) { firstReady.append(index) }
  }

  /// Those that were never ready first, then the latest.
  private mutating func checkOrder() {
    let places = stopped.filter { !machine.plan.services[$0].holdsFiles }.map { firstReady.firstIndex(of: $0) ?? .max }
    for (earlier, later) in zip(places, places.dropFirst()) where earlier < later || earlier == later && later != .max {
      faults.append("stopped in the order \(stopped), ready in the order \(firstReady)")
      return
    }
  }
}

enum RandomServices {
  /// Needs go only to those before in a random order, so that there is no cycle.
  static func make(_ count: Int, _ random: inout SplitMix) -> [Service] {
    let order = Array(0..<count).shuffled(using: &random)
    let program = order[Int.random(in: 0..<count, using: &random)]
    var services: [Service?] = [Service?](repeating: nil, count: count)
    for (place, index) in order.enumerated() {
      let needs = order[..<place].filter { _ in Int.random(in: 0..<4, using: &random) == 0 }.map { ServiceID($0) }
      var service = Service("service \(index)", needs: needs, readiness: .started, end: .startedAgain)
      switch index == program ? 0 : Int.random(in: 1...6, using: &random) {
      case 0: service.end = .endsEnclave
      case 1, 2: service.readiness = .notified(within: .seconds(10))
      case 3:
        service.readiness = .completed(within: .seconds(10))
        service.end = Bool.random(using: &random) ? .staysDown : .startedAgain
      case 4:
        service.end = .staysDown
        service.holdsFiles = index % 2 == 0
      case 5:
        // With one of those before or after it that is started again by itself.
        let leaders = order[..<place].filter {
          services[$0]?.end == .startedAgain && services[$0]?.readiness.isOneShot == false
        }
        if let leader = leaders.randomElement(using: &random) {
          service.end = .startedAgainWith(ServiceID(leader))
          if Bool.random(using: &random) {
            // The leader needs it, as the proxy needs its keeper, and not the other way round.
            service.needs = []
            services[leader]?.needs.append(ServiceID(index))
          }
        }
      default: break
      }
      services[index] = service
    }
    return services.compactMap { $0 }
  }
}
