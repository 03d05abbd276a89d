// How services come up, and what follows when one of them ends.
extension ServiceMachine {
  mutating func startWhatCan() {
    for index in slots.indices where slots[index].state == .down && isWanted(index) && canStart(index) {
      if !startOrder.contains(index) { startOrder.append(index) }
      set(index, .starting)
      emit(.start(ServiceID(index)))
      if let bound = plan.services[index].readiness.bound { expectReadiness(index, within: bound) }
    }
  }

  /// Whether it is started, and started again: what was ready before the program is, as long as that lives.
  func isWanted(_ index: Int) -> Bool {
    switch phase {
    case .running, .draining: true
    case .stoppingProgram: !comesAfterProgram(index)
    case .stoppingStrays, .stoppingServices, .stoppingRest, .finished: false
    }
  }

  private func canStart(_ index: Int) -> Bool {
    for need in plan.services[index].needs where !isSatisfied(need.index) { return false }
    switch plan.services[index].end {
    case .startedAgainWith(let leader):
      // Anew with each life of the other one: not while the last life of it goes on, or it waits.
      return switch slots[leader.index].state {
      case .down, .up, .ready: true
      case .starting: !slots[leader.index].isUnwanted
      case .backoff, .stopping, .killed, .finished, .failed: false
      }
    case .startedAgain:
      for other in slots.indices where plan.services[other].end == .startedAgainWith(ServiceID(index)) {
        let slot = slots[other]
        if slot.state == .killed || slot.state == .stopping || slot.isUnwanted { return false }
      }
      return true
    case .endsEnclave, .staysDown: return true
    }
  }

  private func isSatisfied(_ index: Int) -> Bool {
    slots[index].state == .ready || slots[index].state == .finished && plan.services[index].readiness.isOneShot
  }

  // MARK: readiness

  mutating func reached(_ index: Int, _ state: ServiceState) {
    set(index, state)
    noLongerExpectReadiness(index)
    if !slots[index].hasBeenReady {
      slots[index].hasBeenReady = true
      readinessOrder.append(index)
    }
    startWhatCan()
  }

  /// The time runs from the first attempt on, through all further ones, while somebody may wait for it who has not been
  /// started yet. What dies later is started again for as long as it takes.
  private mutating func expectReadiness(_ index: Int, within bound: Duration) {
    guard !slots[index].readyTimerRuns, !slots[index].hasBeenReady || holdsProgramUp(index) else { return }
    slots[index].readyTimerRuns = true
    emit(.setTimer(.ready(ServiceID(index)), bound))
  }

  mutating func noLongerExpectReadiness(_ index: Int) {
    guard slots[index].readyTimerRuns else { return }
    slots[index].readyTimerRuns = false
    emit(.cancelTimer(.ready(ServiceID(index))))
  }

  private func holdsProgramUp(_ index: Int) -> Bool {
    slots[plan.program.index].state == .down && plan.programNeeds(ServiceID(index))
  }

  mutating func readyTimeIsOver(_ index: Int) {
    guard slots[index].readyTimerRuns else { return }
    slots[index].readyTimerRuns = false
    let service = plan.services[index]
    let bound = service.readiness.bound ?? Self.startBound
    emit(.log(.warning, "\(service.name) was not \(service.readiness.isOneShot ? "done" : "ready") within \(bound)"))
    if holdsProgramUp(index) { endEnclave(125) }
  }

  // MARK: ends

  /// - Parameter exit: nil where it has not ended, and is given up.
  mutating func ended(_ index: Int, _ exit: ExitStatus?, uptime: Duration) {
    let service = plan.services[index]
    let before = slots[index]
    if before.state == .stopping || before.state == .killed || before.isUnwanted {
      emit(.cancelTimer(.stop(ServiceID(index))))
      slots[index].isUnwanted = false
    }
    if service.end == .endsEnclave {
      if let exit, before.state != .starting { emit(.log(.info, "\(service.name) \(exit)")) }
      set(index, exit == nil || before.state == .starting ? .failed : .finished)
      // Not ended by SIGKILL, it has the status of those that were.
      endEnclave(exit?.code ?? 137)
    } else if service.readiness.isOneShot, before.state == .up, exit == .exited(0) {
      reached(index, .finished)
      stopNext()
    } else if !isWanted(index) {
      noLongerExpectReadiness(index)
      set(index, exit == nil ? .failed : .finished)
      stopNext()
    } else {
      switch service.end {
      case .startedAgain: startAgain(index, exit, uptime: uptime)
      case .startedAgainWith(let leader):
        let died = before.state == .up || before.state == .ready || before.state == .starting && !before.isUnwanted
        companionEnded(index, of: leader.index, exit, uptime: uptime, died: died)
      case .staysDown, .endsEnclave: staysDown(index, exit, wasReady: before.state == .ready)
      }
    }
  }

  private func words(_ exit: ExitStatus?) -> String { exit?.description ?? "could not be ended" }

  private mutating func startAgain(_ index: Int, _ exit: ExitStatus?, uptime: Duration) {
    let delay = slots[index].backoff.delay(afterUptime: uptime)
    emit(.log(.warning, "\(plan.services[index].name) \(words(exit)); starting it again in \(delay)"))
    for other in slots.indices where plan.services[other].end == .startedAgainWith(ServiceID(index)) { discard(other) }
    pause(index, delay)
  }

  private mutating func companionEnded(
    _ index: Int, of leader: Int, _ exit: ExitStatus?, uptime: Duration, died: Bool
  ) {
    set(index, .down)
    if died {
      let name = plan.services[index].name
      guard slots[leader].state == .down else {
        emit(.log(.error, "\(name) \(words(exit))"))
        discard(leader)
        return
      }
      // The other one waits for it, so the delay is its delay.
      let delay = slots[leader].backoff.delay(afterUptime: uptime)
      emit(.log(.error, "\(name) \(words(exit)); starting it again in \(delay)"))
      pause(leader, delay)
    }
    startWhatCan()
  }

  private mutating func pause(_ index: Int, _ delay: Duration) {
    expectReadiness(index, within: plan.services[index].readiness.bound ?? Self.startBound)
    if delay == .zero {
      set(index, .down)
      startWhatCan()
    } else {
      set(index, .backoff)
      emit(.setTimer(.restart(ServiceID(index)), delay))
    }
  }

  private mutating func staysDown(_ index: Int, _ exit: ExitStatus?, wasReady: Bool) {
    let sentence = "\(plan.services[index].name) \(words(exit))"
    noLongerExpectReadiness(index)
    if holdsProgramUp(index) {
      set(index, .failed)
      emit(.log(.error, "\(sentence), so the program is not started"))
      endEnclave(125)
    } else if wasReady, exit == .exited(0) {
      set(index, .finished)
      emit(.log(.info, sentence))
    } else {
      set(index, .failed)
      emit(.log(.warning, sentence))
    }
  }
}
