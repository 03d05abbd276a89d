// How the program, the other services and everything else are told to stop.
extension ServiceMachine {
  // MARK: signals

  mutating func take(_ signal: Int32, at time: Duration) {
    guard phase == .running || phase == .draining || phase == .stoppingProgram else { return }
    let program = plan.services[plan.program.index]
    let translated = signal == Self.sigterm ? program.stop.signal : signal
    switch slots[plan.program.index].state {
    // There is no program yet whose affair a SIGINT or SIGQUIT could be.
    case .down where signal == Self.sigterm || signal == Self.sigint || signal == Self.sigquit:
      emit(.log(.warning, "told to stop before \(program.name) was started"))
      endEnclave(UInt8(truncatingIfNeeded: 128 + signal))
    case .down, .starting: signalsBeforeStart.append(EarlySignal(signal: signal, time: time))
    case .up, .ready:
      guard rules.endsProgram(signal, at: time) else {
        emit(.signal(plan.program, translated))
        return
      }
      // Its turn to stop comes: it has been asked for.
      guard phase != .stoppingProgram else { return }
      programStop = translated
      if phase == .running, drain() { return }
      stopProgram()
    default: emit(.signal(plan.program, translated))
    }
  }

  /// - Returns: false where no service has connections to drain.
  private mutating func drain() -> Bool {
    for index in slots.indices where slots[index].state == .ready {
      guard let time = plan.services[index].drain else { continue }
      phase = .draining
      emit(.log(.info, "told to stop: no new connections; those that are open have \(time)"))
      emit(.signal(ServiceID(index), Self.sigusr2))
      emit(.setTimer(.drain, time + Self.drainPatience))
      return true
    }
    return false
  }

  mutating func stopProgram() {
    if phase == .draining { emit(.cancelTimer(.drain)) }
    phase = .stoppingProgram
    for index in slots.indices where comesAfterProgram(index) { forget(index) }
    stopNext()
  }

  mutating func passSignalsOn() {
    let signals = signalsBeforeStart
    signalsBeforeStart = []
    for early in signals { take(early.signal, at: early.time) }
  }

  // MARK: services

  /// It was ready after the program, or has not been ready yet.
  func comesAfterProgram(_ index: Int) -> Bool {
    if plan.services[index].holdsFiles { return false }
    for earlier in readinessOrder {
      if earlier == plan.program.index { return index != earlier }
      if earlier == index { return false }
    }
    return index != plan.program.index
  }

  /// From here on nothing is started.
  mutating func endEnclave(_ code: UInt8) {
    guard phase == .running || phase == .draining || phase == .stoppingProgram else { return }
    if phase == .draining { emit(.cancelTimer(.drain)) }
    status = code
    let holdsFiles = slots.indices.contains { plan.services[$0].holdsFiles && slots[$0].state.isAlive }
    phase = holdsFiles ? .stoppingStrays : .stoppingServices
    for index in slots.indices { forget(index) }
    guard holdsFiles else { return stopNext() }
    emit(.signalStrays)
    emit(.setTimer(.rest, Self.restStopTimeout))
  }

  mutating func stopServices() {
    emit(.cancelTimer(.rest))
    phase = .stoppingServices
    stopNext()
  }

  /// Nobody waits for its readiness any more, and it is not started again.
  private mutating func forget(_ index: Int) {
    noLongerExpectReadiness(index)
    if slots[index].state == .backoff { emit(.cancelTimer(.restart(ServiceID(index)))) }
    if slots[index].state == .backoff || slots[index].state == .down { set(index, .finished) }
  }

  /// One at a time: the next is told when the one before has ended.
  mutating func stopNext() {
    guard phase == .stoppingProgram || phase == .stoppingServices else { return }
    guard let index = nextToStop() else {
      phase = .stoppingRest
      emit(.signalRest)
      emit(.setTimer(.rest, Self.restStopTimeout))
      return
    }
    switch slots[index].state {
    case .starting: discard(index)
    case .up, .ready:
      let stop = plan.services[index].stop
      set(index, .stopping)
      emit(.signal(ServiceID(index), index == plan.program.index ? programStop ?? stop.signal : stop.signal))
      emit(.setTimer(.stop(ServiceID(index)), stop.timeout))
    case .down, .backoff, .stopping, .killed, .finished, .failed: break
    }
  }

  /// In `stoppingProgram` the program is alive, so that none of those before it is found.
  private func nextToStop() -> Int? {
    let isEarly = phase == .stoppingProgram
    for index in startOrder.reversed() where !slots[index].hasBeenReady && slots[index].state.isAlive {
      if !isEarly || !plan.services[index].holdsFiles { return index }
    }
    for index in readinessOrder.reversed() where slots[index].state.isAlive {
      if !isEarly || !plan.services[index].holdsFiles { return index }
    }
    return nil
  }

  /// Ends a process without asking it, now or as soon as it is there.
  mutating func discard(_ index: Int) {
    switch slots[index].state {
    case .up, .ready: takeDown(index)
    case .starting where !slots[index].isUnwanted:
      slots[index].isUnwanted = true
      emit(.setTimer(.stop(ServiceID(index)), plan.services[index].stop.timeout))
    case .starting, .down, .backoff, .stopping, .killed, .finished, .failed: break
    }
  }

  mutating func takeDown(_ index: Int) {
    emit(.kill(ServiceID(index)))
    set(index, .killed)
    emit(.setTimer(.stop(ServiceID(index)), plan.services[index].stop.patience))
  }

  mutating func stopTimeIsOver(_ index: Int) {
    let service = plan.services[index]
    switch slots[index].state {
    case .stopping:
      emit(.log(.warning, "\(service.name) did not stop within \(service.stop.timeout): SIGKILL"))
      takeDown(index)
    case .killed:
      emit(.log(.warning, "\(service.name) did not end after SIGKILL"))
      ended(index, nil, uptime: .zero)
    case .starting where slots[index].isUnwanted:
      // The engine still owes an answer. One that is wanted again is not asked for a second time before that: there would be
      // two processes, and nobody would end the first.
      if isWanted(index) {
        emit(.setTimer(.stop(ServiceID(index)), service.stop.timeout))
      } else {
        ended(index, nil, uptime: .zero)
      }
    case .starting, .down, .backoff, .up, .ready, .finished, .failed: break
    }
  }

  // MARK: the rest

  mutating func restTimeIsOver() {
    if phase == .stoppingStrays {
      // What SIGKILL does not end waits in the kernel, for a server perhaps: unmounting by force ends that.
      guard !straysKilled else { return stopServices() }
      straysKilled = true
      emit(.killStrays)
      emit(.setTimer(.rest, Self.restStopTimeout))
      return
    }
    guard phase == .stoppingRest else { return }
    guard !restKilled else {
      finish()
      return
    }
    restKilled = true
    emit(.killRest)
    emit(.setTimer(.rest, Self.restStopTimeout))
  }

  mutating func finish() {
    phase = .finished
    emit(.cancelTimer(.rest))
    emit(.finish(status))
  }
}
