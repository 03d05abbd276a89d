import Supervision
import Testing

/// The whole life of the usual enclaves, as text: what a reader of the architecture page can follow line by line.
struct GoldenTraceTests {
  @Test func withoutANetwork() throws {
    var trace = Trace(try Usual.alone())
    trace.on("start") { $0.start() }
    trace.on("started") { $0.started(Usual.id0) }
    trace.on("SIGTERM") { $0.signal(15, at: .zero) }
    trace.on("the program has ended") { $0.exited(Usual.id0, .exited(0), uptime: .seconds(5)) }
    trace.on("nobody is left") { $0.lastProcessEnded() }
    #expect(
      trace.text == """
        start
          the program: starting
          start the program
        started
          the program: ready
        SIGTERM
          the program: stopping
          signal the program 15
          set timer: stop of the program, 10.0 seconds
        the program has ended
          cancel timer: stop of the program
          info: the program exited with status 0
          the program: finished
          signal the rest
          set timer: the rest, 1.0 seconds
        nobody is left
          cancel timer: the rest
          finish 0

        """)
  }

  @Test func withAProxyThatDiesOnce() throws {
    var trace = Trace(try Usual.withProxy())
    trace.on("start") { $0.start() }
    trace.on("the proxy runs") { $0.started(Usual.id0) }
    trace.on("the proxy is ready") { $0.ready(Usual.id0) }
    trace.on("the program runs") { $0.started(Usual.id1) }
    trace.on("the proxy has died") { $0.exited(Usual.id0, .signalled(9), uptime: .seconds(1)) }
    trace.on("the proxy runs") { $0.started(Usual.id0) }
    trace.on("the proxy is ready") { $0.ready(Usual.id0) }
    trace.on("the program has ended") { $0.exited(Usual.id1, .exited(7), uptime: .seconds(5)) }
    trace.on("the proxy has ended") { $0.exited(Usual.id0, .exited(0), uptime: .seconds(4)) }
    trace.on("nobody is left") { $0.lastProcessEnded() }
    #expect(
      trace.text == """
        start
          the proxy: starting
          start the proxy
          set timer: readiness of the proxy, 10.0 seconds
        the proxy runs
          the proxy: up
        the proxy is ready
          info: the proxy is ready
          the proxy: ready
          cancel timer: readiness of the proxy
          the program: starting
          start the program
        the program runs
          the program: ready
        the proxy has died
          warning: the proxy was ended by signal 9; starting it again in 0.0 seconds
          the proxy: down
          the proxy: starting
          start the proxy
        the proxy runs
          the proxy: up
        the proxy is ready
          info: the proxy is ready
          the proxy: ready
        the program has ended
          info: the program exited with status 7
          the program: finished
          the proxy: stopping
          signal the proxy 15
          set timer: stop of the proxy, 2.0 seconds
        the proxy has ended
          cancel timer: stop of the proxy
          the proxy: finished
          signal the rest
          set timer: the rest, 1.0 seconds
        nobody is left
          cancel timer: the rest
          finish 7

        """)
  }

  @Test func withAKeeperThatDiesOnce() throws {
    var trace = Trace(try Usual.withKeeper())
    trace.on("start") { $0.start() }
    trace.on("the keeper runs") { $0.started(Usual.id0) }
    trace.on("the proxy runs") { $0.started(Usual.id1) }
    trace.on("the proxy is ready") { $0.ready(Usual.id1) }
    trace.on("the program runs") { $0.started(Usual.id2) }
    trace.on("the keeper has died") { $0.exited(Usual.id0, .signalled(11), uptime: .seconds(1)) }
    trace.on("the proxy has ended") { $0.exited(Usual.id1, .signalled(9), uptime: .seconds(1)) }
    trace.on("the keeper runs") { $0.started(Usual.id0) }
    trace.on("the proxy runs") { $0.started(Usual.id1) }
    trace.on("the proxy is ready") { $0.ready(Usual.id1) }
    trace.on("the program has ended") { $0.exited(Usual.id2, .exited(0), uptime: .seconds(5)) }
    trace.on("the proxy has ended") { $0.exited(Usual.id1, .exited(0), uptime: .seconds(4)) }
    trace.on("the keeper has ended") { $0.exited(Usual.id0, .signalled(9), uptime: .seconds(4)) }
    trace.on("nobody is left") { $0.lastProcessEnded() }
    #expect(
      trace.text == """
        start
          the proxy's keeper of verdicts: starting
          start the proxy's keeper of verdicts
        the keeper runs
          the proxy's keeper of verdicts: ready
          the proxy: starting
          start the proxy
          set timer: readiness of the proxy, 10.0 seconds
        the proxy runs
          the proxy: up
        the proxy is ready
          info: the proxy is ready
          the proxy: ready
          cancel timer: readiness of the proxy
          the program: starting
          start the program
        the program runs
          the program: ready
        the keeper has died
          the proxy's keeper of verdicts: down
          error: the proxy's keeper of verdicts was ended by signal 11
          kill the proxy
          the proxy: killed
          set timer: stop of the proxy, 1.0 seconds
        the proxy has ended
          cancel timer: stop of the proxy
          warning: the proxy was ended by signal 9; starting it again in 0.0 seconds
          the proxy: down
          the proxy's keeper of verdicts: starting
          start the proxy's keeper of verdicts
        the keeper runs
          the proxy's keeper of verdicts: ready
          the proxy: starting
          start the proxy
        the proxy runs
          the proxy: up
        the proxy is ready
          info: the proxy is ready
          the proxy: ready
        the program has ended
          info: the program exited with status 0
          the program: finished
          the proxy: stopping
          signal the proxy 15
          set timer: stop of the proxy, 2.0 seconds
        the proxy has ended
          cancel timer: stop of the proxy
          the proxy: finished
          the proxy's keeper of verdicts: stopping
          signal the proxy's keeper of verdicts 9
          set timer: stop of the proxy's keeper of verdicts, 1.0 seconds
        the keeper has ended
          cancel timer: stop of the proxy's keeper of verdicts
          the proxy's keeper of verdicts: finished
          signal the rest
          set timer: the rest, 1.0 seconds
        nobody is left
          cancel timer: the rest
          finish 0

        """)
  }
}
