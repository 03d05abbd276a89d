import Supervision
import Testing

/// Each event of a service's life in a table, without a process or a clock.
struct ServiceMachineTests {
  private let proxy = ServiceID(0), program = ServiceID(1)

  private func running() throws -> ServiceMachine { Usual.running(try Usual.withProxy()) }

  @Test func theProgramWaitsForTheProxy() throws {
    var machine = try Usual.withProxy()
    #expect(machine.start().deeds == [.start(proxy), .setTimer(.ready(proxy), .seconds(10))])
    #expect(machine.started(proxy).deeds == [])
    #expect(
      machine.ready(proxy).deeds == [.log(.info, "the proxy is ready"), .cancelTimer(.ready(proxy)), .start(program)])
    // A proxy started again is ready again; the program is not started twice.
    #expect(machine.ready(proxy) == [])
    _ = machine.exited(proxy, .exited(1), uptime: .seconds(1))
    _ = machine.started(proxy)
    #expect(machine.ready(proxy).deeds == [.log(.info, "the proxy is ready")])
  }

  @Test func withoutANetworkTheProgramStartsAtOnce() throws {
    var machine = try Usual.alone()
    #expect(machine.start().deeds == [.start(ServiceID(0))])
  }

  @Test func aProxyThatIsNeverReadyEndsTheStart() throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    _ = machine.started(proxy)
    let actions = machine.timerFired(.ready(proxy))
    #expect(actions.contains(.log(.warning, "the proxy was not ready within 10.0 seconds")))
    #expect(actions.contains(.signal(proxy, 15)))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(1))
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  /// The ten seconds are not begun again with each life of a proxy that dies before it is ready.
  @Test func aProxyThatDiesBeforeItIsReadyHasNoMoreTime() throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    _ = machine.started(proxy)
    for _ in 0..<3 {
      let died = machine.exited(proxy, .exited(1), uptime: .zero) + machine.timerFired(.restart(proxy))
      #expect(died.contains(.start(proxy)))
      #expect(!died.contains(.setTimer(.ready(proxy), .seconds(10))))
      _ = machine.started(proxy)
    }
    #expect(machine.timerFired(.ready(proxy)).contains(.signal(proxy, 15)))
    #expect(machine.exited(proxy, .exited(0), uptime: .zero).contains(.signalRest))
  }

  // MARK: a mount that others have files of

  private let volume = ServiceID(1), user = ServiceID(2)

  private func mounted(required: Bool, before: Bool) throws -> ServiceMachine {
    var machine = try Usual.withVolume(required: required)
    _ = machine.start()
    _ = machine.started(proxy)
    #expect(machine.ready(proxy).contains(.start(volume)))
    _ = machine.started(volume)
    if before { #expect(machine.ready(volume).contains(.start(user)) == required) }
    _ = machine.started(user)
    if !before { #expect(machine.ready(volume).contains(.log(.info, "the mount of /data is ready"))) }
    return machine
  }

  /// What the program has left ends before the mount is told, which would be in use; the proxy is there until then.
  @Test func whatTheProgramHasLeftEndsBeforeTheMount() throws {
    var machine = try mounted(required: true, before: true)
    let ended = machine.exited(user, .exited(0), uptime: .seconds(1)).deeds
    #expect(ended.suffix(2) == [.signalStrays, .setTimer(.rest, .seconds(1))])
    #expect(
      machine.straysEnded().deeds == [.cancelTimer(.rest), .signal(volume, 15), .setTimer(.stop(volume), .seconds(18))])
    #expect(machine.straysEnded() == [])
    #expect(machine.exited(volume, .exited(0), uptime: .seconds(1)).contains(.signal(proxy, 15)))
    #expect(machine.exited(proxy, .exited(0), uptime: .seconds(1)).contains(.signalRest))
    #expect(machine.lastProcessEnded().contains(.finish(0)))
  }

  /// One that nothing ends waits for a server: unmounting by force is what ends it.
  @Test func whatDoesNotEndHoldsNobodyUp() throws {
    var machine = try mounted(required: true, before: true)
    _ = machine.exited(user, .exited(0), uptime: .seconds(1))
    #expect(machine.timerFired(.rest) == [.killStrays, .setTimer(.rest, .seconds(1))])
    #expect(machine.timerFired(.rest).contains(.signal(volume, 15)))
    _ = machine.timerFired(.stop(volume))
    #expect(machine.timerFired(.stop(volume)).contains(.signal(proxy, 15)))
  }

  /// Whenever it was ready, the program has its files until its own end.
  @Test(arguments: [true, false]) func aMountStaysWhileTheProgramStops(_ before: Bool) throws {
    var machine = try mounted(required: false, before: before)
    #expect(machine.signal(15, at: .zero).deeds == [.signal(user, 15), .setTimer(.stop(user), .seconds(10))])
    #expect(machine.exited(user, .signalled(15), uptime: .seconds(1)).contains(.signalStrays))
    #expect(machine.straysEnded().contains(.signal(volume, 15)))
  }

  @Test func aMountThatIsNotThereInTimeEndsTheStartOnlyWhereItIsRequired() throws {
    for required in [true, false] {
      var machine = try Usual.withVolume(required: required)
      _ = machine.start()
      _ = machine.started(proxy)
      #expect(machine.ready(proxy).contains(.start(user)) == !required)
      _ = machine.started(volume)
      if !required { _ = machine.started(user) }
      let late = machine.timerFired(.ready(volume))
      #expect(late.contains(.log(.warning, "the mount of /data was not ready within 90.0 seconds")))
      #expect(late.contains(.signalStrays) == required)
      // One that cannot be had at all does not wait for its time.
      var other = try Usual.withVolume(required: required)
      _ = other.start()
      _ = other.started(proxy)
      _ = other.ready(proxy)
      _ = other.started(volume)
      if !required { _ = other.started(user) }
      let failed = other.exited(volume, .exited(125), uptime: .seconds(1))
      #expect(failed.contains(.signal(proxy, 15)) == required)
    }
  }

  /// The whole end, in order, with the program's status.
  @Test(arguments: [(Supervision.ExitStatus.exited(7), UInt8(7)), (.signalled(9), 137), (.exited(0), 0)])
  func theEnd(_ status: Supervision.ExitStatus, _ code: UInt8) throws {
    var machine = try running()
    #expect(
      machine.exited(program, status, uptime: .seconds(1)).deeds.suffix(2)
        == [.signal(proxy, 15), .setTimer(.stop(proxy), .seconds(2))])
    #expect(
      machine.exited(proxy, .exited(0), uptime: .seconds(1)).deeds
        == [.cancelTimer(.stop(proxy)), .signalRest, .setTimer(.rest, .seconds(1))])
    #expect(machine.lastProcessEnded() == [.cancelTimer(.rest), .finish(code)])
    #expect(machine.phase == .finished)
    #expect(machine.lastProcessEnded() == [])
    #expect(machine.signal(15, at: .zero) == [])
  }

  @Test(arguments: [UInt8(127), 126, 125])
  func aProgramThatCannotBeStartedEndsTheEnclaveWithItsCode(_ code: UInt8) throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    _ = machine.started(proxy)
    _ = machine.ready(proxy)
    #expect(machine.startFailed(program, code: code).contains(.signal(proxy, 15)))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(1))
    #expect(machine.lastProcessEnded().contains(.finish(code)))
  }

  /// Something that neither SIGTERM nor SIGKILL ends must not hold the enclave up.
  @Test func theRestIsKilledAndThenGivenUp() throws {
    var machine = try running()
    _ = machine.exited(program, .exited(3), uptime: .seconds(1))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(1))
    #expect(machine.timerFired(.rest) == [.killRest, .setTimer(.rest, .seconds(1))])
    #expect(machine.timerFired(.rest) == [.cancelTimer(.rest), .finish(3)])
  }

  @Test func aProxyThatDoesNotStopIsKilled() throws {
    var machine = try running()
    _ = machine.exited(program, .exited(0), uptime: .seconds(1))
    #expect(
      machine.timerFired(.stop(proxy)).deeds == [
        .log(.warning, "the proxy did not stop within 2.0 seconds: SIGKILL"), .kill(proxy),
        .setTimer(.stop(proxy), .seconds(1)),
      ])
    // Not even SIGKILL ended it: the enclave's end does not wait for it.
    #expect(machine.timerFired(.stop(proxy)).contains(.signalRest))
    #expect(machine.state(proxy) == .failed)
  }

  @Test func aDeadProxyIsBackAtOnceAndThenMoreSlowly() throws {
    var machine = try running()
    var delays: [Duration] = []
    for _ in 0..<9 {
      let actions = machine.exited(proxy, .signalled(9), uptime: .zero)
      if actions.contains(.start(proxy)) {
        delays.append(.zero)
      } else {
        for case .setTimer(.restart(proxy), let delay) in actions { delays.append(delay) }
        #expect(machine.timerFired(.restart(proxy)).contains(.start(proxy)))
      }
      _ = machine.started(proxy)
    }
    #expect(
      delays == [
        .zero, .milliseconds(100), .milliseconds(200), .milliseconds(400), .milliseconds(800), .milliseconds(1600),
        .milliseconds(3200), .seconds(5), .seconds(5),
      ])
    #expect(machine.tally(proxy) == 9)
    #expect(machine.exited(proxy, .exited(0), uptime: .seconds(60)).contains(.start(proxy)))
    #expect(machine.phase == .running)
    #expect(machine.state(program) == .ready)
  }

  @Test func aProxyThatCannotBeStartedIsTriedAgain() throws {
    var machine = try running()
    _ = machine.exited(proxy, .signalled(9), uptime: .zero)
    #expect(
      machine.startFailed(proxy, code: 125).deeds == [
        .log(.warning, "the proxy exited with status 125; starting it again in 0.1 seconds"),
        .setTimer(.restart(proxy), .milliseconds(100)),
      ])
  }

  @Test func stopSignalsAreForwardedAndBounded() throws {
    let program = ServiceID(0)
    var machine = try Usual.alone(stopSignal: 3, stopTimeout: .seconds(4))
    _ = machine.start()
    _ = machine.started(program)
    #expect(machine.signal(10, at: .zero) == [.signal(program, 10)])
    #expect(machine.signal(15, at: .zero).deeds == [.signal(program, 3), .setTimer(.stop(program), .seconds(4))])
    // A second request is passed on, and does not give the program more time.
    #expect(machine.signal(15, at: .zero) == [.signal(program, 3)])
    #expect(
      machine.timerFired(.stop(program)).deeds.suffix(2) == [.kill(program), .setTimer(.stop(program), .seconds(2))])
    #expect(machine.timerFired(.stop(program)).contains(.signalRest))
    #expect(machine.lastProcessEnded().contains(.finish(137)))
  }

  /// One Ctrl-C, a thread dump, a hang-up: the program's own affair, however often, but for two Ctrl-C at once.
  @Test func onlyARequestToEndIsBounded() throws {
    var machine = try running()
    for signal in SignalRules.passed where signal != 15 {
      #expect(machine.signal(signal, at: .zero) == [.signal(program, signal)])
    }
    #expect(machine.signal(3, at: .zero) == [.signal(program, 3)])
    #expect(machine.signal(2, at: .milliseconds(2001)) == [.signal(program, 2)])
    #expect(
      machine.signal(2, at: .milliseconds(4001)).deeds
        == [.signal(program, 2), .setTimer(.stop(program), .seconds(10))])
    // Told once: neither another one nor a SIGTERM gives it more time.
    #expect(machine.signal(2, at: .milliseconds(4002)) == [.signal(program, 2)])
    #expect(machine.signal(15, at: .milliseconds(4003)) == [.signal(program, 15)])
    #expect(machine.exited(program, .exited(1), uptime: .seconds(1)).contains(.cancelTimer(.stop(program))))
  }

  @Test func aProxyThatDiesWhileTheProgramStopsIsStartedAgain() throws {
    var machine = try running()
    _ = machine.signal(15, at: .zero)
    #expect(machine.exited(proxy, .signalled(9), uptime: .seconds(20)).contains(.start(proxy)))
  }

  @Test func signalsBeforeTheProgramAreNotLost() throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    _ = machine.started(proxy)
    #expect(machine.signal(10, at: .zero) == [])
    _ = machine.ready(proxy)
    // Told to start, and not there yet.
    #expect(machine.signal(12, at: .zero) == [])
    #expect(machine.started(program).deeds == [.signal(program, 10), .signal(program, 12)])
  }

  @Test func toldToStopBeforeItStarted() throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    _ = machine.started(proxy)
    let actions = machine.signal(15, at: .zero)
    #expect(actions.first == .log(.warning, "told to stop before the program was started"))
    #expect(actions.contains(.signal(proxy, 15)))
    // The proxy becoming ready now must not start the program.
    #expect(machine.ready(proxy) == [])
    _ = machine.exited(proxy, .exited(0), uptime: .zero)
    #expect(machine.lastProcessEnded().contains(.finish(143)))
  }

  /// The engine has been told to start the proxy, and the enclave ends before it has.
  @Test func whatStartsTooLateIsEndedAtOnce() throws {
    var machine = try Usual.withProxy()
    _ = machine.start()
    #expect(machine.signal(15, at: .zero).deeds.last == .setTimer(.stop(proxy), .seconds(2)))
    #expect(machine.started(proxy).deeds == [.kill(proxy), .setTimer(.stop(proxy), .seconds(1))])
    #expect(machine.exited(proxy, .signalled(9), uptime: .zero).contains(.signalRest))
    // Given up, and there all the same.
    #expect(machine.started(proxy) == [.kill(proxy)])
  }

  // MARK: companions

  @Test func aKeeperDiesWithTheProxyAndBothStartAgain() throws {
    let keeper = ServiceID(0), proxy = ServiceID(1)
    var machine = try Usual.withKeeper()
    _ = machine.start()
    _ = machine.started(keeper)
    _ = machine.started(proxy)
    _ = machine.ready(proxy)
    _ = machine.started(ServiceID(2))
    let died = machine.exited(proxy, .signalled(9), uptime: .seconds(20))
    #expect(died.contains(.kill(keeper)))
    // The next proxy is not to meet the last one's keeper.
    #expect(!died.contains(.start(proxy)))
    #expect(machine.exited(keeper, .signalled(9), uptime: .seconds(20)).contains(.start(keeper)))
    #expect(machine.started(keeper).contains(.start(proxy)))
  }

  @Test func aKeeperThatSIGKILLDoesNotEndHoldsNobodyUp() throws {
    let keeper = ServiceID(0), proxy = ServiceID(1)
    var machine = try Usual.withKeeper()
    _ = machine.start()
    _ = machine.started(keeper)
    _ = machine.started(proxy)
    _ = machine.exited(proxy, .signalled(9), uptime: .seconds(20))
    #expect(machine.timerFired(.stop(keeper)).contains(.start(keeper)))
  }

  /// Whatever the engine takes to start it: a second one that is asked for meanwhile would be a second proxy, and nobody
  /// would end the first.
  @Test func aProxyWhoseStartIsNotAnsweredIsNotAskedForTwice() throws {
    let keeper = ServiceID(0), proxy = ServiceID(1)
    var machine = try Usual.withKeeper()
    _ = machine.start()
    #expect(machine.started(keeper).contains(.start(proxy)))
    #expect(machine.exited(keeper, .exited(1), uptime: .zero).contains(.setTimer(.stop(proxy), .seconds(2))))
    for _ in 0..<3 { #expect(machine.timerFired(.stop(proxy)) == [.setTimer(.stop(proxy), .seconds(2))]) }
    var late = machine
    #expect(late.started(proxy).contains(.kill(proxy)))
    #expect(late.exited(proxy, .signalled(9), uptime: .zero).contains(.start(keeper)))
    #expect(late.started(keeper).contains(.start(proxy)))
    // The end does not wait for the answer.
    #expect(machine.timerFired(.ready(proxy)).contains(.log(.warning, "the proxy was not ready within 10.0 seconds")))
    #expect(machine.timerFired(.stop(proxy)).contains(.signalRest))
    #expect(machine.started(proxy) == [.kill(proxy)])
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  /// It is tried again with growing delays, and the start's time is bounded by the proxy's.
  @Test func aKeeperThatCannotBeStartedEndsTheStart() throws {
    let keeper = ServiceID(0), proxy = ServiceID(1)
    var machine = try Usual.withKeeper()
    _ = machine.start()
    let first = machine.startFailed(keeper, code: 125)
    #expect(first.contains(.start(keeper)))
    #expect(first.contains(.setTimer(.ready(proxy), .seconds(10))))
    #expect(machine.startFailed(keeper, code: 125).contains(.setTimer(.restart(proxy), .milliseconds(100))))
    #expect(machine.timerFired(.restart(proxy)).contains(.start(keeper)))
    _ = machine.startFailed(keeper, code: 125)
    #expect(machine.timerFired(.ready(proxy)).contains(.signalRest))
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  // MARK: one-shots

  @Test func aMountComesAfterTheNetworkAndBeforeTheProgram() throws {
    let mount = ServiceID(1), program = ServiceID(2)
    var machine = try Usual.withMount()
    _ = machine.start()
    _ = machine.started(proxy)
    let ready = machine.ready(proxy)
    #expect(ready.contains(.start(mount)))
    #expect(!ready.contains(.start(program)))
    // That it runs is not enough, and it has no readiness but its end.
    #expect(!machine.started(mount).contains(.start(program)))
    #expect(machine.ready(mount) == [])
    #expect(machine.exited(mount, .exited(0), uptime: .seconds(1)).contains(.start(program)))
    #expect(machine.state(mount) == .finished)
    _ = machine.started(program)
    // What has ended is not told to stop.
    #expect(machine.exited(program, .exited(0), uptime: .seconds(1)).contains(.signal(proxy, 15)))
  }

  @Test func aMountThatFailsEndsTheStart() throws {
    let mount = ServiceID(1)
    var machine = try Usual.withMount()
    _ = machine.start()
    _ = machine.started(proxy)
    _ = machine.ready(proxy)
    _ = machine.started(mount)
    let actions = machine.exited(mount, .exited(32), uptime: .seconds(1))
    #expect(
      actions.contains(.log(.error, "the mount of /data exited with status 32, so the program is not started")))
    #expect(actions.contains(.signal(proxy, 15)))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(1))
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  @Test func aMountThatHangsEndsTheStart() throws {
    let mount = ServiceID(1)
    var machine = try Usual.withMount()
    _ = machine.start()
    _ = machine.started(proxy)
    #expect(machine.ready(proxy).contains(.setTimer(.ready(mount), .seconds(30))))
    _ = machine.started(mount)
    let actions = machine.timerFired(.ready(mount))
    #expect(actions.contains(.log(.warning, "the mount of /data was not done within 30.0 seconds")))
    // It is stopped before the proxy, through which it works.
    #expect(actions.contains(.signal(mount, 15)))
    #expect(machine.exited(mount, .signalled(15), uptime: .seconds(31)).contains(.signal(proxy, 15)))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(31))
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  /// A proxy that dies while the mount works must be ready again before the program starts, and in time.
  @Test func aProxyThatDiesWhileTheMountWorksIsWaitedFor() throws {
    let mount = ServiceID(1), program = ServiceID(2)
    var machine = try Usual.withMount()
    _ = machine.start()
    _ = machine.started(proxy)
    _ = machine.ready(proxy)
    _ = machine.started(mount)
    #expect(
      machine.exited(proxy, .exited(1), uptime: .seconds(1)).contains(.setTimer(.ready(proxy), .seconds(10))))
    _ = machine.started(proxy)
    #expect(!machine.exited(mount, .exited(0), uptime: .seconds(1)).contains(.start(program)))
    #expect(machine.ready(proxy).contains(.start(program)))
  }

  /// What the program does not need does not end the start, or the enclave.
  @Test func whatTheProgramDoesNotNeedMayFail() throws {
    let program = ServiceID(0), other = ServiceID(1)
    var machine = ServiceMachine(
      try ServicePlan([
        Usual.program([]), Service("a report", readiness: .completed(within: .seconds(1)), end: .staysDown),
      ]))
    _ = machine.start()
    _ = machine.started(other)
    #expect(
      machine.exited(other, .exited(1), uptime: .zero) == [
        .cancelTimer(.ready(other)), .stateChanged(other, .failed), .log(.warning, "a report exited with status 1"),
      ])
    #expect(machine.phase == .running)
    #expect(machine.started(program).contains(.stateChanged(program, .ready)))
  }

  // MARK: the order of the end

  /// A service that was ready after the program may need it, so it stops first; those before it live on meanwhile.
  @Test func whatIsReadyAfterTheProgramStopsBeforeIt() throws {
    let proxy = ServiceID(0), program = ServiceID(1), sidecar = ServiceID(2)
    var machine = ServiceMachine(
      try ServicePlan([
        Usual.proxy(), Usual.program([proxy]),
        Service("a sidecar", needs: [program], readiness: .started, end: .startedAgain),
      ]))
    _ = machine.start()
    _ = machine.started(proxy)
    _ = machine.ready(proxy)
    #expect(machine.started(program).contains(.start(sidecar)))
    _ = machine.started(sidecar)
    #expect(machine.signal(15, at: .zero).deeds == [.signal(sidecar, 15), .setTimer(.stop(sidecar), .seconds(2))])
    #expect(machine.exited(proxy, .exited(1), uptime: .seconds(20)).contains(.start(proxy)))
    // Asked again, it is not told before its turn; another signal is passed on.
    #expect(machine.signal(15, at: .zero) == [])
    #expect(machine.signal(10, at: .zero) == [.signal(program, 10)])
    #expect(
      machine.exited(sidecar, .exited(0), uptime: .seconds(1)).deeds
        == [.cancelTimer(.stop(sidecar)), .signal(program, 15), .setTimer(.stop(program), .seconds(10))])
  }

  @Test func idsThatAreNotOfThePlanChangeNothing() throws {
    var machine = try running()
    let before = machine
    for id in [ServiceID(-1), ServiceID(2), ServiceID(.max)] {
      #expect(machine.started(id) == [])
      #expect(machine.ready(id) == [])
      #expect(machine.startFailed(id, code: 1) == [])
      #expect(machine.exited(id, .exited(0), uptime: .zero) == [])
      for timer in [ServiceMachine.Timer.ready(id), .restart(id), .stop(id)] {
        #expect(machine.timerFired(timer) == [])
      }
      #expect(machine.state(id) == nil)
    }
    #expect(machine == before)
  }
}
