/// A match or target that a rule needs of the kernel besides the tables themselves.
public struct XTablesExtension: Hashable, Sendable, CustomStringConvertible {
  public var name: String
  public var revision: UInt8
  public var isTarget: Bool

  public var description: String { "\(isTarget ? "target" : "match") \(name) revision \(revision)" }

  /// All that a ruleset needs in one table, in the order of its rules. Read from the entries themselves, so that it
  /// cannot differ from them.
  public static func needed(
    by ruleset: Ruleset, _ kind: Ruleset.Kind, _ family: Ruleset.Family
  ) -> [XTablesExtension] {
    var found: [XTablesExtension] = []
    let layout = XTablesLayout.of(family)
    for table in ruleset.tables where table.family == family {
      for rule in table.chains.filter({ $0.kind == kind }).flatMap(\.rules) {
        let bytes = XTablesRules.entry(rule, family, id: 0).bytes
        let target = bytes.number(at: layout.targetOffset, as: UInt16.self).map(Int.init) ?? 0
        var offset = layout.entrySize
        while let size = bytes.number(at: offset, as: UInt16.self).map(Int.init), size > 0 {
          let range = XTablesLayout.extensionName
          let name = bytes.text(in: range.lowerBound + offset..<range.upperBound + offset) ?? ""
          let revision = bytes.number(at: offset + XTablesLayout.extensionRevision, as: UInt8.self) ?? 0
          let needed = XTablesExtension(name: name, revision: revision, isTarget: offset == target)
          if !name.isEmpty, !found.contains(needed) { found.append(needed) }
          offset += size
        }
      }
    }
    return found
  }
}
