import Inet

// Theory of operation.
//
// Where a connection or a packet may go. What is denied without a rule are the special addresses that are no ordinary
// machine's: link-local ones, those of clouds' metadata, multicast, what is reserved, loopback; and on the host, the
// machine's own. Private networks are allowed: enclaves talk to databases there.
//
// A rule lifts a denial only where it names it: it must be no wider than the range for which the address is denied. So
// `0.0.0.0/0` opens no metadata service, and `10.0.0.0/8` none of the machine's own addresses in it. An address that
// stands for another (IPv4-mapped, NAT64, 6to4, Teredo, ISATAP) is denied where the other one is.

/// Which destinations may be reached, for one side.
public struct Destinations: Equatable, Sendable {
  /// Denied unless a rule names them.
  public static let denied: AddressSets = [.linkLocal, .loopback, .multicast, .metadata, .reserved, .host]

  /// Rules that lift what is denied without them.
  public var allowed: [DestinationRule]
  /// The machine's own addresses; empty inside, where they are the program's own business.
  public var own: Set<IPAddress>
  /// Ports of the machine's own addresses that may be reached all the same.
  public var ownPorts: PortRanges

  public init(allowed: [DestinationRule] = [], own: Set<IPAddress> = [], ownPorts: PortRanges = PortRanges([])) {
    self.allowed = allowed
    self.own = own
    self.ownPorts = ownPorts
  }

  /// Why a destination is denied.
  public struct Denial: Sendable, CustomStringConvertible {
    public var destination: IPAddress
    /// The address that it stands for; otherwise the same.
    public var meant: IPAddress
    /// The built-in rule.
    public var rule: AddressSets
    /// nil for the machine's own addresses.
    public var range: SpecialRange?

    /// `built-in rule "metadata": it stands for 169.254.169.254, in …`
    public var description: String {
      let subject = meant.unmapped == destination.unmapped ? "it is " : "it stands for \(meant), "
      let reason = range.map { "in \($0.prefix), \($0.name) (\($0.source))" } ?? "an address of this machine"
      return "built-in rule \"\(rule.name)\": \(subject)\(reason)"
    }
  }

  /// Allocates nothing: it may be asked for every packet.
  /// - Parameter port: nil where it is not known, or where there is none.
  /// - Returns: nil for a destination that may be reached.
  public func denial(of address: IPAddress, port: UInt16?) -> Denial? {
    let plain = address.unmapped
    var denial = judge(plain, port, as: address)
    if denial == nil, case .v6(let six) = plain {
      six.forEachEmbedded { four in
        if denial == nil { denial = judge(.v4(four), port, as: address) }
      }
    }
    return denial
  }

  private func judge(_ address: IPAddress, _ port: UInt16?, as destination: IPAddress) -> Denial? {
    let length = UInt8(clamping: address.bitCount)
    if !own.isEmpty, own.contains(address), !(port.map { ownPorts.contains($0) } ?? false),
      !isLifted(address, port, length)
    {
      return Denial(destination: destination, meant: address, rule: .host)
    }
    let sets = address.sets.intersection(Self.denied)
    guard !sets.isEmpty else { return nil }
    // The narrowest range decides: who may reach link-local addresses may not yet reach the metadata among them.
    let range = SpecialRange.why(address, sets)
    if isLifted(address, port, range?.prefix.length ?? length) { return nil }
    return Denial(destination: destination, meant: address, rule: range?.sets ?? sets, range: range)
  }

  private func isLifted(_ address: IPAddress, _ port: UInt16?, _ length: UInt8) -> Bool {
    allowed.contains { $0.prefix.length >= length && $0.matches(address, port: port) }
  }
}
