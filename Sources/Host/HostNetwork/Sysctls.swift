import LinuxSystem

/// Kernel settings as they were before we changed them.
///
/// Switching forwarding on changes more than the one file: `inet_forward_change` (net/ipv4/devinet.c) sets `forwarding` of
/// every link and `accept_redirects` of `all`; `addrconf_fixup_forwarding` (net/ipv6/addrconf.c) sets every link's and
/// throws away default routes that came by router advertisement, unless `accept_ra` is 2. So all of these are kept.
struct Sysctls: Equatable {
  private static let root = "/proc/sys/net/"

  /// Path below /proc/sys/net and value, in the order in which they are to be written back: what changes others first.
  var saved: [(path: String, value: String)] = []

  static func == (a: Self, b: Self) -> Bool {
    a.saved.map(\.path) == b.saved.map(\.path) && a.saved.map(\.value) == b.saved.map(\.value)
  }

  /// What is there now.
  static func current() -> Sysctls {
    var all = Sysctls()
    all.add("ipv4/ip_forward")
    all.add("ipv4/ip_local_port_range")
    for (family, names) in [("ipv4", ["forwarding", "accept_redirects"]), ("ipv6", ["forwarding", "accept_ra"])] {
      let links = (try? directoryEntries(root + family + "/conf")) ?? []
      for link in ["all", "default"] + links.filter({ $0 != "all" && $0 != "default" }) {
        for name in names { all.add("\(family)/conf/\(link)/\(name)") }
      }
    }
    return all
  }

  private mutating func add(_ path: String) {
    guard let text = try? readText(Self.root + path, limit: 64) else { return }
    saved.append((path, String(text.prefix { !$0.isNewline })))
  }

  /// Those of them that were on.
  var forwarding: HostRuleset.Forwarding {
    func isOn(_ path: String) -> Bool { saved.first { $0.path == path }?.value == "1" }
    let links = saved.compactMap { path, value -> String? in
      let words = path.split(separator: "/")
      guard words.count == 4, words[0] == "ipv4", words[3] == "forwarding", value == "1" else { return nil }
      let link = String(words[2])
      return ["all", "default", "lo"].contains(link) || link.hasPrefix("tombolo") ? nil : link
    }
    return .init(was4: isOn("ipv4/ip_forward"), was6: isOn("ipv6/conf/all/forwarding"), links: links)
  }

  /// Switches forwarding on where it is off.
  func enableForwarding(ipv6: Bool) throws(SystemError) {
    func value(_ path: String) -> String? { saved.first { $0.path == path }?.value }
    if value("ipv4/ip_forward") == "0" { try writeFile(Self.root + "ipv4/ip_forward", "1") }
    guard ipv6, value("ipv6/conf/all/forwarding") == "0" else { return }
    for (path, value) in saved where path.hasPrefix("ipv6/conf/") && path.hasSuffix("/accept_ra") && value == "1" {
      try writeFile(Self.root + path, "2")
    }
    try writeFile(Self.root + "ipv6/conf/all/forwarding", "1")
  }

  /// Has the host open its own connections from other ports than an enclave's, which has the same address.
  func usePorts(_ range: ClosedRange<UInt16>) throws(SystemError) {
    let path = "ipv4/ip_local_port_range"
    let now =
      saved.first { $0.path == path }?.value.split(whereSeparator: \.isWhitespace).compactMap { UInt16($0) } ?? []
    if now.count == 2, range.contains(now[0]), range.contains(now[1]) { return }
    try writeFile(Self.root + path, "\(range.lowerBound) \(range.upperBound)")
  }

  /// Writes back what differs. Links that have gone are no error.
  func restore() {
    for (path, value) in saved {
      guard let text = try? readText(Self.root + path, limit: 64), text.prefix(while: { !$0.isNewline }) != value else {
        continue
      }
      try? writeFile(Self.root + path, value)
    }
  }

  // MARK: text

  var text: String { saved.map { "\($0.path) \($0.value)\n" }.joined() }

  init() {}

  init(text: String) {
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1)
      // Only what `text` writes: this is a file of root's, still nothing else is to be written to.
      guard words.count == 2, words[0].hasPrefix("ipv"), !words[0].contains("..") else { continue }
      saved.append((String(words[0]), String(words[1])))
    }
  }
}
