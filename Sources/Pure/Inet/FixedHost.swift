/// A name with its addresses by configuration.
public struct FixedHost: Equatable, Sendable {
  public var name: DomainName
  public var addresses: [IPAddress]

  public init(_ name: DomainName, _ addresses: [IPAddress]) {
    self.name = name
    self.addresses = addresses
  }
}
