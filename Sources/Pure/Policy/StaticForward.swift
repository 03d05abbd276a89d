import Inet

/// A plain stream, with no hello of ours, between one address inside and one port of the transport: a `[[forward]]`.
public struct StaticForward: Hashable, Sendable, CustomStringConvertible {
  public enum Way: Hashable, Sendable {
    /// Clients of `listen` reach the host's port.
    case out(listen: IPEndpoint)
    /// The host's connections to the enclave's port reach what listens at `connect`.
    case incoming(connect: IPEndpoint)
  }

  public var way: Way
  /// Of the host for `out`, of the enclave otherwise.
  public var vsockPort: UInt32
  /// What every stream out begins with.
  public var header: [UInt8]

  public init(_ way: Way, vsockPort: UInt32, header: [UInt8] = []) {
    self.way = way
    self.vsockPort = vsockPort
    self.header = header
  }

  /// Marlin's header ("salmon"): the IPv4 number and the port, both little-endian.
  public static func salmonHeader(_ address: IPv4Address, _ port: UInt16) -> [UInt8] {
    Array(address.bytes.reversed()) + [UInt8(port & 0xff), UInt8(port >> 8)]
  }

  /// What `salmonHeader` was made of.
  public var salmonDestination: IPEndpoint? {
    guard header.count == 6 else { return nil }
    return IPEndpoint(
      .v4(IPv4Address(header[3], header[2], header[1], header[0])), UInt16(header[5]) << 8 | UInt16(header[4]))
  }

  public var description: String {
    switch way {
    case .out(let listen): "\(listen) to the host's port \(vsockPort)"
    case .incoming(let connect): "the enclave's port \(vsockPort) to \(connect)"
    }
  }

  private static let headerLimit = 255

  /// For `decode`: way, header's length, port inside, vsock port, address behind its length, header.
  public var encoded: [UInt8] {
    let endpoint: IPEndpoint
    let code: UInt8
    switch way {
    case .out(let listen): (code, endpoint) = (0, listen)
    case .incoming(let connect): (code, endpoint) = (1, connect)
    }
    let header = header.prefix(Self.headerLimit)
    let address = endpoint.address.bytes
    var bytes: [UInt8] = [code, UInt8(truncatingIfNeeded: header.count)]
    bytes += [UInt8(endpoint.port >> 8), UInt8(endpoint.port & 0xff)]
    for shift: UInt32 in [24, 16, 8, 0] { bytes.append(UInt8(vsockPort >> shift & 0xff)) }
    return bytes + [UInt8(truncatingIfNeeded: address.count)] + address + header
  }

  /// - Returns: nil for bytes that are not those of whole forwards.
  public static func decode(_ bytes: some Collection<UInt8>) -> [StaticForward]? {
    var rest = Array(bytes)[...]
    var found: [StaticForward] = []
    func take(_ count: Int) -> [UInt8]? {
      guard rest.count >= count else { return nil }
      defer { rest = rest.dropFirst(count) }
      return Array(rest.prefix(count))
    }
    while !rest.isEmpty {
      guard let head = take(9), head[0] <= 1, let address = take(Int(head[8])).flatMap({ IPAddress(bytes: $0) }),
        let header = take(Int(head[1]))
      else { return nil }
      let endpoint = IPEndpoint(address, UInt16(head[2]) << 8 | UInt16(head[3]))
      let port = head[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
      guard endpoint.port > 0, port > 0 else { return nil }
      found.append(
        StaticForward(
          head[0] == 0 ? .out(listen: endpoint) : .incoming(connect: endpoint), vsockPort: port, header: header))
    }
    return found
  }
}
