import AttestationCalls
import EventLoop
import HTTP
import LinuxSystem
import Relaying
import SecurityModule

// Theory of operation.
//
// PID 1 has opened the device and the listening sockets; this answers HTTP on them, one request at a time, since the device does
// one thing at a time. What a client can cost is bounded:
//
//   memory       `connectionLimit` connections, each with at most one request's bytes and one answer
//   connections  where there is no room for one more, the oldest of the caller who has most of them goes
//   time         a request must be whole within `patience` of its first byte, and an answer be taken within the same
//   the device   a budget for each caller (`CallerBudgets`); one request, then the others have their turn
//
// Keys are `BootKeys`, the document in a file is `DocumentFile`.
//
// A caller is a user (SO_PEERCRED). Over TCP nobody can tell who it is: all of these are one caller.

public final class AttestationServer: EventSource {
  public struct Settings {
    /// Users who are served; nil: all.
    public var callers: Set<UInt32>?
    /// Registers that callers may extend and lock.
    public var registers: Set<UInt16>
    /// Requests to the device, a second and caller.
    public var rate: Int
    /// The first one's public half is in every document that names no other.
    public var keys: [AttestationKey]

    public init(
      callers: Set<UInt32>? = nil, registers: Set<UInt16> = [], rate: Int = 100, keys: [AttestationKey] = []
    ) {
      self.callers = callers
      self.registers = registers
      self.rate = rate
      self.keys = keys
    }
  }

  public static let connectionLimit = 256
  /// For TCP's clients; no user has it.
  static let unknownCaller = UInt32.max
  static let patience: Duration = .seconds(10)
  private static let sweepInterval: Duration = .seconds(1)

  private let loop: EventLoop
  private let module: any ModuleDevice
  private let settings: Settings
  private let report: (String) -> Void
  private var budgets: CallerBudgets
  private var listeners: [Listener] = []
  /// In the order in which they came.
  private var connections: [AttestationConnection] = []
  private var sweeps = false

  public init(
    loop: EventLoop, module: any ModuleDevice, listeners sockets: [FileReference], settings: Settings,
    report: @escaping (String) -> Void
  ) throws(SystemError) {
    self.loop = loop
    self.module = module
    self.settings = settings
    self.report = report
    budgets = CallerBudgets(rate: settings.rate)
    super.init()
    for socket in sockets {
      listeners.append(
        try Listener(loop: loop, socket: socket, report: report) { [unowned self] socket, _ in accept(socket) })
    }
  }

  /// For tests.
  public var connectionCount: Int { connections.count }

  private func accept(_ socket: FileReference) {
    let caller = peerUserID(socket.rawValue) ?? Self.unknownCaller
    if connections.count >= Self.connectionLimit { makeRoom(for: caller) }
    do throws(SystemError) {
      let connection = try AttestationConnection(
        loop: loop, socket: socket, caller: caller, answer: { [unowned self] in answer($0, caller) },
        ended: { [unowned self] in ended($0) })
      connections.append(connection)
      sweepLater()
    } catch {
      report("\(error)")
    }
  }

  /// Closes the oldest connection of the caller who has most.
  private func makeRoom(for newcomer: UInt32) {
    var counts: [UInt32: Int] = [newcomer: 1]
    for connection in connections { counts[connection.caller, default: 0] += 1 }
    let most = counts.values.max() ?? 0
    let greedy = counts[newcomer] == most ? newcomer : counts.filter { $0.value == most }.keys.min()
    connections.first { $0.caller == greedy }?.close()
  }

  private func ended(_ connection: AttestationConnection) {
    connections.removeAll { $0 === connection }
  }

  private func sweepLater() {
    guard !sweeps else { return }
    sweeps = true
    loop.schedule(after: Self.sweepInterval, self)
  }

  override public func timerFired(_ key: Int) {
    sweeps = false
    let now = monotonicNanoseconds()
    for connection in connections where connection.deadline <= now { connection.expire() }
    if !connections.isEmpty { sweepLater() }
  }

  // MARK: Answers

  func answer(_ request: HTTPRequest, _ caller: UInt32) -> HTTPResponse {
    if let callers = settings.callers, !callers.contains(caller) {
      let who = caller == Self.unknownCaller ? "a client over TCP" : "user \(caller)"
      return HTTPResponse(403, "\(who) is none of attestation.callers")
    }
    do throws(CallDefect) {
      let call = try AttestationCall(request, keys: settings.keys)
      guard budgets.take(call.cost, caller, now: monotonicNanoseconds()) else {
        var response = HTTPResponse(429, "more than attestation.rate allows: \(settings.rate) a second")
        response.headers.append(.init("Retry-After", "1"))
        return response
      }
      return answer(call)
    } catch {
      return error.response
    }
  }

  private func answer(_ call: AttestationCall) -> HTTPResponse {
    do throws(ModuleFailure) {
      switch call {
      case .document(let contents, let form):
        guard case .document(let document) = try module.ask(.attestation(contents)) else { return Self.other }
        return form.response(document)
      case .registers:
        guard case .description(let description) = try module.ask(.describe) else { return Self.other }
        var registers: [ShownRegister] = []
        for index in 0..<min(description.registers, UInt16(SimulatedModule.count)) {
          let register = try module.register(index)
          registers.append(ShownRegister(index, value: register.value, isLocked: register.isLocked))
        }
        return ShownRegister.response(registers)
      case .register(let index):
        let register = try module.register(index)
        return ShownRegister(index, value: register.value, isLocked: register.isLocked).response
      case .extend(let index, let data): return change(index, .extendPCR(index, data))
      case .lock(let index): return change(index, .lockPCR(index))
      case .random(let count, let form):
        var bytes: [UInt8] = []
        while bytes.count < count {
          guard case .random(let more) = try module.ask(.random) else { return Self.other }
          bytes += more
        }
        return form.response(Array(bytes.prefix(count)))
      case .keys(let keys): return AttestationKey.response(keys)
      case .key(let key, let isDefault, let form): return key.response(isDefault: isDefault, form)
      }
    } catch {
      return failed(error)
    }
  }

  private static let other = HTTPResponse(502, "the security module has answered something else")

  private func change(_ index: UInt16, _ request: ModuleRequest) -> HTTPResponse {
    do throws(ModuleFailure) {
      let before = try module.register(index)
      if before.isLocked { return ModuleFailure.refused(.readOnlyIndex).response(index) }
      guard settings.registers.contains(index) else {
        return HTTPResponse(403, "PCR\(index) is none of attestation.pcrs")
      }
      _ = try module.ask(request)
      let after = try module.register(index)
      return ShownRegister(index, value: after.value, isLocked: after.isLocked).response
    } catch {
      return failed(error, index)
    }
  }

  private func failed(_ failure: ModuleFailure, _ index: UInt16? = nil) -> HTTPResponse {
    switch failure {
    case .refused: break
    case .unintelligible, .unreachable: report("\(failure)")
    }
    return failure.response(index)
  }
}
