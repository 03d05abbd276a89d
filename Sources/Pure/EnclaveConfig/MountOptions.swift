/// The options of a mount, as fstab(5), mount(8) and nfs(5) name them. What is not known here is refused: the kernel would
/// say EINVAL and no more.
public struct MountOptions: Equatable, Sendable {
  /// Why a list of options is none.
  public struct Defect: Error, Equatable, CustomStringConvertible {
    public var description: String
    init(_ description: String) { self.description = description }
  }

  /// Flags of mount(2).
  public enum Flag: UInt32, CaseIterable, Sendable {
    case readOnly = 1
    case noSetUID = 2
    case noDevices = 4
    case noExecution = 8
    case synchronous = 16
    case noAccessTimes = 1024
    case noDirectoryAccessTimes = 2048
    case relativeAccessTimes = 0x20_0000
    case strictAccessTimes = 0x100_0000

    public var word: String {
      switch self {
      case .readOnly: "ro"
      case .noSetUID: "nosuid"
      case .noDevices: "nodev"
      case .noExecution: "noexec"
      case .synchronous: "sync"
      case .noAccessTimes: "noatime"
      case .noDirectoryAccessTimes: "nodiratime"
      case .relativeAccessTimes: "relatime"
      case .strictAccessTimes: "strictatime"
      }
    }
  }

  /// Of `Flag`. Without a word: nothing in it makes anybody another user or is a device.
  public var flags: UInt32 = Flag.noSetUID.rawValue | Flag.noDevices.rawValue
  /// The file system's own, in their order.
  public var data: [String] = []
  /// Of NFS: the versions to try, the newest first.
  public var versions: [String] = []
  /// Of NFS.
  public var port: UInt16 = 2049
  /// Of an overlay: its directories.
  public var layers: [String] = []

  public init() {}

  public static let nfsVersions = ["4.2", "4.1"]

  public var flagWords: [String] { Flag.allCases.filter { flags & $0.rawValue != 0 }.map(\.word) }

  /// As a plan shows them; of NFS without what the server's address is.
  public var description: String {
    let version = versions.count == 1 ? versions.map { "vers=\($0)" } : []
    return (flagWords + version + data).joined(separator: ",")
  }

  init(_ words: [String], of kind: MountSettings.Kind) throws(Defect) {
    if case .nfs = kind { versions = Self.nfsVersions }
    var seen: [String] = []
    for word in words {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let name = parts.first ?? ""
      let value = parts.count > 1 ? parts[1] : nil
      // A comma would be another option, which nobody has looked at.
      guard !word.isEmpty, word.utf8.allSatisfy({ $0 > 0x20 && $0 != 0x7f && $0 != UInt8(ascii: ",") }) else {
        throw Defect("found \"\(word)\", expected one option an entry, without commas and spaces")
      }
      guard !seen.contains(name) else { throw Defect("found \"\(name)\" twice") }
      seen.append(name)
      if value == nil, takeCommon(name) { continue }
      if let reason = Self.reasons.first(where: { $0.names.contains(name) })?.reason {
        throw Defect("found \"\(word)\": \(reason)")
      }
      let options: [Known]
      switch kind {
      case .nfs: options = Self.nfs
      case .tmpfs: options = Self.tmpfs
      case .overlay: options = Self.overlay
      case .bind: options = []
      }
      guard let known = options.first(where: { $0.name == name }) else {
        let names = Self.common + options.map { $0.form.map { "\($0)" } ?? $0.name }
        throw Defect(
          "found \"\(word)\", which is no option of a mount of type \"\(kind.name)\"; known here: "
            + names.joined(separator: ", "))
      }
      guard known.takes(value) else { throw Defect("found \"\(word)\", expected \(known.form ?? known.name)") }
      try take(name, value, word)
    }
    if case .overlay = kind { try checkLayers() }
    // From a port above 1023: what the server sees is the host's port in any case, and there are few below.
    if case .nfs = kind, !data.contains("noresvport") { data.append(resvport ? "resvport" : "noresvport") }
    resvport = false
  }

  /// Only while the words are read.
  private var resvport = false

  private mutating func take(_ name: String, _ value: String?, _ word: String) throws(Defect) {
    switch name {
    case "vers", "nfsvers":
      versions = [value ?? ""]
    case "port": port = UInt16(value ?? "") ?? port
    case "resvport": resvport = true
    case "lowerdir":
      layers += (value ?? "").split(separator: ":").map(String.init)
      data.append(word)
    case "upperdir", "workdir":
      layers.append(value ?? "")
      data.append(word)
    default: data.append(word)
    }
  }

  private func checkLayers() throws(Defect) {
    func has(_ name: String) -> Bool { data.contains { $0.hasPrefix(name + "=") } }
    guard has("lowerdir") else { throw Defect("found no \"lowerdir=…\", which an overlay needs") }
    guard has("upperdir") == has("workdir") else {
      throw Defect("found only one of \"upperdir=…\" and \"workdir=…\", which belong together")
    }
  }

  // MARK: words of every file system

  private static let common = [
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "noatime",
    "nodiratime",
    "relatime", "strictatime",
  ]

  /// - Returns: false for another word.
  private mutating func takeCommon(_ name: String) -> Bool {
    switch name {
    case "defaults", "rw", "exec", "async", "_netdev": break
    case "suid": flags &= ~Flag.noSetUID.rawValue
    case "dev": flags &= ~Flag.noDevices.rawValue
    default:
      guard let flag = Flag.allCases.first(where: { $0.word == name }) else { return false }
      flags |= flag.rawValue
    }
    return true
  }

  /// Words of other mount programs that have another place here, or none.
  private static let reasons: [(names: [String], reason: String)] = [
    (["nofail"], "the key required = false says that"),
    (["bg", "fg", "retry"], "the keys required and timeout say that"),
    (["auto", "noauto", "user", "users", "nouser", "owner", "group"], "everything is mounted at the start, by PID 1"),
    (["addr", "mountaddr"], "the server's address is that of source"),
    (["nolock", "mountproto", "mountport", "mountvers", "mounthost", "local_lock"], "NFS 4 has no such thing"),
    (["fsc"], "an enclave has no cache for it"),
  ]

  // MARK: words of one

  private struct Known {
    var name: String
    /// As sentences show it; nil for a word without a value.
    var form: String?
    var check: @Sendable (String) -> Bool = { _ in true }

    func takes(_ value: String?) -> Bool {
      guard form != nil else { return value == nil }
      return value.map(check) ?? false
    }
  }

  private static func word(_ name: String) -> Known { Known(name: name) }

  private static func choice(_ name: String, _ values: [String]) -> Known {
    Known(name: name, form: "\(name)=\(values.joined(separator: "|"))") { values.contains($0) }
  }

  private static func number(_ name: String, _ low: Int, _ high: Int) -> Known {
    Known(name: name, form: "\(name)=\(low)…\(high)") { text in
      text.utf8.allSatisfy { (0x30...0x39).contains($0) } && (Int(text).map { $0 >= low && $0 <= high } ?? false)
    }
  }

  private static func directory(_ name: String) -> Known {
    Known(name: name, form: "\(name)=/DIRECTORY") { text in
      !text.utf8.contains(UInt8(ascii: ":")) && !text.utf8.contains(UInt8(ascii: "\\"))
        && MountSettings.path(text) != nil
    }
  }

  private static let size = Known(name: "size", form: "size=BYTES, with k, m, g or % behind it") { text in
    let digits = text.utf8.prefix { (0x30...0x39).contains($0) }
    let rest = String(Substring(text.utf8.dropFirst(digits.count)))
    return (1...15).contains(digits.count) && ["", "k", "m", "g", "%"].contains(rest.lowercased())
  }

  private static let mode = Known(name: "mode", form: "mode=OCTAL") { text in
    (1...5).contains(text.utf8.count) && (Int(text, radix: 8).map { $0 >= 0 && $0 <= 0o7777 } ?? false)
  }

  /// Each of the two a word, or with `no`.
  private static func switches(_ names: [String]) -> [Known] { names.flatMap { [word($0), word("no" + $0)] } }

  private static let nfs: [Known] =
    [
      choice("vers", nfsVersions), choice("nfsvers", nfsVersions), choice("proto", ["tcp", "tcp6"]),
      number("port", 1, 65535), number("rsize", 1024, 1_048_576), number("wsize", 1024, 1_048_576),
      number("timeo", 1, 6000), number("retrans", 1, 100), number("nconnect", 1, 16), number("max_connect", 1, 16),
      word("hard"), word("soft"), word("softerr"), choice("sec", ["sys", "none"]), word("noresvport"), word("resvport"),
      number("acregmin", 0, 86400), number("acregmax", 0, 86400), number("acdirmin", 0, 86400),
      number("acdirmax", 0, 86400), number("actimeo", 0, 86400),
      choice("lookupcache", ["all", "none", "pos", "positive"]), choice("write", ["lazy", "eager", "wait"]),
    ] + switches(["ac", "cto", "sharecache", "softreval", "rdirplus", "migration", "trunkdiscovery"])

  private static let tmpfs: [Known] = [
    size, number("nr_inodes", 0, 1 << 40), mode, number("uid", 0, 4_294_967_294), number("gid", 0, 4_294_967_294),
    choice("huge", ["never", "always", "within_size", "advise"]),
  ]

  private static let overlay: [Known] = [
    Known(name: "lowerdir", form: "lowerdir=/DIRECTORY, or several with \":\" between them") { text in
      let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
      return (1...100).contains(parts.count) && parts.allSatisfy { MountSettings.path($0) != nil && !$0.contains("\\") }
    },
    directory("upperdir"), directory("workdir"), choice("redirect_dir", ["on", "off", "follow", "nofollow"]),
    choice("index", ["on", "off"]), choice("xino", ["on", "off", "auto"]), choice("metacopy", ["on", "off"]),
    word("volatile"), word("userxattr"),
  ]
}
