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
  /// Where what the host gives must be.
  private let allowed: [IPPrefix]
  /// false where there is no IPv6 address to be had, nor to be asked for.
  public var hasIPv6: Bool
  /// With the host's own address: the ports that are the enclave's; nil where it has an address of its own.
  public var sharedPorts: PortRanges?
  public var queues: Int

  /// The first queue of nfnetlink_queue, for datagrams; those for TCP follow.
  public static let firstQueue: UInt16 = 7766

  public init(_ raw: RawNetwork) {
    address = raw.asksForAddress ? nil : raw.address
    address6 = raw.asksForAddress6 ? nil : raw.address6
    mtu = UInt32(clamping: raw.mtu)
    allowed = raw.allowed
    hasIPv6 = !raw.lacksIPv6
    sharedPorts = raw.capture == .nfqueue ? raw.sharedPorts : nil
    queues = raw.queueCount(processors: 1)
  }

  public var description: String {
    let asked = [address == nil ? "IPv4" : nil, hasIPv6 && address6 == nil ? "IPv6" : nil].compactMap { $0 }
    let ranges = allowed.map(\.description).joined(separator: ", ")
    let first = asked.map {
      sharedPorts == nil || allowed != RawNetwork.defaultAllowed
        ? "ask the host for an \($0) address within \(ranges)" : "ask the host for its \($0) address"
    }
    func lines(_ ip: String, _ prefix: IPPrefix?) -> String {
      "ip address add \(shown(prefix)) dev \(Self.link); "
        + "\(ip) route add default dev \(Self.link) src \(prefix?.address.description ?? "ADDRESS")"
    }
    let all =
      first + [
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
