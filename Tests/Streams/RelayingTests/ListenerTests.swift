import CLinux
import EventLoop
import Inet
import LinuxSystem
import Relaying
import Testing

/// Whether a published port is open outside follows from who listens inside.
@Suite(.serialized) struct ListenerTests {
  /// Both ways of asking the kernel see the same: listeners that a connection to a loopback address reaches.
  @Test(arguments: [
    (IPAddress.v4(.loopback), true), (.v4(.any), true), (.v6(.loopback), true), (.v6(.any), true),
    (IPAddress("127.0.0.2") ?? .v4(.any), false),
  ])
  func listenersAreFound(_ address: IPAddress, _ reached: Bool) throws {
    let known = try listenStream(.ip(IPEndpoint(.v4(.loopback), 0)))
    let knownPort = try #require(localEndpoint(known.rawValue)?.port)
    let made = FileReference(try listenStream(.ip(IPEndpoint(address, 0))))
    let port = try #require(localEndpoint(made.rawValue)?.port)
    let queries = [ListenerQuery(known: knownPort), ListenerQuery()]
    // This machine's own kernel has sock_diag or not; the table is always there.
    #expect(queries[1].method == .table)
    for query in queries {
      #expect(try query.listening(among: [port, knownPort]) == (reached ? [port, knownPort] : [knownPort]))
    }
    shutdownBoth(made.rawValue)
    for query in queries { #expect(try query.listening(among: [port]).isEmpty) }
    // A connection of that port is no listener.
    let client = try makeSocket(AF_INET, .stream)
    _ = try connectStream(client.rawValue, .ip(IPEndpoint(.v4(.loopback), knownPort)))
    let own = try #require(localEndpoint(client.rawValue)?.port)
    for query in queries { #expect(try query.listening(among: [own]).isEmpty) }
  }

  /// Refused, accepted, refused, accepted, and nobody else's all the time.
  @Test func aListenerStopsAndStartsAgain() throws {
    let loop = try EventLoop()
    let free = try listenStream(.ip(IPEndpoint(.v4(.loopback), 0)))
    let endpoint = try #require(localEndpoint(free.rawValue))
    _ = consume free
    let socket = FileReference(try reserveListener(.ip(endpoint)))
    var accepted = 0
    let listener = try Listener(loop: loop, socket: socket, listening: false, report: { Issue.record("\($0)") }) {
      _, _ in
      accepted += 1
    }
    func connects() throws -> Bool {
      let client = try makeSocket(AF_INET, .stream)
      do throws(SystemError) { _ = try connectStream(client.rawValue, .ip(endpoint)) } catch { return false }
      let end = TimerSource { loop.stop() }
      loop.schedule(after: .milliseconds(30), end)
      try loop.run()
      return socketError(client.rawValue) == 0
    }
    for round in 1...3 {
      #expect(try !connects())
      #expect(throws: SystemError.self) { _ = try listenStream(.ip(endpoint)) }
      listener.setListening(true)
      #expect(try connects() && accepted == round)
      #expect(throws: SystemError.self) { _ = try reserveListener(.ip(endpoint)) }
      listener.setListening(false)
    }
  }
}
