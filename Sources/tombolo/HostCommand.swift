import ArgumentParser
import BootPlanning
import CLinux
import EventLoop
import HostGateway
import Inet
import LinuxSystem
import LocalRunning
import Relaying

struct HostCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "host",
    abstract: "Be the host side of an enclave: its way out, its published ports and the home of its log.")

  @Option(help: ArgumentHelp("How the enclave is reached: unix:DIR, a directory of Unix sockets.", valueName: "transport"))
  var transport: String
  @Option(
    name: .customShort("p"),
    help: ArgumentHelp("Publish a port of the program on this machine.", valueName: "[addr:]hostport:enclaveport"))
  var publish: [String] = []
  @Option(help: "The name server to ask (default: this machine's /etc/resolv.conf).")
  var dns: String?
  @Option(help: "raw (the program's bytes as they are), text or json (a line each, with time and source).")
  var logFormat: LogFormat = .text
  @Flag(name: .shortAndLong, help: "Log every connection.")
  var verbose = false

  func run() throws {
    do {
      try serve()
    } catch {
      throw fail("\(error)")
    }
  }

  private func serve() throws {
    guard transport.hasPrefix("unix:"), transport.utf8.count > 5 else {
      throw Misuse("--transport: found \"\(transport)\", expected unix:DIR")
    }
    let directory = String(transport.dropFirst(5))
    guard fileKind(directory) == .directory else { throw Misuse("--transport: \(directory) is not a directory") }
    let published = try publish.map { text in
      guard let port = PublishedPort(text) else {
        throw Misuse("-p: found \"\(text)\", expected [ADDR:]HOSTPORT:ENCLAVEPORT such as 127.0.0.1:8080:80")
      }
      return port
    }
    let server = try dns.map { text in
      guard let address = IPAddress(text) else { throw Misuse("--dns: found \"\(text)\", expected an IP address") }
      return address
    }
    let signals = try openSignals([SIGTERM, SIGINT])
    ignoreBrokenPipes()
    raiseOpenFilesLimit()
    let loop = try EventLoop()
    let stop = StopSource(signals, loop)
    _ = try loop.add(signals.rawValue, [.readable], stop)
    let sockets = try published.map { port in
      do throws(SystemError) {
        return (FileHandle(try listenStream(.ip(port.listen))), port)
      } catch {
        throw Misuse("-p \(port): \(error)")
      }
    }
    let path = EnclaveLayout.hostSocket(in: directory)
    let listener = try Self.listen(path)
    defer { removeFile(path) }
    let report: (String) -> Void = { _ = try? writeAll(2, Array("tombolo: \($0)\n".utf8)) }
    let gateway = try Gateway(
      loop: loop, transport: listener, enclave: StreamTarget(.unix(EnclaveLayout.enclaveSocket(in: directory))),
      published: sockets, logFormat: logFormat, verbose: verbose,
      resolverConfiguration: resolverConfiguration(server), log: report)
    gateway.onExit = { report("the enclave's program ended with status \($0)") }
    try withExtendedLifetime((gateway, stop)) { try loop.run() }
  }

  /// A socket that a host before us left behind is taken over, one that somebody listens on is not.
  private static func listen(_ path: String) throws -> FileHandle {
    if fileKind(path) == .socket {
      let probe = FileHandle(try makeSocket(AF_UNIX, .stream))
      let answer = Result { () throws(SystemError) in try connectStream(probe.rawValue, .unix(path)) }
      guard case .failure(let error) = answer, error.errno == ECONNREFUSED else {
        throw SystemError("bind", path, errno: EADDRINUSE)
      }
      removeFile(path)
    }
    let listener = FileHandle(try listenStream(.unix(path)))
    try changeMode(path, 0o666)
    return listener
  }
}

/// Ends the loop at the first signal.
final class StopSource: EventSource {
  private let signals: FileHandle
  private let loop: EventLoop

  init(_ signals: FileHandle, _ loop: EventLoop) {
    self.signals = signals
    self.loop = loop
  }

  override func ready(_ events: EventSet, tag: Int) {
    if nextSignal(signals) != nil { loop.stop() }
  }
}
