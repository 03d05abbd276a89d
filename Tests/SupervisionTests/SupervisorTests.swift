import Supervision
import Testing

/// Each event of an enclave's life in a table, without a process or a clock.
struct SupervisorTests {
  func running() -> Supervisor {
    var machine = Supervisor(.init(hasProxy: true))
    _ = machine.start()
    _ = machine.proxyStarted()
    _ = machine.proxyReady()
    _ = machine.programStarted()
    return machine
  }

  @Test func theProgramWaitsForTheProxy() {
    var machine = Supervisor(.init(hasProxy: true))
    #expect(machine.start() == [.startProxy(after: .zero), .setTimer(.ready, .seconds(10))])
    #expect(machine.proxyStarted() == [])
    #expect(machine.proxyReady() == [.cancelTimer(.ready), .startProgram])
    // A proxy started again is ready again; the program is not started twice.
    #expect(machine.proxyReady() == [])
  }

  @Test func withoutANetworkTheProgramStartsAtOnce() {
    var machine = Supervisor(.init(hasProxy: false))
    #expect(machine.start() == [.startProgram])
  }

  @Test func aProxyThatIsNeverReadyEndsTheStart() {
    var machine = Supervisor(.init(hasProxy: true))
    _ = machine.start()
    _ = machine.proxyStarted()
    let actions = machine.timerFired(.ready)
    #expect(actions.contains(.stopProxy))
    _ = machine.proxyExited(.exited(0), uptime: .seconds(1))
    #expect(machine.lastProcessEnded().contains(.finish(125)))
  }

  /// The whole end, in order, with the program's status.
  @Test(arguments: [(Supervision.ExitStatus.exited(7), UInt8(7)), (.signalled(9), 137), (.exited(0), 0)])
  func theEnd(_ status: Supervision.ExitStatus, _ code: UInt8) {
    var machine = running()
    #expect(machine.programExited(status).suffix(2) == [.stopProxy, .setTimer(.proxyStop, .seconds(2))])
    #expect(
      machine.proxyExited(.exited(0), uptime: .seconds(1))
        == [.cancelTimer(.proxyStop), .stopRest, .setTimer(.restStop, .seconds(1))])
    #expect(machine.lastProcessEnded() == [.cancelTimer(.restStop), .finish(code)])
    #expect(machine.phase == .finished)
    #expect(machine.lastProcessEnded() == [])
    #expect(machine.signal(15, at: .zero) == [])
  }

  /// Something that neither SIGTERM nor SIGKILL ends must not hold the enclave up.
  @Test func theRestIsKilledAndThenGivenUp() {
    var machine = running()
    _ = machine.programExited(.exited(3))
    _ = machine.proxyExited(.exited(0), uptime: .seconds(1))
    #expect(machine.timerFired(.restStop) == [.killRest, .setTimer(.restStop, .seconds(1))])
    #expect(machine.timerFired(.restStop) == [.cancelTimer(.restStop), .finish(3)])
  }

  @Test func aProxyThatDoesNotStopIsKilled() {
    var machine = running()
    _ = machine.programExited(.exited(0))
    #expect(machine.timerFired(.proxyStop) == [.killProxy, .setTimer(.proxyStop, .seconds(1))])
    // Not even SIGKILL ended it: the enclave's end does not wait for it.
    #expect(machine.timerFired(.proxyStop).first == .stopRest)
  }

  @Test func aDeadProxyIsBackAtOnceAndThenMoreSlowly() {
    var machine = running()
    var delays: [Duration] = []
    for _ in 0..<9 {
      for case .startProxy(let delay) in machine.proxyExited(.signalled(9), uptime: .zero) { delays.append(delay) }
      _ = machine.proxyStarted()
    }
    #expect(
      delays == [
        .zero, .milliseconds(100), .milliseconds(200), .milliseconds(400), .milliseconds(800), .milliseconds(1600),
        .milliseconds(3200), .seconds(5), .seconds(5),
      ])
    #expect(machine.proxyExited(.exited(0), uptime: .seconds(60)).contains(.startProxy(after: .zero)))
    #expect(machine.phase == .running)
  }

  @Test func stopSignalsAreForwardedAndBounded() {
    var machine = Supervisor(.init(hasProxy: false, stopSignal: 3, stopTimeout: .seconds(4)))
    _ = machine.start()
    _ = machine.programStarted()
    #expect(machine.signal(10, at: .zero) == [.signalProgram(10)])
    #expect(machine.signal(15, at: .zero) == [.signalProgram(3), .setTimer(.stop, .seconds(4))])
    // A second request is passed on, and does not give the program more time.
    #expect(machine.signal(15, at: .zero) == [.signalProgram(3)])
    #expect(machine.timerFired(.stop).suffix(2) == [.killProgram, .setTimer(.stop, .seconds(2))])
    #expect(machine.timerFired(.stop).contains(.stopRest))
  }

  /// One Ctrl-C, a thread dump, a hang-up: the program's own affair, however often, but for two Ctrl-C at once.
  @Test func onlyARequestToEndIsBounded() {
    var machine = running()
    for signal in SignalRules.passed where signal != 15 {
      #expect(machine.signal(signal, at: .zero) == [.signalProgram(signal)])
    }
    #expect(machine.signal(3, at: .zero) == [.signalProgram(3)])
    #expect(machine.signal(2, at: .milliseconds(2001)) == [.signalProgram(2)])
    #expect(machine.signal(2, at: .milliseconds(4001)) == [.signalProgram(2), .setTimer(.stop, .seconds(10))])
    // Told once: neither another one nor a SIGTERM gives it more time.
    #expect(machine.signal(2, at: .milliseconds(4002)) == [.signalProgram(2)])
    #expect(machine.signal(15, at: .milliseconds(4003)) == [.signalProgram(15)])
    #expect(machine.programExited(.exited(1)).contains(.cancelTimer(.stop)))
  }

  @Test func signalsBeforeTheProgramAreNotLost() {
    var machine = Supervisor(.init(hasProxy: true))
    _ = machine.start()
    _ = machine.proxyStarted()
    #expect(machine.signal(10, at: .zero) == [])
    _ = machine.proxyReady()
    #expect(machine.programStarted() == [.signalProgram(10)])
  }

  @Test func toldToStopBeforeItStarted() {
    var machine = Supervisor(.init(hasProxy: true))
    _ = machine.start()
    _ = machine.proxyStarted()
    #expect(machine.signal(15, at: .zero).contains(.stopProxy))
    // The proxy becoming ready now must not start the program.
    #expect(machine.proxyReady() == [])
    _ = machine.proxyExited(.exited(0), uptime: .zero)
    #expect(machine.lastProcessEnded().contains(.finish(143)))
  }

  /// Whatever comes in whatever order: no trap, and at most one finish.
  @Test func anyOrderOfEvents() {
    for _ in 0..<20_000 {
      var machine = Supervisor(.init(hasProxy: Bool.random()))
      var finishes = 0
      var actions = machine.start()
      for _ in 0..<30 {
        finishes += actions.filter { if case .finish = $0 { true } else { false } }.count
        switch Int.random(in: 0...8) {
        case 0: actions = machine.proxyStarted()
        case 1: actions = machine.proxyReady()
        case 2: actions = machine.programStarted()
        case 3: actions = machine.programExited(.exited(1))
        case 4: actions = machine.proxyExited(.signalled(11), uptime: .seconds(Int.random(in: 0...20)))
        case 5: actions = machine.lastProcessEnded()
        case 6: actions = machine.signal(SignalRules.passed.randomElement() ?? 15, at: .seconds(Int.random(in: 0...9)))
        case 7: actions = machine.timerFired([.ready, .stop, .proxyStop, .restStop].randomElement() ?? .stop)
        default: actions = machine.programFailed(code: 127)
        }
      }
      #expect(finishes <= 1)
    }
  }
}
