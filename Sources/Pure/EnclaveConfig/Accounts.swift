/// A user as passwd(5) and group(5) tell it, from the enclave's own files; nothing else (NSS) is asked.
public struct Account: Equatable, Sendable {
  public var uid: UInt32
  public var gid: UInt32
  /// Supplementary groups.
  public var groups: [UInt32]
  public var home: String
  /// nil for a uid that passwd does not know.
  public var name: String?

  public static let root = Account(uid: 0, gid: 0, groups: [], home: "/root", name: "root")

  public init(uid: UInt32, gid: UInt32, groups: [UInt32], home: String, name: String?) {
    self.uid = uid
    self.gid = gid
    self.groups = groups
    self.home = home
    self.name = name
  }

  /// Looks up `name`, `uid`, `name:group`, `uid:gid`. A number is a uid even without an entry; then its group is 0 and
  /// its home "/", as in Docker.
  /// - Throws: a sentence naming what is not there.
  public init(_ specification: String, passwd: String, group: String) throws(AccountError) {
    let parts = specification.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let wanted = parts.first ?? ""
    let entries = Self.lines(passwd, fields: 7)
    let entry =
      entries.first { $0[0] == wanted } ?? UInt32(wanted).flatMap { uid in entries.first { UInt32($0[2]) == uid } }
    if let entry, let uid = UInt32(entry[2]), let gid = UInt32(entry[3]) {
      self.init(uid: uid, gid: gid, groups: [], home: entry[5].isEmpty ? "/" : entry[5], name: entry[0])
    } else if let uid = UInt32(wanted), uid != .max {
      self.init(uid: uid, gid: 0, groups: [], home: "/", name: nil)
    } else {
      throw AccountError(sentence: "user \"\(wanted)\" is not in the enclave's /etc/passwd")
    }
    let groupEntries = Self.lines(group, fields: 4)
    if parts.count == 2 {
      if let entry = groupEntries.first(where: { $0[0] == parts[1] }), let gid = UInt32(entry[2]) {
        self.gid = gid
      } else if let gid = UInt32(parts[1]), gid != .max {
        self.gid = gid
      } else {
        throw AccountError(sentence: "group \"\(parts[1])\" is not in the enclave's /etc/group")
      }
    } else if let name {
      groups = groupEntries.filter { $0[3].split(separator: ",").contains(Substring(name)) }
        .compactMap { UInt32($0[2]) }
    }
    try refuseReserved()
  }

  /// The proxy is told from the program by its user and group: as either, the program could send it signals and open the
  /// host's socket. 2^32 - 1 is no id: setresuid(2) takes it for "as it is", which is root.
  private func refuseReserved() throws(AccountError) {
    for (what, id) in [("uid", uid), ("gid", gid)] + groups.map({ ("supplementary group", $0) }) {
      if id == Configuration.proxyID { throw AccountError(sentence: "\(what) \(id) is the proxy's, and no program's") }
      if id == Configuration.attestationID {
        throw AccountError(sentence: "\(what) \(id) is the attestation service's, and no program's")
      }
      if id == .max { throw AccountError(sentence: "\(what) \(id) is none: it is the kernel's word for no change") }
    }
  }

  /// Lines with at least `fields` colon-separated fields; others are passed over, as the C library does.
  private static func lines(_ text: String, fields: Int) -> [[String]] {
    // Bytes, as in the C library; splitting Characters took a tenth of a boot's instructions.
    text.utf8.split { $0 == UInt8(ascii: "\n") || $0 == UInt8(ascii: "\r") }.compactMap { line in
      guard line.first != UInt8(ascii: "#") else { return nil }
      let parts = line.split(separator: UInt8(ascii: ":"), omittingEmptySubsequences: false)
      return parts.count >= fields ? parts.map { String(decoding: $0, as: UTF8.self) } : nil
    }
  }
}

public struct AccountError: Error, Equatable, Sendable, CustomStringConvertible {
  public var sentence: String
  public var description: String { sentence }
}
