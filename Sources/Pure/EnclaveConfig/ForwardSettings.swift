import Inet
import Policy

// `[[forward]]`: for other people's halves. Each names one address inside and one port of the transport; either the enclave
// listens for its programs, or for the host.

extension Configuration {
  private enum ForwardKind: String, CaseIterable { case plain, salmon }

  private static let vsockPorts = 1...0xffff_fffe

  mutating func readForward(_ table: inout TableReader) throws(ConfigurationError) {
    let loopback = "an address of the loopback with a port, such as \"127.0.0.2:443\""
    let listen = try table.value("listen", loopback, Self.loopbackEndpoint)
    let port = try table.integer("vsock_port", in: Self.vsockPorts)
    let hostName = try table.string("host_name")
    let ownPort = try table.integer("vsock_listen", in: Self.vsockPorts)
    let connect = try table.value("connect", loopback, Self.loopbackEndpoint)
    let kind = try table.value("kind", "\"plain\" or \"salmon\"") { ForwardKind(rawValue: $0) } ?? .plain
    let destination = try table.value("destination", "an IPv4 address with a port, such as \"93.184.216.34:443\"") {
      IPEndpoint($0).flatMap { if case .v4 = $0.address, $0.port > 0 { $0 } else { nil } }
    }
    switch (listen, ownPort) {
    case (let listen?, nil):
      guard let port else { throw table.error("vsock_port", "expected the host's port with \"listen\"") }
      if connect != nil { throw table.error("connect", "expected \"vsock_listen\" with it, and no \"listen\"") }
      var header: [UInt8] = []
      switch (kind, destination) {
      case (.plain, nil): break
      case (.plain, _?):
        throw table.error("destination", "expected kind = \"salmon\" with it: a plain stream names none")
      case (.salmon, let destination?):
        if case .v4(let address) = destination.address {
          header = StaticForward.salmonHeader(address, destination.port)
        }
      case (.salmon, nil):
        throw table.error("destination", "expected with kind = \"salmon\" where its streams are to go")
      }
      for other in forwards where other.way == .out(listen: listen) {
        throw table.error("listen", "found \"\(listen)\" twice")
      }
      if let hostName { try addName(hostName, listen.address, table) }
      forwards.append(StaticForward(.out(listen: listen), vsockPort: UInt32(port), header: header))
    case (nil, let ownPort?):
      guard let connect else {
        throw table.error("connect", "expected with \"vsock_listen\" where the program listens")
      }
      for (key, isThere) in [
        ("vsock_port", port != nil), ("host_name", hostName != nil), ("destination", destination != nil),
      ] where isThere {
        throw table.error(key, "expected \"listen\" with it, and no \"vsock_listen\"")
      }
      guard UInt32(ownPort) != Self.defaultPort else {
        throw table.error("vsock_listen", "found \(ownPort), which is Tombolo's own port")
      }
      for other in forwards where other.vsockPort == UInt32(ownPort) {
        if case .incoming = other.way { throw table.error("vsock_listen", "found \(ownPort) twice") }
      }
      forwards.append(StaticForward(.incoming(connect: connect), vsockPort: UInt32(ownPort)))
    case (_?, let ownPort?):
      throw table.error("vsock_listen", "found \(ownPort) beside \"listen\", expected one of the two")
    case (nil, nil):
      throw table.error("listen", "expected \"listen\" and \"vsock_port\", or \"vsock_listen\" and \"connect\"")
    }
  }

  /// The name is in /etc/hosts, and an answer of the enclave's own name service.
  private mutating func addName(
    _ text: String, _ address: IPAddress, _ table: TableReader
  ) throws(ConfigurationError) {
    let name: DomainName
    do throws(DomainName.Defect) {
      name = try DomainName(text: text)
    } catch {
      throw table.error("host_name", "found \"\(text)\", \(error)")
    }
    if let known = resolver.names.hosts.first(where: { $0.name == name }) {
      guard known.addresses == [address] else {
        throw table.error("host_name", "found \"\(text)\", which has another address already")
      }
    } else {
      resolver.names.hosts.append(FixedHost(name, [address]))
    }
  }

  private static func loopbackEndpoint(_ text: String) -> IPEndpoint? {
    IPEndpoint(text).flatMap { $0.address.isLoopback && $0.address.unmapped == $0.address && $0.port > 0 ? $0 : nil }
  }

  /// Whether anything passes between the enclave and the host beside the session and the log.
  public var hasProxy: Bool { networkMode != .none || !forwards.isEmpty }

  /// Of a forward whose port is our own.
  var forwardDefect: String? {
    for forward in forwards {
      if case .out = forward.way, forward.vsockPort == parentPort {
        return "forward.vsock_port: found \(parentPort), which is Tombolo's own port (network.parent_port)"
      }
    }
    return nil
  }

  /// As `policyLines` has them.
  var forwardLines: [String] {
    forwards.map { forward in
      switch forward.way {
      case .out(let listen):
        return "forward \(listen) \(forward.vsockPort)" + (forward.salmonDestination.map { " salmon \($0)" } ?? "")
      case .incoming(let connect): return "forward-in \(forward.vsockPort) \(connect)"
      }
    }
  }
}
