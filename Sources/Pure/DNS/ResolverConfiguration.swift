import Inet

/// resolv.conf(5): the servers and how long to wait for them, which a forwarder uses, and what is for the C library of the
/// programs behind it.
public struct ResolverConfiguration: Equatable, Sendable {
  /// In order of preference; at most three (MAXNS).
  public var servers: [IPEndpoint]
  /// Seconds for one attempt, 1 to 30.
  public var timeout: Int
  /// How often the whole list is tried, 1 to 5.
  public var attempts: Int
  /// The domains of the last `search` or `domain` line, as they stand there.
  public var search: [String] = []
  /// The words of all `options` lines, as they stand there.
  public var options: [String] = []

  public init(servers: [IPEndpoint], timeout: Int = 5, attempts: Int = 2) {
    self.servers = servers
    self.timeout = timeout
    self.attempts = attempts
  }

  /// Reads resolv.conf; what it does not know it passes over, as the C library does. Without a `nameserver` line the
  /// server is 127.0.0.1, as there.
  public init(resolvConf text: String) {
    self.init(servers: [])
    for line in text.split(whereSeparator: \.isNewline) {
      let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
      guard let keyword = words.first, !keyword.hasPrefix("#"), !keyword.hasPrefix(";") else { continue }
      if keyword == "nameserver", words.count > 1 {
        // A zone (fe80::1%eth0) cannot be carried to a socket address by text alone.
        if let address = IPAddress(words[1]), servers.count < 3 { servers.append(IPEndpoint(address, 53)) }
      } else if keyword == "search" {
        search = Self.readable(words.dropFirst())
      } else if keyword == "domain" {
        search = Self.readable(words.dropFirst().prefix(1))
      } else if keyword == "options" {
        options += Self.readable(words.dropFirst())
        for option in words.dropFirst() {
          let parts = option.split(separator: ":")
          guard parts.count == 2, let value = Int(parts[1]) else { continue }
          if parts[0] == "timeout" { timeout = min(max(value, 1), 30) }
          if parts[0] == "attempts" { attempts = min(max(value, 1), 5) }
        }
      }
    }
    if servers.isEmpty { servers = [IPEndpoint(.v4(.loopback), 53)] }
  }

  /// Words that may stand in a line of another resolv.conf.
  private static func readable(_ words: some Sequence<Substring>) -> [String] {
    words.filter { $0.utf8.allSatisfy { (0x21...0x7e).contains($0) } }.map(String.init)
  }
}
