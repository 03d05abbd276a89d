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

  public init(_ raw: RawNetwork) {
    address = raw.asksForAddress ? nil : raw.address
    address6 = raw.asksForAddress6 ? nil : raw.address6
    mtu = UInt32(clamping: raw.mtu)
    allowed = raw.allowed
  }

  public var description: String {
    let asked = [address == nil ? "IPv4" : nil, address6 == nil ? "IPv6" : nil].compactMap { $0 }
    let ranges = allowed.map(\.description).joined(separator: ", ")
    let first = asked.map { "ask the host for an \($0) address within \(ranges)" }
    func lines(_ ip: String, _ prefix: IPPrefix?) -> String {
      "ip address add \(prefix?.description ?? "ADDRESS/LENGTH") dev \(Self.link); "
        + "\(ip) route add default dev \(Self.link) src \(prefix?.address.description ?? "ADDRESS")"
    }
    let all =
      first + [
        "ip tuntap add dev \(Self.link) mode tun multi_queue vnet_hdr; ip link set \(Self.link) mtu \(mtu) up",
        lines("ip", address), lines("ip -6", address6),
      ]
    return all.joined(separator: "\n")
  }
}
