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

  /// The port's socket: one that listens as soon as the program does; in raw mode, where the kernel passes clients on, one
  /// that only keeps the port from others.
  /// - Throws: a sentence for the command line.
  public func open(raw: Bool) throws(PublishedPortError) -> FileReference {
    let address = SocketAddress.ip(listen)
    do throws(SystemError) {
      switch (raw, transport) {
      case (false, _): return FileReference(try reserveListener(address))
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
