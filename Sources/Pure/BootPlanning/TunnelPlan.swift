import EnclaveConfig
import Inet

/// The enclave's interface in raw mode.
public struct TunnelPlan: Equatable, Sendable, CustomStringConvertible {
  public static let link = "tun0"

  /// nil where the host has yet to be asked.
  public var address: IPPrefix?
  public var address6: IPPrefix?
  /// In bytes.
  public var mtu: UInt32
  /// false where there is no IPv6 address to be had, nor to be asked for.
  public var hasIPv6: Bool
  /// With the host's own address: the ports that are the enclave's; nil where it has an address of its own.
  public var sharedPorts: PortRanges?
  public var queues: Int

  /// The first queue of nfnetlink_queue, for datagrams; those for TCP follow.
  public static let firstQueue: UInt16 = 7766

  /// - Parameter processors: of the enclave; where the configuration says no number of queues, they do.
  public init(_ raw: RawNetwork, processors: Int) {
    address = raw.asksForAddress ? nil : raw.address
    address6 = raw.asksForAddress6 ? nil : raw.address6
    mtu = UInt32(clamping: raw.mtu)
    hasIPv6 = !raw.lacksIPv6
    sharedPorts = raw.capture == .nfqueue ? raw.sharedPorts : nil
    queues = raw.queueCount(processors: processors)
  }

  public var description: String {
    func lines(_ ip: String, _ prefix: IPPrefix?) -> String {
      "ip address add \(shown(prefix)) dev \(Self.link); "
        + "\(ip) route add default dev \(Self.link) src \(prefix?.address.description ?? "ADDRESS")"
    }
    let all =
      [
        "ip tuntap add dev \(Self.link) mode tun multi_queue vnet_hdr; ip link set \(Self.link) mtu \(mtu) up",
        lines("ip", address),
      ] + (hasIPv6 ? [lines("ip -6", address6)] : [])
    guard let range = sharedPorts?.widest else { return all.joined(separator: "\n") }
    return
      (all + [
        "sysctl net.ipv4.ip_local_port_range=\"\(range.lowerBound) \(range.upperBound)\"",
        "ip address add \(AgreedAddresses.nameServer)/32 dev lo",
      ]).joined(separator: "\n")
  }

  /// A shared address has no network behind it.
  private func shown(_ prefix: IPPrefix?) -> String {
    sharedPorts == nil ? prefix?.description ?? "ADDRESS/LENGTH" : prefix?.address.description ?? "ADDRESS"
  }
}
