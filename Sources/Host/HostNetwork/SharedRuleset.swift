import Inet
import Netfilter

/// A connection that the host had before an enclave got its ports.
struct HostConnection: Hashable {
  var local: IPEndpoint
  var remote: IPEndpoint

  /// The established connections in /proc/net/tcp or tcp6 (proc_net_tcp(5)); lines that cannot be read are passed over.
  static func parse(_ text: String) -> [HostConnection] { sockets(text, state: "01") }

  /// The listening sockets in the same.
  static func listeners(_ text: String) -> [HostConnection] { sockets(text, state: "0A") }

  private static func sockets(_ text: String, state: Substring) -> [HostConnection] {
    text.split(separator: "\n").dropFirst().compactMap { line in
      let fields = line.split(separator: " ", maxSplits: 4)
      guard fields.count == 5, fields[3] == state, let local = endpoint(fields[1]), let remote = endpoint(fields[2])
      else { return nil }
      return HostConnection(local: local, remote: remote)
    }
  }

  /// The address as words of 32 bits in the machine's order, printed as numbers.
  private static func endpoint(_ field: Substring) -> IPEndpoint? {
    let parts = field.split(separator: ":")
    guard parts.count == 2, let port = UInt16(parts[1], radix: 16), parts[0].utf8.count % 8 == 0 else { return nil }
    var bytes: [UInt8] = []
    var rest = parts[0]
    while !rest.isEmpty {
      guard let word = UInt32(rest.prefix(8), radix: 16) else { return nil }
      bytes += withUnsafeBytes(of: word) { Array($0) }
      rest = rest.dropFirst(8)
    }
    return IPAddress(bytes: bytes).map { IPEndpoint($0.unmapped, port) }
  }
}

/// The rules that share the host's address with an enclave.
///
/// They stand in INPUT: there the kernel has put fragments together again and has decided what is for the host at all, so
/// that ports of containers, which are translated before, stay theirs. What goes to a queue goes no further; the host's
/// TCP, which knows nothing of the enclave's connections, would answer with resets.
///
/// - Connections that the host had before stay the host's.
/// - ICMP errors carry the packet that they are about, and only its ports tell whose they are. If nobody reads that
///   queue, they pass: a host without "packet too big" would be worse off than without Tombolo.
/// - Fragments of IPv6 pass INPUT before they are put together, unless something asks for it (`Ruleset.Match.hasSocket`);
///   the rule that does so holds for an address that no packet is for.
/// - Through `lo` comes what the host sends to itself, which is never the enclave's.
enum SharedRuleset {
  static let name = "tomboloq"
  /// Before other tables' rules at 0; in legacy xtables, at the head of the chain.
  private static let priority: Int32 = -10

  /// - Parameter whole: fragments of IPv6 are put together first; not every kernel can (CONFIG_NFT_SOCKET,
  ///   CONFIG_NETFILTER_XT_MATCH_SOCKET).
  static func make(
    addresses: [IPAddress], ports: PortRanges, firstQueue: UInt16, queues: Int, kept: [HostConnection],
    whole: Bool = true
  ) -> Ruleset {
    let tcp = firstQueue &+ 1...firstQueue &+ UInt16(clamping: queues)
    let tables = addresses.map { address in
      let length = UInt8(address.bytes.count * 8)
      let family: Ruleset.Family = length == 32 ? .ip : .ip6
      let own: [Ruleset.Match] = IPPrefix(address, length).map { [.destination($0)] } ?? []
      let outside: [Ruleset.Match] = [.input("lo", negated: true)]
      var rules: [Ruleset.Rule] = kept.filter { $0.local.address == address }.compactMap { connection in
        guard let remote = IPPrefix(connection.remote.address, length) else { return nil }
        return .init(
          [
            .transport(.tcp), .source(remote), .sourcePort(connection.remote.port),
            .destinationPort(connection.local.port),
          ] + own, .accept)
      }
      for range in ports.ranges {
        rules.append(.init([.transport(.tcp), .destinationPorts(range)] + own + outside, .queue(tcp, [])))
        rules.append(
          .init([.transport(.udp), .destinationPorts(range)] + own + outside, .queue(firstQueue...firstQueue, [])))
      }
      // Unreachable, too big, time exceeded, parameter problem: RFC 792, RFC 4443.
      let errors: [UInt8] = family == .ip ? [3, 11, 12] : [1, 2, 3, 4]
      rules += errors.map {
        .init(
          [.transport(family == .ip ? .icmp : .icmpv6), .icmpType($0)] + own,
          .queue(firstQueue...firstQueue, .bypass))
      }
      if whole, family == .ip6, let nobody = IPPrefix(.v6(.any), 128) {
        rules.append(.init([.destination(nobody), .hasSocket], .drop))
      }
      return Ruleset.Table(family, [.init("input", .filter, .input, priority: priority, rules)])
    }
    return Ruleset(name: name, tables: tables)
  }
}
