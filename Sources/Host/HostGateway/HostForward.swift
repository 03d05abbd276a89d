import CLinux
import Inet
import LinuxSystem
import Relaying

/// A plain stream between a port of the transport and an address, with no hello of ours: the host's half of a `[[forward]]`, or
/// of another program's.
public struct HostForward: Equatable, Sendable, CustomStringConvertible {
  public enum Way: Equatable, Sendable {
    /// What the enclave sends to our port goes there.
    case out(ForwardHost, port: UInt16)
    /// Our clients there reach the enclave's port.
    case incoming(listen: IPEndpoint)
  }

  public var way: Way
  /// Ours for `out`, the enclave's otherwise.
  public var vsockPort: UInt32

  /// Reads `VSOCKPORT:HOST:PORT`; an IPv6 address is in brackets.
  public init?(out text: String) {
    guard let first = text.firstIndex(of: ":"), let vsock = Self.vsockPort(text[..<first]) else { return nil }
    let rest = text[text.index(after: first)...]
    guard let last = rest.lastIndex(of: ":"), let port = decimalPort(rest[rest.index(after: last)...]), port > 0
    else { return nil }
    var host = rest[..<last]
    if host.hasPrefix("["), host.hasSuffix("]") {
      host = host.dropFirst().dropLast()
      guard IPv6Address(host) != nil else { return nil }
    } else if host.contains(":") {
      return nil
    }
    guard let host = ForwardHost(host) else { return nil }
    way = .out(host, port: port)
    vsockPort = vsock
  }

  /// Reads `[ADDR:]PORT:VSOCKPORT`; without an address 127.0.0.1 listens.
  public init?(incoming text: String) {
    guard let last = text.lastIndex(of: ":"), let vsock = Self.vsockPort(text[text.index(after: last)...]) else {
      return nil
    }
    let left = text[..<last]
    let listen = left.contains(":") ? IPEndpoint(left) : decimalPort(left).map { IPEndpoint(.v4(.loopback), $0) }
    guard let listen, listen.port > 0 else { return nil }
    way = .incoming(listen: listen)
    vsockPort = vsock
  }

  private static func vsockPort(_ text: some StringProtocol) -> UInt32? {
    guard (1...10).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
      let port = UInt32(text), port > 0, port != .max
    else { return nil }
    return port
  }

  public var description: String {
    switch way {
    case .out(let host, let port): "--forward \(vsockPort):\(host.bracketed):\(port)"
    case .incoming(let listen): "--forward-in \(listen):\(vsockPort)"
    }
  }
}

/// Why a forward cannot be had.
struct HostForwardError: Error, CustomStringConvertible {
  var forward: HostForward
  var error: SystemError
  var description: String {
    error.errno == EADDRINUSE ? "\(forward): its port is already taken (\(error))" : "\(forward): \(error)"
  }
}

extension HostPlace {
  /// The address of another port of ours.
  func address(of forward: HostForward) -> SocketAddress? {
    switch forward.way {
    case .out: listen.atPort(forward.vsockPort)
    case .incoming(let endpoint): .ip(endpoint)
    }
  }

  /// Opens a forward's listening socket.
  func open(_ forward: HostForward, _ inherited: InheritedSockets) throws -> FileReference {
    guard let address = address(of: forward) else {
      throw HostForwardError(forward: forward, error: SystemError("bind", listen.description, errno: EINVAL))
    }
    if let socket = inherited.take(address, .stream) { return socket }
    do throws(SystemError) {
      if case .out = forward.way { return try open(address) }
      return FileReference(try listenStream(address))
    } catch {
      throw HostForwardError(forward: forward, error: error)
    }
  }
}
