import EnclaveConfig
import HostGateway
import HostNetwork
import Inet
import LinuxSystem

/// Raw mode on the command line.
enum RawMode {
  /// The usual ranges, and the very addresses that an operator has written into the configuration.
  static func ranges(_ raw: RawNetwork) -> [IPPrefix] {
    HostTunnel.defaultRanges + [raw.address, raw.address6]
  }

  static func tunnel(_ published: [PublishedPort], _ ranges: [IPPrefix]) throws -> HostTunnel {
    try HostTunnel(
      ranges: ranges, published: published.map { Publication(listen: $0.listen, port: $0.enclavePort) }
    ) { sentence in
      _ = try? writeAll(2, Array("tombolo: \(sentence)\n".utf8))
    }
  }

  /// Gives a local enclave addresses of its own, unless its configuration has others than the default, and makes the
  /// host's side ready.
  /// - Returns: what the enclave's configuration must say.
  static func configure(_ tunnel: HostTunnel, _ configuration: inout Configuration) throws -> String {
    if let suggested = tunnel.suggestedAddresses {
      if configuration.raw.address == RawNetwork.defaultAddress { configuration.raw.address = suggested.v4 }
      if configuration.raw.address6 == RawNetwork.defaultAddress6 { configuration.raw.address6 = suggested.v6 }
    }
    let raw = configuration.raw
    let queues = raw.queueCount(processors: processorCount())
    try tunnel.configure(
      .init(
        address4: raw.address, address6: raw.address6, mtu: UInt16(clamping: raw.mtu), queues: UInt8(clamping: queues)))
    return """
      [network]
      mode = "raw"
      address = "\(raw.address)"
      address6 = "\(raw.address6)"
      queues = \(queues)

      """
  }
}
