import LinuxSystem
import Netfilter

/// The part of the kernel that takes rulesets. Which one a kernel has is found by asking, never by its version.
public enum PacketFilter: String, Sendable, CaseIterable, CustomStringConvertible {
  case nfTables = "nf_tables"
  case xtables = "legacy xtables"

  public var description: String { rawValue }

  /// Puts a ruleset in place with the first back end that takes it: nf_tables, then legacy xtables. A kernel may have
  /// nf_tables and yet lack an expression (CONFIG_NFT_REDIR, CONFIG_NFT_QUEUE); nothing stays behind of the attempt.
  ///
  /// The tables of IPv6 are left out where the kernel has no IPv6, because then no packet could ever meet them.
  /// - Parameter wanted: the only back end to try; nil for all.
  /// - Returns: the back end, for the boot log.
  /// - Throws: `RulesetError`, or `NoPacketFilter` with what each back end said.
  @discardableResult
  public static func install(_ ruleset: Ruleset, with wanted: PacketFilter? = nil) throws -> PacketFilter {
    try ruleset.validate()
    var ruleset = ruleset
    if IPv6Support.probe() == .absent { ruleset.tables.removeAll { $0.family == .ip6 } }
    var refusals: [NoPacketFilter.Refusal] = []
    for backend in wanted.map({ [$0] }) ?? allCases {
      guard backend.isAvailable(for: ruleset) else {
        refusals.append(.init(backend: backend, reason: nil))
        continue
      }
      do {
        try backend.apply(ruleset)
        return backend
      } catch {
        refusals.append(.init(backend: backend, reason: "\(error)"))
      }
    }
    throw NoPacketFilter(refusals: refusals)
  }

  /// Whether the kernel has the back end, and in it the tables that the ruleset is for.
  public func isAvailable(for ruleset: Ruleset) -> Bool {
    switch self {
    case .nfTables: NFTables.isAvailable()
    case .xtables:
      Ruleset.Family.allCases.allSatisfy { family in
        [Ruleset.Kind.nat, .filter].allSatisfy { table in
          !XTablesTable.isWanted(table, family, by: ruleset) || XTables.isAvailable(table: table, family: family)
        }
      }
    }
  }

  public func apply(_ ruleset: Ruleset) throws {
    switch self {
    case .nfTables: try NFTables.apply(ruleset)
    case .xtables: try XTables.apply(ruleset)
    }
  }

  /// Takes out what `apply` put in under that name; there need not be anything.
  public func remove(rulesetNamed name: String) throws {
    switch self {
    case .nfTables: try NFTables.remove(tableNamed: name)
    case .xtables: try XTables.remove(rulesetNamed: name)
    }
  }
}

/// No back end took the ruleset.
public struct NoPacketFilter: Error, Equatable, CustomStringConvertible, Sendable {
  public struct Refusal: Equatable, Sendable {
    public var backend: PacketFilter
    /// nil where the kernel does not have the back end or not all its tables.
    public var reason: String?
  }
  public var refusals: [Refusal]

  public var description: String {
    "the kernel takes no packet filter rules: "
      + refusals.map { "\($0.backend): \($0.reason ?? "not in this kernel")" }.joined(separator: "; ")
  }
}
