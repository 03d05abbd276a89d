import CLinux
import Inet
import LinuxSystem
import Volumes

// Theory of operation.
//
// A mount that needs the network has a process of its own, because mount(2), umount2(2) and syncfs(2) may wait in the kernel
// for a server for as long as that is away. PID 1 starts it when the proxy is ready, and stops it when the program and all
// that it has left have ended, while the proxy is still there.
//
//   name asked for ▶ server asked for a sign of life ▶ mount(2) ▶ ready (a byte on a pipe)
//     ▲ no: again, with growing pauses, and a line in the log every so often
//   ready ▶ asks for the name again before its answer ends ▶ SIGTERM ▶ what is not written is written ▶ umount2(2) ▶ end
//                                                                       └ not in its time: by force, and said
//
// Until it is mounted SIGTERM ends the process at once, out of mount(2) too. From then on it is read from a signalfd, and the
// calls that may wait are made by threads, which end with the process. The name is asked for again because a policy by name
// lets connect to an address only as long as an answer with it holds, and the kernel connects again whenever it has lost its
// connection.

/// The process of one mount.
public final class VolumeKeeper {
  private let work: MountWork
  private let ready: FileReference
  private let say: (String) -> Void

  private static let shortestPause = 500
  private static let longestPause = 10_000
  /// Between lines about the same trouble.
  private static let silence: UInt64 = 30_000_000_000
  private static let tick: Int32 = 30_000
  /// By force: each time ends what waits for the server at that moment.
  private static let forcedTries = 10
  private static let forcedMilliseconds: Int32 = 200
  /// How long after the last process has ended something may still count as in use.
  private static let busyMilliseconds = 20
  /// Writing may take all of the time that there is; what follows, a few calls to the server, always has this.
  private static let detachNanoseconds: UInt64 = 3_000_000_000
  /// Beyond a thread's own limit, so that what it says then is heard.
  private static let hearingNanoseconds: UInt64 = 500_000_000

  /// - Parameters:
  ///   - ready: gets one byte when it is mounted.
  ///   - say: takes lines for the log, with their level.
  public init(_ work: MountWork, ready: FileReference, say: @escaping (String) -> Void) {
    self.work = work
    self.ready = ready
    self.say = say
  }

  /// Returns when it has been unmounted.
  /// - Throws: `MountFailure` where it cannot be mounted, whatever happens.
  public func run() throws {
    var found: VolumeServer.Found?
    if let server = work.server {
      found = try attach(VolumeServer(server: server))
    } else {
      try Mounter.mount(work)
    }
    let signals = try openSignals([SIGTERM])
    // What is mounted there now. Open for reading: syncfs(2) takes no O_PATH descriptor.
    let root = Holder(FileReference(try ForeignTree("/").open(work.target, O_RDONLY | O_NONBLOCK)))
    say("info: mounted \(work.source) on \(work.target)")
    try writeAll(ready.rawValue, [UInt8(1)], "readiness pipe")
    keep(signals, &found)
    detach(root)
  }

  // MARK: mounting

  private func attach(_ server: VolumeServer) throws(MountFailure) -> VolumeServer.Found {
    var pause = Self.shortestPause
    var said: (text: String, time: UInt64)?
    while true {
      do throws(MountFailure) {
        let found = try server.find()
        var problem: MountFailure?
        for address in found.addresses {
          do throws(MountFailure) {
            try server.probe(address)
            try mount(server.server, at: address)
            return VolumeServer.Found(addresses: [address], seconds: found.seconds)
          } catch {
            problem = error
          }
        }
        if let problem { throw problem }
      } catch {
        if error.isFinal { throw error }
        let now = monotonicNanoseconds()
        if said.map({
          $0.text != error.description && now - $0.time > Self.silence / 10 || now - $0.time > Self.silence
        })
          ?? true
        {
          say("warning: \(work.target) is not mounted yet: \(error)")
          said = (error.description, now)
        }
      }
      sleepMilliseconds(pause)
      pause = min(pause * 2, Self.longestPause)
    }
  }

  private func mount(_ server: MountWork.Server, at address: IPAddress) throws(MountFailure) {
    let done = watch()
    defer { withExtendedLifetime(done) {} }
    for (index, version) in server.versions.enumerated() {
      do {
        let place = try Mounter.openTarget(work.target)
        try mountFileSystem(
          work.source, Mounter.path(place.rawValue), type: work.type, flags: MountFlags(rawValue: UInt(work.flags)),
          data: work.data(for: server, at: address, version: version))
        return
      } catch {
        let isLast = index == server.versions.count - 1
        if !isLast, let system = error as? SystemError, system.call == "mount", MountFailure.isOfVersion(system.errno) {
          continue
        }
        throw Mounter.failure(error, work)
      }
    }
  }

  /// Says every so often that mount(2) has not come back, until what it gives is gone.
  private func watch() -> FileReference? {
    guard let (reading, writing) = try? makePipe() else { return nil }
    let line = "warning: \(work.target) is not mounted yet: the server has answered, and does not go on\n"
    try? startThread {
      while !waitReadable(reading.rawValue, milliseconds: Self.tick) { try? writeAll(2, line.utf8) }
    }
    return writing
  }

  // MARK: mounted

  /// Until SIGTERM.
  private func keep(_ signals: FileReference, _ found: inout VolumeServer.Found?) {
    var isElsewhere = false
    while true {
      // What is learned counts for half a minute at least (dns.hold), and may count for less than a name says.
      let seconds = found?.seconds.map { min(max($0, 30), 60) - 5 }
      let wait = seconds.map { Int32(clamping: $0) * 1000 } ?? -1
      if waitReadable(signals.rawValue, milliseconds: wait) {
        if nextSignal(signals) != nil { return }
        continue
      }
      guard let server = work.server, let known = found, let again = try? VolumeServer(server: server).find() else {
        continue
      }
      found?.seconds = again.seconds
      guard let address = known.addresses.first else { continue }
      let moved = !again.addresses.contains(address)
      if moved, !isElsewhere {
        say("warning: the name of \(work.source) leads elsewhere now; \(work.target) stays with \(address)")
      }
      isElsewhere = moved
    }
  }

  // MARK: unmounting

  /// What the thread that unmounts has come to.
  private enum Progress: UInt8 { case written = 1, unmounted, unwritten, stuck }

  private func detach(_ root: Holder) {
    // By what it is called now: a directory around it may have another name.
    let path = root.path ?? work.target
    let isNetwork = work.server != nil
    guard let (reading, telling) = try? makePipe() else { return abandon(path) }
    let end = monotonicNanoseconds() + UInt64(work.unmountMilliseconds) * 1_000_000
    do throws(SystemError) {
      try startThread { Self.unmount(path, root, isNetwork: isNetwork, until: end, telling: telling) }
    } catch {
      return abandon(path)
    }
    var writing: Progress? = isNetwork ? nil : .written
    var limit = isNetwork ? end : end + Self.hearingNanoseconds
    while let progress = next(reading, until: limit) {
      switch progress {
      case .written, .unwritten:
        if progress == .unwritten {
          say("error: \(work.source) did not take all that was written to \(work.target): it is lost")
        }
        writing = progress
        limit = Self.detachLimit(end) + Self.hearingNanoseconds
      case .unmounted: return say("info: unmounted \(work.target)")
      case .stuck:
        say("warning: \(work.target) is still in use; unmounting it all the same")
        return abandon(path)
      }
    }
    switch writing {
    case nil:
      say(
        "error: \(work.source) has not taken what was written to \(work.target) within "
          + "\(work.unmountMilliseconds) ms: what it lacks is lost")
    case .written:
      say("warning: \(work.source) has all that was written to \(work.target), and does not answer to the unmounting")
    default: say("warning: \(work.source) does not answer to the unmounting of \(work.target)")
    }
    force(path, reading)
  }

  /// From now, when everything has been written.
  private static func detachLimit(_ end: UInt64) -> UInt64 { max(end, monotonicNanoseconds() + detachNanoseconds) }

  /// The file that is open on the mount, for as long as there may be something to write: then it must not be, or the mount
  /// is in use. One thread has it at a time.
  private final class Holder: @unchecked Sendable {
    private var file: FileReference?

    init(_ file: FileReference) { self.file = file }

    var path: String? { file.flatMap { try? readLink(Mounter.path($0.rawValue)) } }

    func write(_ object: String) throws(SystemError) {
      if let file { try syncFileSystem(file.rawValue, object) }
    }

    /// After this the mount has one user less.
    func close() { file = nil }
  }

  private static func unmount(
    _ path: String, _ root: Holder, isNetwork: Bool, until end: UInt64, telling: FileReference
  ) {
    func tell(_ progress: Progress) { try? writeAll(telling.rawValue, [progress.rawValue]) }
    if isNetwork {
      do throws(SystemError) {
        try root.write(path)
        tell(.written)
      } catch {
        tell(.unwritten)
      }
    }
    root.close()
    let limit = detachLimit(end)
    while true {
      do throws(SystemError) {
        try unmountFileSystem(path, .noFollow)
        return tell(.unmounted)
      } catch {
        guard error.errno == EBUSY, monotonicNanoseconds() < limit else { return tell(.stuck) }
        sleepMilliseconds(busyMilliseconds)
      }
    }
  }

  private func next(_ pipe: FileReference, until end: UInt64) -> Progress? {
    let now = monotonicNanoseconds()
    let left = end > now ? (end - now) / 1_000_000 + 1 : 0
    guard waitReadable(pipe.rawValue, milliseconds: Int32(clamping: left)) else { return nil }
    var byte: [UInt8] = [0]
    guard case .bytes(1) = byte.withUnsafeMutableBytes({ readBytes(pipe.rawValue, $0) }) else { return nil }
    return Progress(rawValue: byte[0])
  }

  /// Each MNT_FORCE fails what waits for the server, and the thread goes on to what waits next.
  private func force(_ path: String, _ reading: FileReference) {
    for _ in 0..<Self.forcedTries {
      try? unmountFileSystem(path, [.force, .noFollow])
      let end = monotonicNanoseconds() + UInt64(Self.forcedMilliseconds) * 1_000_000
      while let progress = next(reading, until: end) { if progress == .unmounted { return } }
    }
    abandon(path)
  }

  /// It has no name any more from now on, and nobody waits for it.
  private func abandon(_ path: String) { try? unmountFileSystem(path, [.force, .detach, .noFollow]) }
}
