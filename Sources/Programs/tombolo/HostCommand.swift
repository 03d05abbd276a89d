import ArgumentParser
import BootPlanning
import CLinux
import EnclaveConfig
import EventLoop
import HostGateway
import HostNetwork
import Inet
import LinuxSystem
import LocalRunning
import LogText
import Relaying
import SystemText

struct HostCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "host",
    abstract: "Be the host side of an enclave: its way out, its published ports and the home of its log.",
    discussion: """
      Exactly one of --cid, --hybrid and --transport says how the enclave is reached. Runs until SIGTERM or SIGINT. \
      Sockets that systemd hands over (LISTEN_FDS) are used for the -p, --forward, --forward-in and transport that have their address.
      """)

  @Option(
    help: ArgumentHelp(
      "The enclave's vsock CID, as `nitro-cli describe-enclaves` tells; \"any\" serves all of them, without -p; 1 is this machine itself, through the kernel's vsock loopback.",
      valueName: "cid"))
  var cid: String?
  @Option(
    help: ArgumentHelp(
      "The hybrid vsock socket of Firecracker, Cloud Hypervisor or `tombolo vsock-device`.", valueName: "path"))
  var hybrid: String?
  @Option(
    help: ArgumentHelp(
      "The vsock port to listen at, for --cid and --hybrid (default: 7766); the enclave's is network.parent_port.",
      valueName: "port"))
  var port: UInt32?
  @Option(help: ArgumentHelp("unix:DIR, a directory of Unix sockets that stands for vsock.", valueName: "transport"))
  var transport: String?
  @OptionGroup
  var gateway: GatewayOptions
  @Option(help: "raw (the program's bytes as they are), text or json (a line each, escaped, with times and source).")
  var logFormat: LogFormat = .text
  @Option(
    help: ArgumentHelp(
      "At SIGTERM refuse new connections and let those that are open end, for so long (30s, 2m); then reset what is left. A second SIGTERM ends at once.",
      valueName: "time"))
  var drain: String?
  @OptionGroup
  var rawOptions: RawOptions
  @Flag(name: .shortAndLong, help: "Log every connection.")
  var verbose = false

  func run() throws {
    do {
      try serve()
    } catch {
      throw fail("\(error)")
    }
  }

  /// Where we listen, where the enclave is, and whom we serve.
  /// - Returns: also a name for `tombolo status`.
  private func place() throws -> (place: HostPlace, name: String) {
    guard [cid, hybrid, transport].compactMap({ $0 }).count == 1 else {
      throw Misuse("expected exactly one of --cid, --hybrid and --transport")
    }
    let port = EnclaveLayout.port
    let own = self.port ?? port
    guard own > 0, own != .max else { throw Misuse("--port: found \(own), expected 1 to 4294967294") }
    guard self.port == nil || transport == nil else {
      throw Misuse("--port is for --cid and --hybrid; a directory of Unix sockets has no ports")
    }
    if let cid {
      let listen = SocketAddress.vsock(cid: .max, port: own)
      if cid == "any" {
        guard gateway.publish.isEmpty else {
          throw Misuse("-p: with --cid any it is not known which enclave a port belongs to")
        }
        guard gateway.forwardIn.isEmpty else {
          throw Misuse("--forward-in: with --cid any it is not known which enclave a port belongs to")
        }
        guard !rawOptions.raw else {
          throw Misuse("--raw: with --cid any several enclaves would share one link; start one `tombolo host` for each")
        }
        var place = HostPlace(
          listen: listen, enclave: StreamTarget(.vsock(cid: .max, port: port)), transport: "vsock, every CID")
        place.peers = .any
        return (place, "any")
      }
      guard let number = UInt32(cid), number == 1 || number > 2, number != .max else {
        throw Misuse("--cid: found \"\(cid)\", expected \"any\", 1 or a number from 3 to 4294967294")
      }
      var place = HostPlace(
        listen: listen, enclave: StreamTarget(.vsock(cid: number, port: port)), transport: "vsock, CID \(number)")
      place.peers = .cid(number)
      return (place, "cid-\(number)")
    }
    if let hybrid {
      var place = HostPlace(
        listen: .unix("\(hybrid)_\(own)"), enclave: StreamTarget(.unix(hybrid), hybridPort: port),
        transport: "hybrid vsock at \(hybrid)")
      let directory = hybrid.lastIndex(of: "/").map { String(hybrid[..<$0]) } ?? "."
      place.group = fileGroup(directory.isEmpty ? "/" : directory)
      return (place, lastComponent(hybrid))
    }
    let text = transport ?? ""
    guard text.hasPrefix("unix:"), text.utf8.count > 5 else {
      throw Misuse("--transport: found \"\(text)\", expected unix:DIR")
    }
    let directory = String(text.dropFirst(5))
    guard fileKind(directory) == .directory else { throw Misuse("--transport: \(directory) is not a directory") }
    var place = HostPlace(
      listen: .unix(EnclaveLayout.hostSocket(in: directory)),
      enclave: StreamTarget(.unix(EnclaveLayout.enclaveSocket(in: directory))), transport: "unix:\(directory)")
    place.group = EnclaveLayout.proxyID
    place.peers = .users([0, effectiveUserID(), EnclaveLayout.proxyID])
    return (place, lastComponent(directory))
  }

  private func drainTime() throws -> Duration {
    guard let drain else { return .zero }
    guard let time = parseDuration(drain) else {
      throw Misuse("--drain: found \"\(drain)\", expected a duration such as 10s, 500ms or 2m")
    }
    guard time == .zero || !rawOptions.raw else {
      throw Misuse("--drain: in raw mode the kernel carries the connections, and they outlive this process")
    }
    return time
  }

  private func serve() throws {
    // This process has the secrets of enclaves.
    try forbidInspection()
    let (place, name) = try place()
    var settings = try gateway.settings()
    settings.rawGateway = try rawOptions.rawGateway(settings.published, gateway)
    settings.logFormat = logFormat
    settings.isOutlived = true
    settings.verbose = verbose
    settings.name = name
    let rawGateway = settings.rawGateway
    let drain = try drainTime()
    try gateway.check(raw: rawGateway != nil)
    defer { rawGateway?.close() }
    let signals = try openSignals([SIGTERM, SIGINT, SIGUSR1])
    let loop = try HostSide.makeLoop()
    let stop = StopSource(signals, loop) { rawGateway?.report() }
    if drain > .zero {
      stop.drain = { [unowned stop] in
        guard let side = stop.side else { return loop.stop() }
        say("stopping: no new connections; those that are open have \(drain)")
        side.drain(within: drain) {
          if $0 > 0 { say("connections that were still open, and are reset: \($0)") }
          loop.stop()
        }
      }
    }
    _ = try loop.add(signals.rawValue, [.readable], stop)
    try settings.takeInherited(at: place)
    let published = try settings.openPublished()
    let side = try HostSide(
      settings, command: "host", place: place, loop: loop, transport: try place.open(settings.inherited),
      published: published,
      boots: bootStore(place), log: say)
    stop.side = side
    defer { side.close() }
    var lost: (any Error)?
    side.onOutputLost = {
      lost = OutputLost(error: $0)
      loop.stop()
    }
    // Its enclaves go on, and the next start has both again.
    side.onHelperLost = {
      lost = $0
      loop.stop()
    }
    side.onExit = { say("the enclave's program ended with status \($0)") }
    try side.reduceRights(note: { if verbose { say($0) } })
    try withExtendedLifetime((side, stop)) { try loop.run() }
    // What the enclave has not been told is written stays with it, for the next one to be started.
    if let lost { throw lost }
  }
}

/// A daemon without a place for it does its work all the same; the sentence says what it cannot do.
private func bootStore(_ place: HostPlace) -> BootStore? {
  do throws(SystemError) {
    return try BootStore(place.listen)
  } catch {
    say("the boots of enclaves cannot be kept, so a restart of this daemon will not know them: \(error)")
    return nil
  }
}

/// Nobody reads the log any more.
struct OutputLost: Error, CustomStringConvertible {
  var error: SystemError
  var description: String { "nobody takes the log any more: \(error)" }
}

/// What stands behind the last slash.
func lastComponent(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

/// A sentence on standard error. What it repeats of names and messages of others acts on no terminal.
func say(_ sentence: String) { _ = try? writeAll(2, harmless(Array("tombolo: \(shownText(sentence))\n".utf8))) }

/// Ends the loop at the first signal; where connections are drained, at the second, or at SIGINT.
final class StopSource: EventSource {
  private let signals: FileReference
  private let loop: EventLoop
  /// What the first SIGTERM does; nil: it ends the loop.
  var drain: (() -> Void)?
  weak var side: HostSide?

  private let report: () -> Void

  /// - Parameter report: called at SIGUSR1.
  init(_ signals: FileReference, _ loop: EventLoop, report: @escaping () -> Void) {
    self.report = report
    self.signals = signals
    self.loop = loop
  }

  override func ready(_ events: EventSet, tag: Int) {
    guard let signal = nextSignal(signals) else { return }
    if signal == SIGUSR1 { return report() }
    guard signal == SIGTERM, let drain else { return loop.stop() }
    self.drain = nil
    drain()
  }
}
