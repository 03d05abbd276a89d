import EnclaveConfig
import Inet
import Policy

/// The interface of an enclave in TCP mode: what no rule turns to the proxy's sockets leaves through it, and the proxy reads it
/// there as packets. A kernel without TUN devices has none, and `lo` keeps the default routes.
public struct PacketLinkPlan: Equatable, Sendable, CustomStringConvertible {
  public static let link = TunnelPlan.link
  /// That of most paths: a program that asks for no fragments learns it from its own kernel, as on any machine. In bytes.
  public static let mtu: UInt32 = 1500

  public var address = AgreedAddresses.packets4
  public var address6: IPPrefix

  /// - Parameter acceptsFirst: some connections are accepted before the host has connected.
  public init(acceptsFirst: Bool) {
    address6 = acceptsFirst ? AgreedAddresses.earlyPackets6 : AgreedAddresses.packets6
  }

  public init(_ configuration: Configuration) {
    self.init(acceptsFirst: configuration.connect == .early || configuration.egress.sni.check != .off)
  }

  public var description: String {
    func lines(_ ip: String, _ prefix: IPPrefix) -> String {
      "  ip address add \(prefix) dev \(Self.link); \(ip) route replace default dev \(Self.link) src \(prefix.address)"
    }
    return [
      "where there is /dev/net/tun:",
      "  ip tuntap add dev \(Self.link) mode tun multi_queue vnet_hdr; ip link set \(Self.link) mtu \(Self.mtu) up",
      lines("ip", address), lines("ip -6", address6),
    ].joined(separator: "\n")
  }
}
