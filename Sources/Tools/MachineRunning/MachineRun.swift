import BootPlanning
import CLinux
import EventLoop
import HostGateway
import HostNetwork
import HostRights
import Inet
import LinuxSystem
import LogText
import Relaying
import VhostVsock

// Theory of operation.
//
//   guest ═ virtio-vsock ═ QEMU ═ vhost-user ═ VhostVsockDevice (a thread) ═ hybrid Unix sockets ═ HostSide (our loop)
//
// QEMU is a child, and dies with us. It has no right of ours: what it needs it is handed open (`MachineFiles`), root starts
// it as a user of its own (`MachineUser`), and it gives up what system calls it does not need. Its serial line, the guest's console, is read through a pipe: shown as it comes, or
// kept (its end) for the case that the machine ends without a word on the log channel. The guest's last record is the
// program's status; after it QEMU has a few seconds to end by itself.

/// One machine from start to end.
public final class MachineRun: EventSource {
  private enum Tag { static let signals = 0, console = 1, device = 2 }
  private enum Key { static let overdue = 0, settle = 1 }
  private static let signals: [Int32] = [SIGTERM, SIGINT, SIGUSR1, SIGCHLD]
  /// From the program's status to QEMU's own end.
  private static let endTimeout: Duration = .seconds(15)
  private static let consoleTail = 16 * 1024

  private let request: MachineRequest
  private let report: (String) -> Void
  private let loop: EventLoop
  private let signals: FileReference
  private var side: HostSide?
  private var heartbeat: HeartbeatResponder?
  private var device: DeviceThread?
  private var machine: Int32 = 0
  private var user: MachineUser?
  private var machineEnd: String?
  private var console: FileReference?
  private var consoleRegistration: Registration?
  private var deviceRegistration: Registration?
  private var tail: [UInt8] = []
  private var status: Int32?
  private var stopping = false
  private var hasFailed = false
  private var home: RunDirectory?
  private var directory: String { home?.path ?? "" }

  public init(_ request: MachineRequest, report: @escaping (String) -> Void) throws(SystemError) {
    self.request = request
    self.report = report
    signals = try openSignals(Self.signals)
    loop = try HostSide.makeLoop()
    super.init()
    _ = try loop.add(signals.rawValue, [.readable], self, tag: Tag.signals)
  }

  /// - Returns: the program's status; 125 where the machine ended without one.
  public func run() throws -> Int32 {
    defer { cleanUp() }
    try start()
    try loop.run()
    // The log's last record may not have come, and the session's report has.
    if let end = status ?? side?.reportedExit.map({ Int32($0) }) { return hasFailed ? 125 : end }
    let end = machineEnd ?? "was stopped"
    let text = request.showsConsole ? "" : "; the end of its console:\n" + consoleText()
    throw MachineError("the machine \(end) before the program's status was reported\(text)")
  }

  /// What a guest writes is foreign. A serial line ends its lines with CR LF.
  private func consoleText() -> String {
    var bytes: [UInt8] = []
    for byte in tail {
      if byte == 0x0a, bytes.last == 0x0d { bytes.removeLast() }
      bytes.append(byte)
    }
    return String(decoding: harmless(bytes), as: UTF8.self)
  }

  private func start() throws {
    let published = try request.host.openPublished()
    // This process has the secrets of the enclave. QEMU is another program, and has none.
    try forbidInspection()
    if effectiveUserID() == 0 { user = try MachineUser() }
    let machines = try self.machines()
    let home = try RunDirectory(in: environmentVariable("TMPDIR") ?? "/tmp", other: HostRights.user)
    self.home = home
    let hybrid = directory + "/vsock"
    let port = EnclaveLayout.port
    let listen = "\(hybrid)_\(request.port)"
    var place = HostPlace(
      listen: .unix(listen), enclave: StreamTarget(.unix(hybrid), hybridPort: port), transport: "vsock of QEMU")
    place.isOwn = true
    let made = try HostSide(
      request.host, command: "boot", place: place, loop: loop, transport: try place.open(), published: published,
      log: report)
    made.onExit = { [unowned self] code in
      status = Int32(code)
      loop.schedule(after: Self.endTimeout, self, key: Key.overdue)
    }
    made.onOutputLost = { [unowned self] error in
      // As `tombolo run` has it (LocalRun.outputLost).
      if error.errno != EPIPE {
        hasFailed = true
        self.report("\(error): what the program writes is lost, and it is stopped")
      }
      stop()
    }
    made.onHelperLost = { [unowned self] helper in
      self.report("\(helper)")
      guard case .keeper = helper else { return }
      hasFailed = true
      stop()
    }
    side = made
    let heartbeats = "\(hybrid)_\(HeartbeatResponder.port)"
    heartbeat = try HeartbeatResponder(
      loop: loop, socket: FileReference(try listenStream(.unix(heartbeats))), report: report)
    let socket = directory + "/device"
    let thread = try DeviceThread(socket: socket, cid: request.guestCID, hybrid: hybrid)
    device = thread
    deviceRegistration = try loop.add(thread.ended.rawValue, [.readable], self, tag: Tag.device)
    let connection = FileReference(try makeSocket(SocketAddress.unix(socket).family, .stream))
    _ = try connectStream(connection.rawValue, .unix(socket))
    var files = MachineFiles(isOther: user != nil)
    let command = try MachineCommand(
      request, machines: machines, device: connection, directory: directory, files: &files)
    // Where it puts the kernel and the ramdisk of an EIF.
    let own = directory + "/qemu"
    try makeDirectories(own, mode: 0o700)
    if let user { try changeOwner(own, user: user.id, group: user.id) }
    let temporary = try files.directory(own)
    if request.host.verbose { report(([request.qemu] + command.arguments).joined(separator: " ")) }
    let (reading, writing) = try makePipe()
    try reading.descriptor.setNonblocking()
    let null = FileReference(try openFile("/dev/null", O_RDONLY))
    machine = try spawnMachine(
      command.arguments, [null, writing, writing] + files.handles, temporary: temporary)
    console = reading
    consoleRegistration = try loop.add(reading.rawValue, [.readable], self, tag: Tag.console)
    // Both ends of each of these are in this process, which will be another user.
    if let user = HostRights.user {
      for path in [hybrid, heartbeats] + made.socketNames { try changeOwner(path, user: user, group: user) }
      try home.giveAway()
    }
    try made.reduceRights(signalled: [machine], hasDevice: true, note: { if request.host.verbose { report($0) } }) {
      home.remove()
    }
    try thread.start()
  }

  private func spawnMachine(_ arguments: [String], _ files: [FileReference], temporary: String) throws -> Int32 {
    // By its file where we are somebody else, who may not enter its directory; a script has to be found by name.
    let program = FileReference(try openFile(request.qemu, O_RDONLY))
    let isScript = try readStart(program) == Array("#!".utf8)
    var spawnRequest = SpawnRequest(
      user == nil || isScript ? .path(request.qemu) : .descriptor(program.rawValue),
      arguments: [request.qemu] + arguments,
      environment: ["PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=\(temporary)"], descriptors: files.map(\.rawValue))
    spawnRequest.parentDeathSignal = SIGKILL
    spawnRequest.noNewPrivileges = true
    spawnRequest.clearsCapabilities = true
    if let user {
      spawnRequest.keptCapabilities = 0
      spawnRequest.identity = (user.id, user.id, MachineUser.groups(accelerator: request.accelerator))
    }
    do throws(SpawnError) {
      return try spawn(spawnRequest)
    } catch {
      throw MachineError("QEMU could not be started: \(error)")
    }
  }

  private func readStart(_ file: FileReference) throws(SystemError) -> [UInt8] {
    var bytes: [UInt8] = [0, 0]
    guard case .bytes(let count) = bytes.withUnsafeMutableBytes({ readBytes(file.rawValue, $0) }) else { return [] }
    return Array(bytes.prefix(count))
  }

  private func machines() throws -> String {
    let found = try machines(request.isSandboxed ? MachineCommand.sandbox : [])
    guard found.isEmpty, request.isSandboxed, try !machines([]).isEmpty else { return found }
    throw MachineError(
      "\(request.qemu) was built without libseccomp and cannot confine itself; use another, or --no-sandbox")
  }

  /// What `qemu -M help` prints: into a file, so that a program that prints without end fills no pipe of ours.
  private func machines(_ options: [String]) throws -> String {
    let output = try makeMemoryFile([])
    let null = FileReference(try openFile("/dev/null", O_RDWR))
    let pid = try spawnMachine(options + ["-no-user-config", "-M", "help"], [null, output, null], temporary: "/tmp")
    for _ in 0..<500 {
      if clinux_has_ended(pid) { break }
      sleepMilliseconds(10)
    }
    sendSignal(SIGKILL, to: pid)
    clinux_wait(pid)
    return try readText("/proc/self/fd/\(output.rawValue)", limit: 1 << 20)
  }

  // MARK: events

  override public func ready(_ events: EventSet, tag: Int) {
    if tag == Tag.console {
      readConsole()
      return
    }
    if tag == Tag.device {
      if let deviceRegistration { loop.remove(deviceRegistration) }
      deviceRegistration = nil
      // Without its device the guest has no host, and would be waited for in vain.
      if machine > 1, !stopping {
        report("vsock device: \(device?.problem ?? "ended")")
        sendSignal(SIGKILL, to: machine)
      }
      return
    }
    while let signal = nextSignal(signals) {
      if signal == SIGCHLD {
        reap()
      } else if signal == SIGUSR1 {
        request.host.rawGateway?.report()
      } else if machineEnd != nil {
        // Only our output waits for a reader.
        loop.stop()
      } else {
        stop()
      }
    }
  }

  /// The first request goes to the program, through the enclave's init; the second ends the machine.
  private func stop() {
    if stopping || side?.requestStop() != true {
      if machine > 1 { sendSignal(SIGKILL, to: machine) }
    }
    stopping = true
  }

  private func readConsole() {
    guard let console else { return }
    var chunk = [UInt8](repeating: 0, count: 65536)
    switch chunk.withUnsafeMutableBytes({ readBytes(console.rawValue, $0) }) {
    case .bytes(0), .failed:
      if let consoleRegistration { loop.remove(consoleRegistration) }
      consoleRegistration = nil
    case .wouldBlock: break
    case .bytes(let count):
      if request.showsConsole {
        _ = try? writeAll(2, chunk[..<count])
      } else {
        tail += chunk[..<count]
        if tail.count > Self.consoleTail { tail.removeFirst(tail.count - Self.consoleTail) }
      }
    }
  }

  private func reap() {
    while case .child(let pid, let exited, let signal) = reapChild() {
      guard pid == machine else { continue }
      machine = 0
      // Its streams end with it, and behind their last bytes the log.
      device?.stop()
      machineEnd = signal.map { "was ended by signal \($0)" } ?? "ended (QEMU's status \(exited ?? 0))"
      readConsole()
      // What the device has taken from the guest is still on its way to us.
      loop.schedule(after: .milliseconds(200), self, key: Key.settle)
    }
  }

  override public func timerFired(_ key: Int) {
    if key == Key.overdue {
      if machine > 1 { sendSignal(SIGKILL, to: machine) }
    } else if side?.isLogDelivered != false {
      loop.stop()
    } else {
      loop.schedule(after: .milliseconds(20), self, key: Key.settle)
    }
  }

  private func cleanUp() {
    if machine > 1 {
      sendSignal(SIGKILL, to: machine)
      clinux_wait(machine)
    }
    device?.stop()
    let hasCaretaker = side?.hasCaretaker == true
    side?.close()
    request.host.rawGateway?.close()
    if !hasCaretaker { home?.remove() }
  }
}
