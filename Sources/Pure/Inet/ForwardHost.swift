/// Where a forward leads: an address, or a name that is looked up.
public enum ForwardHost: Hashable, Sendable, CustomStringConvertible {
  case address(IPAddress)
  case name(DomainName)

  /// `localhost` is an address: nobody is asked for it (RFC 6761 section 6.3).
  public init?(_ text: some StringProtocol) {
    if let address = IPAddress(text) {
      self = .address(address)
    } else if let name = try? DomainName(text: text) {
      self = name.labels == [9] + Array("localhost".utf8) ? .address(.v4(.loopback)) : .name(name)
    } else {
      return nil
    }
  }

  public var description: String {
    switch self {
    case .address(let address): address.description
    case .name(let name): name.description
    }
  }

  /// As it stands before a port.
  public var bracketed: String {
    if case .address(.v6) = self { "[\(self)]" } else { description }
  }
}
