import Inet

/// The clients of published UDP ports, as the program sees them: with their own addresses wherever a packet can come from
/// there over the interface of TCP mode. Those that no packet may come from (this machine's loopback, link-local ones, the
/// interface's own) are shown at its gateway's, with their ports where these are free.
public struct ArrivalTable {
  public struct Client: Equatable, Sendable {
    /// The program's port.
    public var port: UInt16
    public var address: IPEndpoint
    /// As the program sees it.
    public var shown: IPEndpoint
  }

  private struct Key: Hashable {
    var port: UInt16
    var shown: IPEndpoint
  }

  /// More than a host has.
  public static let limit = 16384
  /// Ports that are tried for a client whose own is taken.
  private static let tries: UInt16 = 256

  private var clients: [UInt32: Client] = [:]
  private var numbers: [Key: UInt32] = [:]

  private let prefix6: IPPrefix

  /// - Parameter prefix6: the interface's, of IPv6.
  public init(prefix6: IPPrefix = AgreedAddresses.packets6) { self.prefix6 = prefix6 }

  public subscript(number: UInt32) -> Client? { clients[number] }

  /// The newest flow of a client.
  public func number(port: UInt16, shown: IPEndpoint) -> UInt32? { numbers[Key(port: port, shown: shown)] }

  public var isEmpty: Bool { clients.isEmpty }

  /// A number that is in use ends its older client. Of two flows of one client the newer gets the answers.
  /// - Returns: nil where there is no room.
  public mutating func open(_ number: UInt32, port: UInt16, client: IPEndpoint) -> Client? {
    close(number)
    guard clients.count < Self.limit else { return nil }
    var shown = client
    if !canBeShown(client.address) {
      shown.address = gateway(like: client.address)
      var left = Self.tries
      while numbers[Key(port: port, shown: shown)] != nil {
        guard left > 0 else { return nil }
        left -= 1
        // Not 0, which is no port.
        shown.port = shown.port == .max ? 1024 : shown.port + 1
      }
    }
    let made = Client(port: port, address: client, shown: shown)
    clients[number] = made
    numbers[Key(port: port, shown: shown)] = number
    return made
  }

  public mutating func close(_ number: UInt32) {
    guard let client = clients.removeValue(forKey: number) else { return }
    let key = Key(port: client.port, shown: client.shown)
    if numbers[key] == number { numbers[key] = nil }
  }

  public mutating func removeAll() {
    clients = [:]
    numbers = [:]
  }

  /// Whether the enclave's kernel takes a packet from there, and sends the answer the same way.
  func canBeShown(_ address: IPAddress) -> Bool {
    address.canBeOwn && !AgreedAddresses.packets4.contains(address) && !prefix6.contains(address)
  }

  private func gateway(like address: IPAddress) -> IPAddress {
    switch address {
    case .v4: .v4(AgreedAddresses.gateway4)
    case .v6: .v6(AgreedAddresses.gateway6(of: prefix6))
    }
  }
}
