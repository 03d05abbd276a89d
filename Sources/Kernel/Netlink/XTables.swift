import CLinux
import LinuxSystem
import Netfilter

/// The kernel's legacy xtables, without iptables(8): what redirects connections on stock Nitro kernels.
///
/// Somebody else's rules stay, with their counters. A change by somebody else between our reading and writing makes the
/// kernel refuse (EAGAIN), and we begin again. Reading and writing need CAP_NET_ADMIN and CAP_NET_RAW.
public enum XTables {
  /// Whether this kernel has the table. The C function is `getsockopt(IPT_SO_GET_INFO)`.
  public static func isAvailable(table: Ruleset.Kind, family: Ruleset.Family) -> Bool {
    do {
      let socket = try openSocket(family)
      _ = try info(table, family, socket.rawValue)
      return true
    } catch {
      return false
    }
  }

  /// Puts the ruleset's chains in place of those of an earlier one of its name. Each of the four tables changes as a
  /// whole; where a later one fails, the ruleset is taken out of all again.
  /// - Throws: `RulesetError`, `SystemError`, `XTablesError`.
  public static func apply(_ ruleset: Ruleset) throws {
    try ruleset.validate()
    do {
      for family in Ruleset.Family.allCases {
        for table in [Ruleset.Kind.nat, .filter] {
          let wanted = XTablesTable.isWanted(table, family, by: ruleset)
          guard wanted || isAvailable(table: table, family: family) else { continue }
          try edit(table, family, explaining: wanted ? ruleset : nil) { (value) throws(XTablesError) in
            try value.apply(ruleset)
          }
        }
      }
    } catch {
      try? remove(rulesetNamed: ruleset.name)
      throw error
    }
  }

  /// Takes out all chains of that ruleset and the rules that jump to them; there need not be any.
  public static func remove(rulesetNamed name: String) throws {
    for family in Ruleset.Family.allCases {
      for table in [Ruleset.Kind.nat, .filter] where isAvailable(table: table, family: family) {
        try edit(table, family, explaining: nil) { $0.remove(rulesetNamed: name) }
      }
    }
  }

  // MARK: -

  private static func edit(
    _ table: Ruleset.Kind, _ family: Ruleset.Family, explaining ruleset: Ruleset?,
    _ change: (inout XTablesTable) throws(XTablesError) -> Void
  ) throws {
    let socket = try openSocket(family)
    var attempts = 0
    while true {
      attempts += 1
      do {
        let old = try read(table, family, socket.rawValue)
        var new = old
        try change(&new)
        if new != old { try write(new.replacement(), table, family, socket.rawValue) }
        return
      } catch let error as SystemError {
        if error.errno == EAGAIN, attempts < 16 { continue }
        let missing = ruleset?.missingExtension(table, family, socket.rawValue)
        throw XTablesRefusal(error: error, missing: missing)
      }
    }
  }

  private static func openSocket(_ family: Ruleset.Family) throws(SystemError) -> OwnedFileDescriptor {
    let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    return OwnedFileDescriptor(
      try checkErrno("socket", family == .ip ? "AF_INET" : "AF_INET6") {
        socket(family == .ip ? AF_INET : AF_INET6, type, Int32(IPPROTO_RAW))
      })
  }

  private static func level(_ family: Ruleset.Family) -> Int32 {
    Int32(family == .ip ? IPPROTO_IP : IPPROTO_IPV6)
  }

  private static func get(
    _ option: Int32, _ object: String, _ family: Ruleset.Family, _ fd: Int32, _ buffer: inout [UInt8]
  ) throws(SystemError) {
    var length = socklen_t(buffer.count)
    try checkErrno("getsockopt", object) {
      buffer.withUnsafeMutableBytes { getsockopt(fd, level(family), option, $0.baseAddress, &length) }
    }
  }

  private static func info(
    _ table: Ruleset.Kind, _ family: Ruleset.Family, _ fd: Int32
  ) throws(SystemError) -> XTablesTable.Info {
    var bytes = Array(table.rawValue.utf8)
    bytes += Array(repeating: 0, count: XTablesTable.Info.size - bytes.count)
    let object = "\(family.prefix)_SO_GET_INFO \(table.rawValue)"
    try get(IPT_SO_GET_INFO, object, family, fd, &bytes)
    guard let info = XTablesTable.Info(bytes) else { throw SystemError("getsockopt", object, errno: EBADMSG) }
    return info
  }

  private static func read(_ table: Ruleset.Kind, _ family: Ruleset.Family, _ fd: Int32) throws -> XTablesTable {
    let info = try info(table, family, fd)
    // struct ipt_get_entries: the name, the size, 4 bytes of padding, the entries.
    let head = MemoryLayout<ipt_get_entries>.size
    var bytes = Array(table.rawValue.utf8)
    bytes += Array(repeating: 0, count: 32 - bytes.count)
    bytes += withUnsafeBytes(of: info.entriesSize) { Array($0) }
    bytes += Array(repeating: 0, count: head - bytes.count + Int(info.entriesSize))
    try get(IPT_SO_GET_ENTRIES, "\(family.prefix)_SO_GET_ENTRIES \(table.rawValue)", family, fd, &bytes)
    return try XTablesTable(table, family, info, entries: Array(bytes[head...]))
  }

  /// The kernel starts all counters at zero and hands back those of the old entries; adding them again is ours.
  private static func write(
    _ replacement: XTablesTable.Replacement, _ table: Ruleset.Kind, _ family: Ruleset.Family, _ fd: Int32
  ) throws(SystemError) {
    var counters = [xt_counters](repeating: xt_counters(), count: replacement.oldCount)
    var bytes = replacement.bytes
    try checkErrno("setsockopt", "\(family.prefix)_SO_SET_REPLACE \(table.rawValue)") {
      counters.withUnsafeMutableBytes { old in
        bytes.withUnsafeMutableBytes { buffer in
          buffer.storeBytes(
            of: UInt(bitPattern: old.baseAddress), toByteOffset: XTablesTable.Replacement.countersPointer, as: UInt.self
          )
          return setsockopt(fd, level(family), IPT_SO_SET_REPLACE, buffer.baseAddress, socklen_t(buffer.count))
        }
      }
    }
    // struct xt_counters_info: the name, the count, 4 bytes of padding, the counters.
    var sums = Array(table.rawValue.utf8)
    sums += Array(repeating: 0, count: 32 - sums.count)
    sums += withUnsafeBytes(of: UInt32(clamping: replacement.origins.count)) { Array($0) } + [0, 0, 0, 0]
    for origin in replacement.origins {
      let counter = origin.flatMap { counters.indices.contains($0) ? counters[$0] : nil } ?? xt_counters()
      sums += withUnsafeBytes(of: counter) { Array($0) }
    }
    try checkErrno("setsockopt", "\(family.prefix)_SO_SET_ADD_COUNTERS \(table.rawValue)") {
      setsockopt(fd, level(family), IPT_SO_SET_ADD_COUNTERS, sums, socklen_t(sums.count))
    }
  }

  /// Whether the kernel has a match or target in that revision or a later one. The C function is
  /// `getsockopt(IPT_SO_GET_REVISION_TARGET)`.
  static func has(_ needed: XTablesExtension, _ family: Ruleset.Family, _ fd: Int32) -> Bool {
    var request = xt_get_revision()
    withUnsafeMutableBytes(of: &request.name) { $0.copyBytes(from: needed.name.utf8.prefix($0.count - 1)) }
    request.revision = needed.revision
    let option =
      switch (family, needed.isTarget) {
      case (.ip, false): IPT_SO_GET_REVISION_MATCH
      case (.ip, true): IPT_SO_GET_REVISION_TARGET
      case (.ip6, false): IP6T_SO_GET_REVISION_MATCH
      case (.ip6, true): IP6T_SO_GET_REVISION_TARGET
      }
    var length = socklen_t(MemoryLayout<xt_get_revision>.size)
    return getsockopt(fd, level(family), option, &request, &length) == 0
  }
}

/// A table that the kernel did not hand out or take. It says no rule, so what it lacks is found by asking.
public struct XTablesRefusal: Error, Equatable, CustomStringConvertible, Sendable {
  public var error: SystemError
  public var missing: XTablesExtension?
  public var description: String { "\(error)" + (missing.map { ": the kernel has no \($0)" } ?? "") }
}

extension Ruleset {
  fileprivate func missingExtension(_ table: Kind, _ family: Family, _ fd: Int32) -> XTablesExtension? {
    XTablesExtension.needed(by: self, table, family).first { !XTables.has($0, family, fd) }
  }
}

extension Ruleset.Family {
  fileprivate var prefix: String { self == .ip ? "IPT" : "IP6T" }
}
