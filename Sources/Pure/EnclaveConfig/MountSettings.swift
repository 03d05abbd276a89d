import Inet
import Policy

/// A `[[mount]]` of the configuration: a file system of the enclave besides those that every enclave has.
public struct MountSettings: Equatable, Sendable {
  public enum Kind: Equatable, Sendable {
    /// NFS 4.1 or newer.
    case nfs(NFSSource)
    case tmpfs
    /// A directory or file of the enclave, at a second place.
    case bind(String)
    case overlay

    /// The name of the key `type`.
    public var name: String {
      switch self {
      case .nfs: "nfs"
      case .tmpfs: "tmpfs"
      case .bind: "bind"
      case .overlay: "overlay"
      }
    }
  }

  public var kind: Kind
  /// Absolute, without "." and "..", as `/a/b`.
  public var target: String
  public var options = MountOptions()
  /// The program starts only when it is mounted.
  public var isRequired = true
  /// Targets of others that must be mounted before.
  public var after: [String] = []
  /// How long it is tried, from when its turn has come; nil without limit.
  public var timeout: Duration?
  /// How long the end waits for what has not been written yet.
  public var unmountTimeout: Duration = .seconds(10)

  public init(_ kind: Kind, target: String) {
    self.kind = kind
    self.target = target
  }

  public var isNetwork: Bool { if case .nfs = kind { true } else { false } }

  /// As mount(2) gets it.
  public var source: String {
    switch kind {
    case .nfs(let source): source.description
    case .bind(let path): path
    case .tmpfs, .overlay: kind.name
    }
  }

  /// Directories that must be there first.
  var usedPaths: [String] {
    switch kind {
    case .bind(let path): [path]
    case .overlay: options.layers
    case .nfs, .tmpfs: []
    }
  }

  /// How many there may be.
  static let limit = 64
  static let defaultTimeout: Duration = .seconds(90)
  static let pathLimit = 1024
}

/// `server:/export`: a name, an IPv4 address, or an IPv6 address in brackets.
public struct NFSSource: Equatable, Sendable, CustomStringConvertible {
  public enum Server: Equatable, Sendable {
    case name(DomainName)
    case address(IPAddress)
  }

  public var server: Server
  /// Absolute.
  public var export: String

  /// nil for what is none.
  public init?(_ text: String) {
    let bytes = Array(text.utf8)
    let host: ArraySlice<UInt8>
    var rest: ArraySlice<UInt8>
    if bytes.first == UInt8(ascii: "[") {
      guard let end = bytes.firstIndex(of: UInt8(ascii: "]")) else { return nil }
      host = bytes[1..<end]
      rest = bytes[(end + 1)...]
      guard let text = String(validating: host, as: UTF8.self), let address = IPAddress(text), case .v6 = address
      else { return nil }
      server = .address(address)
    } else {
      guard let colon = bytes.firstIndex(of: UInt8(ascii: ":")) else { return nil }
      host = bytes[..<colon]
      rest = bytes[colon...]
      guard let text = String(validating: host, as: UTF8.self) else { return nil }
      if let address = IPAddress(text) {
        guard case .v4 = address else { return nil }
        server = .address(address)
      } else {
        guard let name = try? DomainName(text: text) else { return nil }
        server = .name(name)
      }
    }
    guard rest.popFirst() == UInt8(ascii: ":"), rest.first == UInt8(ascii: "/"),
      rest.count <= MountSettings.pathLimit, rest.allSatisfy({ $0 > 0x20 && $0 != 0x7f }),
      let path = String(validating: rest, as: UTF8.self)
    else { return nil }
    export = path
  }

  public var host: String {
    switch server {
    case .name(let name): name.description
    case .address(.v4(let four)): IPAddress.v4(four).description
    case .address(let six): "[\(six)]"
    }
  }

  public var description: String { "\(host):\(export)" }
}

// Reading.
extension MountSettings {
  private static let sourceForms: [(type: String, form: String)] = [
    ("nfs", "\"server:/export\", with a name, an IPv4 address, or an IPv6 address in brackets"),
    ("bind", "an absolute path of the enclave"),
  ]

  /// One table of `[[mount]]`.
  static func read(_ table: inout TableReader) throws(ConfigurationError) -> MountSettings {
    let type = try table.value("type", "\"nfs\", \"tmpfs\", \"bind\" or \"overlay\"") { text in
      ["nfs", "nfs4", "tmpfs", "bind", "overlay"].contains(text) ? (text == "nfs4" ? "nfs" : text) : nil
    }
    guard let type else {
      throw table.missing("type", "found none, expected \"nfs\", \"tmpfs\", \"bind\" or \"overlay\"")
    }
    let form = sourceForms.first { $0.type == type }?.form
    let kind: Kind
    switch type {
    case "nfs":
      let source = try table.value("source", form ?? "", NFSSource.init)
      guard let source else { throw table.missing("source", "found none, expected \(form ?? "")") }
      kind = .nfs(source)
    case "bind":
      let path = try table.value("source", form ?? "", path)
      guard let path else { throw table.missing("source", "found none, expected \(form ?? "")") }
      kind = .bind(path)
    default:
      _ = try table.value("source", "\"\(type)\" or no key: type = \"\(type)\" has no source") {
        $0 == type ? $0 : nil
      }
      kind = type == "tmpfs" ? .tmpfs : .overlay
    }
    let target = try table.value(
      "target", "an absolute path without \".\" and \"..\", not / and not in /proc, /sys, /dev or /run/tombolo", target)
    guard let target else { throw table.missing("target", "found none, expected an absolute path") }
    var made = MountSettings(kind, target: target)
    let words = try table.strings("options") ?? []
    do throws(MountOptions.Defect) {
      made.options = try MountOptions(words, of: kind)
    } catch {
      throw table.error("options", error.description)
    }
    made.isRequired = try table.flag("required") ?? true
    made.timeout = made.isRequired ? defaultTimeout : nil
    if let limit = try table.value("timeout", Configuration.limitForm, Configuration.limit) { made.timeout = limit }
    made.unmountTimeout =
      try table.value("unmount_timeout", Configuration.durationForm, parseDuration) ?? made.unmountTimeout
    for path in try table.strings("after") ?? [] {
      guard let path = Self.path(path) else {
        throw table.error("after", "found \"\(path)\", expected targets of other mounts, such as \"/data\"")
      }
      made.after.append(path)
    }
    return made
  }

  /// `/a/b` of any spelling of it; nil for what is relative or has "." or "..".
  static func path(_ text: String) -> String? {
    let bytes = Array(text.utf8)
    guard bytes.first == UInt8(ascii: "/"), bytes.count <= pathLimit,
      !bytes.contains(where: { $0 < 0x20 || $0 == 0x7f })
    else { return nil }
    let parts = text.split(separator: "/")
    guard !parts.contains(where: { $0 == "." || $0 == ".." }) else { return nil }
    return parts.reduce(into: parts.isEmpty ? "/" : "") { path, part in path += "/" + part }
  }

  /// What is the kernel's, or Tombolo's own.
  public static let reserved = ["/proc", "/sys", "/dev", "/run/tombolo"]

  private static func target(_ text: String) -> String? {
    guard let path = path(text), path != "/", !isReserved(path) else { return nil }
    return path
  }

  /// - Parameter path: as `path` gives it.
  public static func isReserved(_ path: String) -> Bool {
    path == "/" || path == "/run" || reserved.contains { isAt(path, orBelow: $0) }
  }

  static func isAt(_ path: String, orBelow other: String) -> Bool { path == other || path.hasPrefix(other + "/") }
}

// Order.
extension [MountSettings] {
  /// The places of those that must be mounted before: around its target, where what it is made of is, and what `after` says.
  public func dependencies(of index: Int) -> [Int] {
    let mount = self[index]
    return indices.filter { other in
      guard other != index else { return false }
      let place = self[other].target
      return mount.after.contains(place) || MountSettings.isAt(mount.target, orBelow: place)
        || mount.usedPaths.contains { MountSettings.isAt($0, orBelow: place) }
    }
  }

  /// Each behind those that it needs.
  /// - Returns: also those that are left because they wait for each other.
  func ordered() -> (order: [MountSettings], cycle: [MountSettings]) {
    var left = Array<Int>(indices)
    var order: [MountSettings] = []
    while let next = left.first(where: { index in !dependencies(of: index).contains { left.contains($0) } }) {
      left.removeAll { $0 == next }
      order.append(self[next])
    }
    return (order, left.map { self[$0] })
  }

  /// Whether the network must be there before: it is on it, or something that it needs is.
  public func needsNetwork(_ index: Int) -> Bool {
    var waiting = [index]
    var seen: [Int] = []
    while let next = waiting.popLast() {
      guard !seen.contains(next) else { continue }
      seen.append(next)
      if self[next].isNetwork { return true }
      waiting += dependencies(of: next)
    }
    return false
  }

  /// Those that steps of the start make, in order.
  public var local: [MountSettings] { indices.filter { !needsNetwork($0) }.map { self[$0] } }
  /// Those that are services, in order.
  public var volumes: [MountSettings] { indices.filter { needsNetwork($0) }.map { self[$0] } }
}

extension Configuration {
  /// Where volumes come from.
  public var volumeServers: [DestinationRule] {
    mounts.compactMap { mount in
      guard case .nfs(let source) = mount.kind else { return nil }
      let host: String
      switch source.server {
      case .name(let name): host = name.description
      case .address(.v4(let four)): host = four.description
      case .address(.v6(let six)): host = "[\(six)]"
      }
      return try? DestinationRule("\(host):\(mount.options.port)")
    }
  }
}
