import EventLoop
import Inet
import LinuxSystem
import Policy
import Relaying

// Theory of operation.
//
//   out:  accept on the forward's address ▶ plain stream to the host's port, its header ▶ relay, or reset
//   in:   plain stream from the host ▶ is it the host's? ▶ connect to the program ▶ relay, or close
//
// Nothing on the stream is ours, so nothing on it proves anything: over vsock the peer's CID must be the host's, a Unix
// socket is for those who may open it. What a stream can reach is only what its forward names.

/// `[[forward]]`s inside.
final class EnclaveForwards {
  private static let programTimeout: Duration = .seconds(10)
  /// VMADDR_CID_HOST (vsock(7)): the hypervisor's side, whichever CID the parent answers at.
  private static let hypervisor: UInt32 = 2

  private let loop: EventLoop
  private let buffer: RelayBuffer
  private let host: StreamTarget
  private let budget: ConnectionBudget
  private let pressure: RelayPressure
  private let timeouts: RelayTimeouts?
  private let report: (String) -> Void
  private let debug: (String) -> Void
  private let open: OpenRelays
  private var listeners: [Listener] = []
  private var strangers = Strangers(what: "forward: a stream of somebody else than the host")

  /// - Parameters:
  ///   - forwards: with their listening sockets.
  ///   - host: any of its ports.
  init(
    loop: EventLoop, buffer: RelayBuffer, open: OpenRelays, _ forwards: [(StaticForward, FileReference)],
    host: StreamTarget, budget: ConnectionBudget, pressure: RelayPressure, timeouts: RelayTimeouts?,
    report: @escaping (String) -> Void, debug: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.buffer = buffer
    self.open = open
    self.host = host
    self.budget = budget
    self.pressure = pressure
    self.timeouts = timeouts
    self.report = report
    self.debug = debug
    for (forward, socket) in forwards {
      // Inherited by what is accepted: a connection that is dropped is reset.
      setResetOnClose(socket.rawValue, true)
      listeners.append(
        try Listener(loop: loop, socket: socket, report: report) { [unowned self] connection, _ in
          switch forward.way {
          case .out: toHost(connection, forward)
          case .incoming(let program): fromHost(connection, program, forward)
          }
        })
    }
  }

  /// Accepts nothing from now on, on either side.
  func drain() {
    for listener in listeners { listener.end() }
  }

  private func toHost(_ connection: FileReference, _ forward: StaticForward) {
    guard let target = host.atPort(forward.vsockPort), let lease = budget.lease(.outgoing) else { return }
    PlainOpening(loop: loop, target: target, header: forward.header) { [unowned self] result in
      switch result {
      case .success(let stream): relay(connection, stream, forward, lease)
      case .failure(let failure): report("forward of \(forward): \(failure)")
      }
    }.start()
  }

  private func fromHost(_ stream: FileReference, _ program: IPEndpoint, _ forward: StaticForward) {
    if let cid = peerCID(stream.rawValue), cid != Self.hypervisor, cid != hostCID { return strangers.refused(report) }
    guard let lease = budget.lease(.incoming) else { return }
    PlainConnecting(loop: loop, address: .ip(program), timeout: Self.programTimeout) { [unowned self] _, result in
      switch result {
      case .success(let connection): relay(connection, stream, forward, lease)
      // The stream ends without a byte, which is all that it can say.
      case .failure(let error): debug("forward of \(forward): \(error)")
      }
    }.start()
  }

  private var hostCID: UInt32? { if case .vsock(let cid, _) = host.address { cid } else { nil } }

  private func relay(
    _ program: FileReference, _ stream: FileReference, _ forward: StaticForward, _ lease: ConnectionBudget.Lease
  ) {
    do throws(SystemError) {
      let made = try Relay(
        loop: loop, buffer: buffer, plain: program, other: stream, pressure: pressure, timeouts: timeouts,
        silenceIsReset: true
      ) { [debug, open] relay, end in
        withExtendedLifetime(lease) {}
        open.remove(relay)
        debug("forward of \(forward): \(end), \(relay.totals.toTransport) bytes out, \(relay.totals.fromTransport) in")
      }
      open.add(made)
    } catch {
      report("forward of \(forward): \(error)")
    }
  }
}
