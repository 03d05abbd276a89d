import Inet
import Policy

/// What a line of the log says about one destination: that it was used, or denied. Reads the sentences of the enclave's proxy and
/// of the host side (docs/policy.md, "What decides"); every other line is none.
public struct Sighting: Equatable, Sendable {
  public enum Subject: Hashable, Sendable, CustomStringConvertible {
    /// A name that was asked for.
    case query(String)
    /// Flows for a name.
    case name(String, port: UInt16?, FlowTransport)
    /// Flows to an address that was the answer for no name.
    case address(IPAddress, port: UInt16?, FlowTransport)

    /// `dns api.example.com`, `api.example.com:443`, `udp://10.0.0.1:53`.
    public var description: String {
      switch self {
      case .query(let name): return "dns \(name)"
      case .name(let name, let port, let transport):
        return Self.scheme(transport) + name + (port.map { ":\($0)" } ?? "")
      case .address(let address, let port, let transport):
        return Self.scheme(transport) + (port.map { IPEndpoint(address, $0).description } ?? "\(address)")
      }
    }

    public init(_ use: FirstUses.Use) {
      self =
        switch use {
        case .query(let name): .query("\(name)")
        case .name(let name, let port, let transport):
          .name("\(name)", port: transport.hasPorts ? port : nil, transport)
        case .address(let endpoint, let transport):
          .address(endpoint.address, port: transport.hasPorts ? endpoint.port : nil, transport)
        }
    }

    private static func scheme(_ transport: FlowTransport) -> String {
      transport == .tcp ? "" : "\(transport.rawValue)://"
    }

    /// The narrowest rule of `allow` that names it; nil where none can.
    public var rule: DestinationRule? {
      switch self {
      // A rule with a port would open that port; ICMP has none, and needs another rule.
      case .query(let name): Self.named(name).map { DestinationRule($0, transport: .icmp) }
      case .name(let name, let port, let transport):
        Self.named(name).map { DestinationRule($0, ports: port.map { $0...$0 }, transport: Self.said(transport)) }
      case .address(let address, let port, let transport):
        IPPrefix(address, UInt8(address.bitCount)).map {
          DestinationRule(.prefix($0), ports: port.map { $0...$0 }, transport: Self.said(transport))
        }
      }
    }

    /// A rule without a transport is for TCP.
    private static func said(_ transport: FlowTransport) -> FlowTransport? { transport == .tcp ? nil : transport }

    private static func named(_ name: String) -> DestinationRule.Target? {
      (try? DomainName(text: name)).map { .name($0) }
    }
  }

  public var subject: Subject
  /// The address of flows; of those for a name too.
  public var address: IPAddress?
  public var isAllowed: Bool
  /// What decided.
  public var reason: String
  /// Of how many further denials, of whatever destination, the line tells.
  public var more: UInt64

  /// nil for every other line.
  public init?(_ line: some StringProtocol) {
    var words = line.split(separator: " ", omittingEmptySubsequences: false)[...]
    let isQuery = ["dns:", "name:"].contains(words.first ?? "")
    if isQuery {
      guard words.count > 4 else { return nil }
      subject = .query(String(words[words.startIndex + 1]))
      // Behind it is the type of record.
      words = words.dropFirst(3)
    } else {
      guard words.count > 4, ["egress", "packets", "connection"].contains(words[words.startIndex]),
        words[words.startIndex + 1] == "to"
      else { return nil }
      let isPacket = words[words.startIndex] == "packets"
      let text = words[words.startIndex + 2]
      words = words.dropFirst(3)
      let remarks = Self.remarks(&words)
      let transport = remarks.lazy.compactMap { FlowTransport(rawValue: $0.lowercased()) }.first
      let name = remarks.first { FlowTransport(rawValue: $0.lowercased()) == nil }
      let carrier = transport ?? (isPacket ? .icmp : .tcp)
      let endpoint = IPEndpoint(text)
      guard let address = endpoint?.address ?? IPAddress(text) else { return nil }
      self.address = address
      subject =
        name.map { .name($0, port: endpoint?.port, carrier) } ?? .address(address, port: endpoint?.port, carrier)
    }
    switch words.first {
    case "allowed:": isAllowed = true
    case "denied:": isAllowed = false
    default: return nil
    }
    (reason, more) = Self.reason(words.dropFirst())
  }

  /// What stands in brackets: a name, a transport, or both behind each other or with a comma.
  private static func remarks(_ words: inout ArraySlice<some StringProtocol>) -> [String] {
    var found: [String] = []
    while let word = words.first, word.hasPrefix("(") || !found.isEmpty, !word.hasSuffix(":") {
      let bare = word.drop { $0 == "(" }.prefix { $0 != ")" && $0 != "," }
      if !bare.isEmpty { found.append(String(bare)) }
      words = words.dropFirst()
    }
    return found
  }

  /// `… (and 3 more were denied since the last such line)` (`DenialBudget`).
  private static func reason(_ words: ArraySlice<some StringProtocol>) -> (String, UInt64) {
    let tail = words.suffix(10).map { String($0) }
    if tail.count == 10, tail[0] == "(and",
      tail[2...] == ["more", "were", "denied", "since", "the", "last", "such", "line)"],
      let more = UInt64(tail[1])
    {
      return (words.dropLast(10).joined(separator: " "), more)
    }
    return (words.joined(separator: " "), 0)
  }
}
