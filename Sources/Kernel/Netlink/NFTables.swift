import CLinux
import LinuxSystem
import Netfilter

/// The kernel's nf_tables: rulesets put in place and removed, each time as one transaction.
public enum NFTables {
  /// Whether this kernel has nf_tables. Stock Nitro kernels have not even its socket family.
  public static func isAvailable() -> Bool {
    do {
      var socket = try NetlinkSocket(NETLINK_NETFILTER)
      _ = try socket.answer(to: NFTablesEncoder.generation)
      return true
    } catch {
      return false
    }
  }

  /// Replaces the tables of the ruleset's name; all of it or, where the kernel refuses one message, none.
  /// - Throws: `RulesetError` for a ruleset that no kernel could take, `NetlinkError` naming the rule that this one refused.
  public static func apply(_ ruleset: Ruleset) throws {
    let messages = try NFTablesEncoder.apply(ruleset, isNew: true)
    var socket = try NetlinkSocket(NETLINK_NETFILTER)
    // A socket over which something was deleted is closed only when no processor can use that any more
    // (nft_rcv_nl_event in net/netfilter/nf_tables_api.c): tens of milliseconds of a start, in which there is nothing to delete.
    do throws(NetlinkError) { try socket.transaction(messages) } catch {
      guard error.errno == EEXIST else { throw error }
      try socket.transaction(NFTablesEncoder.apply(ruleset))
    }
  }

  /// Removes the tables of that name; there need not be any.
  public static func remove(
    tableNamed name: String, families: [Ruleset.Family] = Ruleset.Family.allCases
  ) throws(NetlinkError) {
    var socket = try NetlinkSocket(NETLINK_NETFILTER)
    try socket.transaction(NFTablesEncoder.remove(tableNamed: name, families: families))
  }
}
