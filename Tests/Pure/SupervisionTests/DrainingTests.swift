import Supervision
import Testing

/// An enclave that is told to stop while connections are open: they have their time, and the program is told after it.
struct DrainingTests {
  private let proxy = ServiceID(0), program = ServiceID(1)

  private func draining() throws -> ServiceMachine {
    var machine = Usual.running(try Usual.withDrain())
    #expect(
      machine.signal(15, at: .zero).deeds == [
        .log(.info, "told to stop: no new connections; those that are open have 30.0 seconds"), .signal(proxy, 12),
        .setTimer(.drain, .seconds(31)),
      ])
    #expect(machine.phase == .draining)
    return machine
  }

  private var stopOfTheProgram: [ServiceMachine.Action] {
    [.cancelTimer(.drain), .signal(program, 15), .setTimer(.stop(program), .seconds(10))]
  }

  /// The program knows nothing of it until the connections have ended, their time is over, or somebody has no patience left.
  @Test func theProgramIsStoppedWhenTheConnectionsHaveEnded() throws {
    var machine = try draining()
    #expect(machine.drained(program) == [])
    #expect(machine.drained(proxy).deeds == stopOfTheProgram)
    #expect(machine.drained(proxy) == [])
    machine = try draining()
    #expect(machine.timerFired(.drain).deeds == stopOfTheProgram)
    machine = try draining()
    #expect(machine.signal(1, at: .seconds(1)).deeds == [.signal(program, 1)])
    #expect(machine.signal(15, at: .seconds(1)).deeds == stopOfTheProgram)
    #expect(machine.timerFired(.drain) == [])
  }

  /// With the proxy its connections have ended; it is started again, for the program's last words.
  @Test func aProxyThatDiesHasNoConnections() throws {
    var machine = try draining()
    let actions = machine.exited(proxy, .signalled(9), uptime: .seconds(60)).deeds
    #expect(actions.contains(.start(proxy)))
    #expect(actions.suffix(3) == stopOfTheProgram[...])
  }

  @Test func aProgramThatEndsWhileConnectionsAreDrainedEndsTheEnclave() throws {
    var machine = try draining()
    let actions = machine.exited(program, .exited(3), uptime: .seconds(60)).deeds
    #expect(actions.contains(.cancelTimer(.drain)) && actions.contains(.signal(proxy, 15)))
    _ = machine.exited(proxy, .exited(0), uptime: .seconds(60))
    #expect(machine.lastProcessEnded().contains(.finish(3)))
  }
}
