import Inet

/// A name server that the enclave asks itself: `1.1.1.1`, `[2606:4700:4700::1111]:53`, `tls://1.1.1.1#one.one.one.one`,
/// `https://1.1.1.1/dns-query`.
public struct UpstreamServer: Hashable, Sendable, CustomStringConvertible {
  public enum Way: String, CaseIterable, Sendable {
    /// DNS over TCP (RFC 7766): whoever is on the way can read and change it.
    case plain
    /// DNS over TLS (RFC 7858).
    case tls
    /// DNS over HTTPS (RFC 8484), HTTP/2.
    case https

    var port: UInt16 {
      switch self {
      case .plain: 53
      case .tls: 853
      case .https: 443
      }
    }
  }

  /// What the server's certificate must be for.
  public enum Identity: Hashable, Sendable, CustomStringConvertible {
    case name(DomainName)
    case address(IPAddress)

    public var description: String {
      switch self {
      case .name(let name): name.description
      case .address(let address): address.description
      }
    }
  }

  public var way: Way
  public var endpoint: IPEndpoint
  /// nil for a plain one.
  public var identity: Identity?
  /// Of `https` alone.
  public var path = ""

  /// How many there may be.
  public static let limit = 8
  static let pathLimit = 255

  public var isAuthenticated: Bool { way != .plain }

  static let form =
    "an address such as \"1.1.1.1\", \"tls://1.1.1.1#one.one.one.one\" or \"https://1.1.1.1/dns-query\""

  /// - Throws: what completes "found "…", ".
  public init(_ text: String) throws(UpstreamError) {
    var rest = Substring(text)
    way = .plain
    if let scheme = Self.scheme(rest) {
      switch scheme.word {
      case "tls": way = .tls
      case "https": way = .https
      default: throw UpstreamError(reason: "expected \"tls://\" or \"https://\" in front, or nothing")
      }
      rest = scheme.rest
    }
    var name: Substring?
    if way != .plain, let mark = rest.firstIndex(of: "#") {
      name = rest[rest.index(after: mark)...]
      rest = rest[..<mark]
    }
    if way == .https {
      guard let slash = rest.firstIndex(of: "/"), Self.isPath(rest[slash...]) else {
        throw UpstreamError(reason: "expected a path behind the address, such as \"https://1.1.1.1/dns-query\"")
      }
      path = String(rest[slash...])
      rest = rest[..<slash]
    }
    endpoint = try Self.endpoint(rest, way.port)
    switch (way, name) {
    case (.plain, _): identity = nil
    case (.tls, nil):
      throw UpstreamError(
        reason: "expected \"#\" and the name, or the address, that the server's certificate is for, such as "
          + "\"tls://1.1.1.1#one.one.one.one\"")
    case (.https, nil): identity = .address(endpoint.address)
    case (_, let name?): identity = try Self.identity(name)
    }
  }

  private static func scheme(_ text: Substring) -> (word: Substring, rest: Substring)? {
    guard let colon = text.firstIndex(of: ":"), text[colon...].hasPrefix("://") else { return nil }
    return (text[..<colon], text[text.index(colon, offsetBy: 3)...])
  }

  private static func endpoint(_ text: Substring, _ usual: UInt16) throws(UpstreamError) -> IPEndpoint {
    if let address = IPAddress(String(text)) { return IPEndpoint(address, usual) }
    var host = text
    var port = usual
    if let colon = text.lastIndex(of: ":"), text.hasPrefix("[") ? text[..<colon].hasSuffix("]") : true {
      guard let number = decimalPort(text[text.index(after: colon)...]), number > 0 else {
        throw UpstreamError(reason: "expected \(form)")
      }
      port = number
      host = text[..<colon]
    }
    if host.hasPrefix("["), host.hasSuffix("]"), let six = IPv6Address(host.dropFirst().dropLast()) {
      return IPEndpoint(.v6(six), port)
    }
    if let four = IPv4Address(host) { return IPEndpoint(.v4(four), port) }
    if (try? DomainName(text: host)) != nil {
      throw UpstreamError(
        reason: "expected the server's address: a name would have to be asked for before there is a server to ask")
    }
    throw UpstreamError(reason: "expected \(form)")
  }

  private static func identity(_ text: Substring) throws(UpstreamError) -> Identity {
    if let address = IPAddress(String(text)) { return .address(address) }
    do throws(DomainName.Defect) {
      return .name(try DomainName(text: text))
    } catch {
      throw UpstreamError(reason: "expected the name or the address of a certificate behind \"#\": \(error)")
    }
  }

  /// RFC 3986 section 3.3, and a query; no template (RFC 8484 has `{?dns}` for GET, which is not used).
  private static func isPath(_ text: Substring) -> Bool {
    text.utf8.count <= pathLimit
      && text.utf8.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
          || "-._~!$&'()*+,;=:@/%?".utf8.contains(byte)
      }
  }

  /// As it is written in a configuration, with its port.
  public var description: String {
    switch (way, identity) {
    case (.tls, let identity?): return "tls://\(endpoint)#\(identity)"
    case (.https, let identity?): return "https://\(endpoint)\(path)#\(identity)"
    default: return endpoint.description
    }
  }

  /// What HTTP calls the server: the name of its certificate, and a port that is not the usual one.
  public var authority: String {
    guard let identity else { return endpoint.description }
    var text = identity.description
    if case .address(.v6) = identity { text = "[\(text)]" }
    return endpoint.port == way.port ? text : "\(text):\(endpoint.port)"
  }

  /// Why the servers of a list cannot stand in this order; nil where they can. One after the other is asked, and no answer
  /// that a plain one gives must stand for an authenticated one's that failed.
  public static func defect(in servers: [UpstreamServer]) -> String? {
    guard servers.count <= limit else { return "found \(servers.count) servers, expected at most \(limit)" }
    guard let first = servers.firstIndex(where: \.isAuthenticated),
      let plain = servers[first...].first(where: { !$0.isAuthenticated })
    else { return nil }
    return "found \"\(plain)\" behind \"\(servers[first])\", expected plain servers first: what an authenticated one "
      + "does not answer is not asked in the open"
  }

  /// One text for a list, and back.
  public static func text(_ servers: [UpstreamServer]) -> String {
    servers.reduce(into: "") { $0 += ($0.isEmpty ? "" : " ") + $1.description }
  }

  public static func list(_ text: String) throws(UpstreamError) -> [UpstreamServer] {
    var servers: [UpstreamServer] = []
    for part in text.split(separator: " ") { servers.append(try UpstreamServer(String(part))) }
    return servers
  }
}

public struct UpstreamError: Error, Equatable, Sendable, CustomStringConvertible {
  public var reason: String
  public init(reason: String) { self.reason = reason }
  public var description: String { reason }
}
