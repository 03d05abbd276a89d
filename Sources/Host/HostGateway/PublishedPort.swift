import CLinux
import HostNetwork
import Inet
import LinuxSystem

/// A port of the host that leads to a port of the program.
public struct PublishedPort: Equatable, Sendable, CustomStringConvertible {
  public var listen: IPEndpoint
  public var enclavePort: UInt16
  public var transport: PortTransport

  public init(listen: IPEndpoint, enclavePort: UInt16, transport: PortTransport = .tcp) {
    self.listen = listen
    self.enclavePort = enclavePort
    self.transport = transport
  }

  /// Ports that one `-p` publishes at most.
  public static let rangeLimit = 1024

  /// Reads what `init` does, and ranges of the same length in the place of both ports: `8000-8010:9000-9010`.
  public static func all(_ whole: String) -> [PublishedPort]? {
    if let one = PublishedPort(whole) { return [one] }
    let parts = whole.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let text = parts.first, let colon = text.lastIndex(of: ":") else { return nil }
    var left = text[..<colon]
    var address = ""
    if let other = left.lastIndex(of: ":") {
      address = String(left[...other])
      left = left[left.index(after: other)...]
    }
    guard let host = range(left), let enclave = range(text[text.index(after: colon)...]), host.count == enclave.count,
      host.count <= rangeLimit
    else { return nil }
    var ports: [PublishedPort] = []
    for (from, to) in zip(host, enclave) {
      guard let port = PublishedPort("\(address)\(from):\(to)" + (parts.count == 2 ? "/\(parts[1])" : "")) else {
        return nil
      }
      ports.append(port)
    }
    return ports
  }

  private static func range(_ text: Substring) -> ClosedRange<UInt16>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false)
    guard ends.count == 2, let first = decimalPort(ends[0]), let last = decimalPort(ends[1]), first > 0, first <= last
    else { return nil }
    return first...last
  }

  /// Reads `[ADDR:]HOSTPORT:ENCLAVEPORT[/tcp|/udp]`; without an address every IPv4 address of the host listens.
  public init?(_ whole: String) {
    let parts = whole.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let text = parts.first, let transport = parts.count == 1 ? .tcp : PortTransport(rawValue: String(parts[1]))
    else { return nil }
    guard let colon = text.lastIndex(of: ":"), let enclave = decimalPort(text[text.index(after: colon)...]),
      enclave != 0
    else { return nil }
    let left = text[..<colon]
    guard let listen = left.contains(":") ? IPEndpoint(left) : decimalPort(left).map({ IPEndpoint(.v4(.any), $0) })
    else { return nil }
    self.init(listen: listen, enclavePort: enclave, transport: transport)
  }

  public var description: String { "\(listen) → \(enclavePort)" + (transport == .udp ? "/udp" : "") }

  /// The port's socket: one that listens, or takes datagrams, as soon as the program does; in raw mode, where the kernel passes clients on, one
  /// that only keeps the port from others.
  /// - Throws: a sentence for the command line.
  public func open(raw: Bool, _ inherited: InheritedSockets = InheritedSockets()) throws -> FileReference {
    if !raw, let socket = inherited.take(.ip(listen), transport == .tcp ? .stream : .datagram) { return socket }
    let address = SocketAddress.ip(listen)
    do throws(SystemError) {
      switch (raw, transport) {
      case (false, .tcp): return FileReference(try reserveListener(address))
      case (false, .udp): return try DatagramPort(listen).file
      case (true, .tcp): return FileReference(try reserveStream(address))
      case (true, .udp): return FileReference(try reserveDatagram(address))
      }
    } catch {
      throw PublishedPortError(port: self, error: error)
    }
  }
}

/// Why a port cannot be published.
public struct PublishedPortError: Error, CustomStringConvertible {
  public var port: PublishedPort
  public var error: SystemError
  public var description: String {
    error.errno == EADDRINUSE
      ? "-p \(port): port \(port.listen.port) is already taken on this machine (\(error))" : "-p \(port): \(error)"
  }
}
