// Our rules among somebody else's: each of our chains becomes a user chain `<ruleset>_<chain>`, and the hook's chain gets
// a jump to it at its head. That makes them easy to find again, to replace and to remove.
extension XTablesTable {
  /// Puts the chains of this table's kind and family in, in place of those of an earlier ruleset of the same name.
  ///
  /// Unlike in nf_tables, `accept` in one chain keeps a packet from all later rules of the table at this hook.
  /// - Throws: where the table has no such hook.
  public mutating func apply(_ ruleset: Ruleset) throws(XTablesError) {
    remove(rulesetNamed: ruleset.name)
    let wanted = ruleset.tables.filter { $0.family == family }.flatMap(\.chains).filter { $0.kind == kind }
    // The last to be put at the head runs first. Mostly there is one.
    let ordered = wanted.count > 1 ? wanted.sorted { $0.priority < $1.priority } : wanted
    for chain in ordered.reversed() {
      guard let hook = chains.firstIndex(where: { $0.name == .hook(chain.hook) }) else {
        throw XTablesError("table \(kind.rawValue) (\(family)) has no \(chain.hook.rawValue) hook")
      }
      let name = "\(ruleset.name)_\(chain.name)"
      let entries =
        chain.rules.map { XTablesRules.entry($0, family, id: newID()) }
        + [XTablesEntry(id: newID(), .verdict(XTablesLayout.return), layout)]
      let head = XTablesEntry(id: newID(), .error(name), layout)
      chains.append(Chain(name: .user(name, head), entries: entries))
      chains[hook].entries.insert(XTablesEntry(id: newID(), .entry(entries[0].id), layout), at: 0)
    }
  }

  /// Takes out every chain of that ruleset and every rule that jumps to one.
  public mutating func remove(rulesetNamed ruleset: String) {
    let isOurs = { (chain: Chain) in chain.userName?.hasPrefix(ruleset + "_") == true }
    let starts = chains.filter(isOurs).compactMap { $0.entries.first?.id }
    chains.removeAll(where: isOurs)
    for index in chains.indices {
      // Backwards, so that what goes on at a removed entry goes on at the first one after it that stays.
      for position in chains[index].entries.indices.dropLast().reversed() {
        guard case .entry(let id) = chains[index].entries[position].target, starts.contains(id) else { continue }
        let removed = chains[index].entries.remove(at: position)
        redirect(from: removed.id, to: chains[index].entries[position].id)
      }
    }
  }

  private mutating func redirect(from old: Int, to new: Int) {
    for chain in chains.indices {
      for entry in chains[chain].entries.indices where chains[chain].entries[entry].target == .entry(old) {
        chains[chain].entries[entry].target = .entry(new)
      }
    }
  }

  private mutating func newID() -> Int {
    nextID += 1
    return nextID
  }

  /// Whether `ruleset` asks for anything in the table of that kind and family.
  public static func isWanted(_ kind: Ruleset.Kind, _ family: Ruleset.Family, by ruleset: Ruleset) -> Bool {
    ruleset.tables.contains { $0.family == family && $0.chains.contains { $0.kind == kind } }
  }
}
