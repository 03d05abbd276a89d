import Inet

/// Turns a `Ruleset` into the messages of one nf_tables transaction.
///
/// What each number means: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h; `NetlinkTests` compares them with
/// the kernel's headers.
public enum NFTablesEncoder {
  /// The whole batch: it replaces the tables of that name and touches nothing else; the kernel does all of it or none.
  ///
  /// A table is added, deleted and added again: deleting fails where there is none, and adding what exists does not.
  /// - Parameter isNew: there are no such tables; the kernel refuses it with EEXIST where there are. So nothing is deleted.
  public static func apply(_ ruleset: Ruleset, isNew: Bool = false) throws(RulesetError) -> [NetlinkMessage] {
    try ruleset.validate()
    var messages: [NetlinkMessage] = [batchBegin]
    for table in ruleset.tables {
      messages +=
        isNew
        ? [newTable(table.family, ruleset.name, flags: NFT.create | NFT.exclusive)]
        : replace(table.family, ruleset.name)
      for chain in table.chains {
        messages.append(newChain(chain, table.family, ruleset.name))
        for rule in chain.rules {
          messages.append(newRule(rule, chain.name, table.family, ruleset.name))
        }
      }
    }
    messages.append(batchEnd)
    return messages
  }

  /// The batch that removes the tables of that name in these families, whether there are any or not.
  public static func remove(
    tableNamed name: String, families: [Ruleset.Family] = Ruleset.Family.allCases
  ) -> [NetlinkMessage] {
    [batchBegin] + families.flatMap { [newTable($0, name), deleteTable($0, name)] } + [batchEnd]
  }

  /// Asks for the generation of the ruleset; an answer means that the kernel has nf_tables.
  public static let generation = NetlinkMessage(
    type: NFT.message(NFT.getGeneration), flags: 0, header: NFT.header(family: 0),
    attributes: [], label: "get nf_tables generation")

  static let batchBegin = NetlinkMessage(
    type: NFT.batchBegin, flags: 0, header: NFT.header(family: 0, resource: NFT.subsystem),
    attributes: [], label: "begin nf_tables batch")
  static let batchEnd = NetlinkMessage(
    type: NFT.batchEnd, flags: 0, header: NFT.header(family: 0, resource: NFT.subsystem),
    attributes: [], label: "end nf_tables batch")

  private static func replace(_ family: Ruleset.Family, _ name: String) -> [NetlinkMessage] {
    [newTable(family, name), deleteTable(family, name), newTable(family, name)]
  }

  private static func newTable(
    _ family: Ruleset.Family, _ name: String, flags: UInt16 = NFT.create
  ) -> NetlinkMessage {
    NetlinkMessage(
      type: NFT.message(NFT.newTable), flags: flags,
      header: NFT.header(family: family.number),
      attributes: [.string(NFT.Table.name, name), .bigEndian(NFT.Table.flags, UInt32(0))],
      label: "add table \(family) \(name)")
  }

  private static func deleteTable(_ family: Ruleset.Family, _ name: String) -> NetlinkMessage {
    NetlinkMessage(
      type: NFT.message(NFT.deleteTable), flags: 0, header: NFT.header(family: family.number),
      attributes: [.string(NFT.Table.name, name)], label: "delete table \(family) \(name)")
  }

  private static func newChain(_ chain: Ruleset.Chain, _ family: Ruleset.Family, _ table: String) -> NetlinkMessage {
    NetlinkMessage(
      type: NFT.message(NFT.newChain), flags: NFT.create,
      header: NFT.header(family: family.number),
      attributes: [
        .string(NFT.Chain.table, table),
        .string(NFT.Chain.name, chain.name),
        .nested(
          NFT.Chain.hook,
          [
            .bigEndian(NFT.Hook.number, chain.hook.number),
            .bigEndian(NFT.Hook.priority, chain.priority),
          ]),
        .bigEndian(NFT.Chain.policy, NFT.Verdict.accept),
        .string(NFT.Chain.type, chain.kind.rawValue),
      ],
      label: "add chain \(family) \(table) \(chain.name)")
  }

  private static func newRule(
    _ rule: Ruleset.Rule, _ chain: String, _ family: Ruleset.Family, _ table: String
  ) -> NetlinkMessage {
    NetlinkMessage(
      type: NFT.message(NFT.newRule), flags: NFT.create | NFT.append,
      header: NFT.header(family: family.number),
      attributes: [
        .string(NFT.Rule.table, table),
        .string(NFT.Rule.chain, chain),
        .nested(NFT.Rule.expressions, NFTablesExpressions.of(rule, family)),
      ],
      label: "add rule \(family) \(table) \(chain) \(rule.description(in: family))")
  }
}

extension Ruleset.Family {
  /// NFPROTO_IPV4 or NFPROTO_IPV6 (linux/netfilter.h).
  public var number: UInt8 { self == .ip ? 2 : 10 }
}

extension Ruleset.Hook {
  /// NF_INET_* (linux/netfilter.h).
  public var number: UInt32 {
    switch self {
    case .prerouting: 0
    case .input: 1
    case .forward: 2
    case .output: 3
    case .postrouting: 4
    }
  }
}
