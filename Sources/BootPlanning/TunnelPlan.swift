import EnclaveConfig
import Inet

/// The enclave's interface in raw mode.
public struct TunnelPlan: Equatable, Sendable, CustomStringConvertible {
  public static let link = "tun0"

  public var address: IPPrefix
  public var address6: IPPrefix
  /// In bytes.
  public var mtu: UInt32

  public init(_ raw: RawNetwork) {
    address = raw.address
    address6 = raw.address6
    mtu = UInt32(clamping: raw.mtu)
  }

  public var description: String {
    """
    ip tuntap add dev \(Self.link) mode tun multi_queue vnet_hdr; ip link set \(Self.link) mtu \(mtu) up
    ip address add \(address) dev \(Self.link); ip route add default dev \(Self.link) src \(address.address)
    ip address add \(address6) dev \(Self.link); ip -6 route add default dev \(Self.link) src \(address6.address)
    """
  }
}
