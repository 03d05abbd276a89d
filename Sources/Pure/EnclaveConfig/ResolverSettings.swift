import Inet
import Policy

/// What stands in the enclave's resolv.conf besides its name server.
public struct ResolverSettings: Equatable, Sendable {
  /// Kubernetes' bounds of the same list (MaxDNSSearchPaths, MaxDNSSearchListChars); glibc since 2.26 has none.
  public static let searchLimit = 32
  public static let searchCharacterLimit = 2048

  /// nil: not said.
  public var search: [String]?
  /// Words of resolv.conf(5)'s `options`; nil: not said.
  public var options: [String]?

  public var names = NameSettings()
  /// Names in `[dns.hosts]`, and addresses of one of them.
  static let hostLimit = 10_000
  static let addressLimit = 64

  public init(search: [String]? = nil, options: [String]? = nil) {
    self.search = search
    self.options = options
  }

  mutating func read(_ table: inout TableReader) throws(ConfigurationError) {
    names.cache = try table.integer("cache", in: 0...NameSettings.cacheLimit) ?? names.cache
    try Self.readAnswers(&table, &names)
    try readUpstreams(&table)
    try table.table("hosts") { (hosts) throws(ConfigurationError) in try readHosts(&hosts) }
    if let domains = try table.strings("search") {
      for domain in domains where !Self.isDomain(domain) {
        throw table.error("search", "found \"\(domain)\", expected a domain name such as \"corp.example\"")
      }
      guard domains.count <= Self.searchLimit,
        domains.joined(separator: " ").utf8.count <= Self.searchCharacterLimit
      else {
        throw table.error(
          "search",
          "found \(domains.count) domains, expected at most \(Self.searchLimit), with at most "
            + "\(Self.searchCharacterLimit) characters together")
      }
      search = domains
    }
    if let words = try table.strings("options") {
      for word in words where !Self.isOption(word) {
        throw table.error(
          "options",
          "found \"\(word)\", expected an option of resolv.conf(5) such as \"rotate\", \"ndots:2\" (0 to 15), "
            + "\"timeout:1\" (1 to 30) or \"attempts:3\" (1 to 5)")
      }
      options = words
    }
  }

  private mutating func readUpstreams(_ table: inout TableReader) throws(ConfigurationError) {
    if try table.hasWord("host", "upstream") {
      names.upstreams = []
    } else if let servers = try table.values(
      "upstream", { (text) throws(UpstreamError) in try UpstreamServer(text) })
    {
      guard !servers.isEmpty else {
        throw table.error("upstream", "found no server, expected one or more, or \"host\"")
      }
      if let defect = UpstreamServer.defect(in: servers) { throw table.error("upstream", defect) }
      names.upstreams = servers
    }
    names.certificateFile =
      try table.value("ca_file", "an absolute path") { $0.hasPrefix("/") ? $0 : nil } ?? names.certificateFile
  }

  /// How queries are answered, wherever that is done.
  static func readAnswers(_ table: inout TableReader, _ names: inout NameSettings) throws(ConfigurationError) {
    if let hold = try table.value("hold", "a duration of whole seconds, at most \"24h\", such as \"30s\"", Self.seconds)
    {
      names.hold = hold
    }
    names.denied =
      try table.value("denied", "\"refused\" or \"nxdomain\"") { .init(rawValue: $0) } ?? names.denied
  }

  private static func seconds(_ text: String) -> UInt32? {
    guard let duration = parseDuration(text), duration.components.attoseconds == 0 else { return nil }
    return UInt32(exactly: duration.components.seconds).flatMap { $0 <= NameSettings.holdLimit ? $0 : nil }
  }

  private mutating func readHosts(_ table: inout TableReader) throws(ConfigurationError) {
    for key in table.keys {
      let name: DomainName
      do throws(DomainName.Defect) {
        name = try DomainName(text: key)
      } catch {
        throw table.error(key, "found \"\(key)\", \(error)")
      }
      let addresses = try table.values(key) { (text) throws(DomainName.Defect) in
        guard let address = IPAddress(text) else {
          throw DomainName.Defect(description: "expected an address such as \"10.0.0.5\" or \"fd00::5\"")
        }
        return address
      }
      let host = FixedHost(name, addresses ?? [])
      guard (1...Self.addressLimit).contains(host.addresses.count) else {
        throw table.error(key, "found \(host.addresses.count) addresses, expected 1 to \(Self.addressLimit)")
      }
      names.hosts.removeAll { $0.name == name }
      names.hosts.append(host)
      guard names.hosts.count <= Self.hostLimit else {
        throw table.error(key, "found more than \(Self.hostLimit) names")
      }
    }
  }

  /// The lines of /etc/hosts for the names that have fixed answers.
  public var hostsLines: String {
    var lines = ""
    for host in names.hosts { for address in host.addresses { lines += "\(address) \(host.name)\n" } }
    return lines
  }

  /// The file's text.
  /// - Parameter machine: what a local enclave has from the machine that it is on, where the configuration says nothing.
  public func resolvConf(nameServer: String, machine: ResolverSettings = ResolverSettings()) -> String {
    let domains = search ?? machine.search ?? []
    let words = options ?? machine.options ?? []
    return "nameserver \(nameServer)\n" + (domains.isEmpty ? "" : "search \(domains.joined(separator: " "))\n")
      + (words.isEmpty ? "" : "options \(words.joined(separator: " "))\n")
  }

  /// Labels of 1 to 63 letters, digits, "-" and "_", together at most 253 (RFC 1035, 2.3.4), with or without a last dot.
  static func isDomain(_ text: String) -> Bool {
    var labels = text.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    if labels.count > 1, labels.last?.isEmpty == true { labels.removeLast() }
    return text.utf8.count <= 253
      && labels.allSatisfy { label in
        (1...63).contains(label.count)
          && label.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5a).contains($0) || (0x61...0x7a).contains($0) || $0 == 0x2d
              || $0 == 0x5f
          }
      }
  }

  static func isOption(_ text: String) -> Bool {
    let parts = text.utf8.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
    guard let name = parts.first, !name.isEmpty, parts.count <= 2, text.utf8.count <= 64 else { return false }
    guard name.allSatisfy({ (0x61...0x7a).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2d }) else {
      return false
    }
    let number = parts.count == 2 ? String(Substring(parts[1])) : nil
    if let number, number.isEmpty || !number.utf8.allSatisfy({ (0x30...0x39).contains($0) }) { return false }
    // RES_MAXNDOTS, RES_MAXRETRANS and RES_MAXRETRY of glibc's resolv.h, which clamps.
    let ranges: [(String, ClosedRange<Int>)] = [("ndots", 0...15), ("timeout", 1...30), ("attempts", 1...5)]
    guard let range = ranges.first(where: { name.elementsEqual($0.0.utf8) })?.1 else { return number == nil }
    return number.flatMap { Int($0) }.map { range.contains($0) } ?? false
  }
}
