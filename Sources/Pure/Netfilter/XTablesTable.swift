/// A legacy table (`nat` or `filter` of one family) as the kernel hands it out and takes it back.
///
/// Theory of operation. The kernel knows no single rules: a table is read as one block of entries and replaced as one
/// block. In it stand the chains of the hooks, each ending in its policy, then the user chains, each between an entry with
/// its name and a RETURN, then a last entry named ERROR. Entries refer to each other by offset, so a block that changed is
/// laid out anew. Somebody else's rules are carried over byte for byte.
public struct XTablesTable: Hashable, Sendable {
  /// The answer to IPT_SO_GET_INFO (struct ipt_getinfo).
  public struct Info: Hashable, Sendable {
    public static let size = 84
    public var validHooks: UInt32
    /// Offsets of the first entry and of the policy, by hook number.
    public var hookEntries: [UInt32]
    public var underflows: [UInt32]
    public var entryCount: UInt32
    /// Of all entries, in bytes.
    public var entriesSize: UInt32

    public init?(_ bytes: [UInt8]) {
      guard bytes.count == Self.size else { return nil }
      let numbers = stride(from: 32, to: Self.size, by: 4).compactMap { bytes.number(at: $0, as: UInt32.self) }
      guard numbers.count == 13 else { return nil }
      validHooks = numbers[0]
      hookEntries = Array(numbers[1..<6])
      underflows = Array(numbers[6..<11])
      entryCount = numbers[11]
      entriesSize = numbers[12]
    }
  }

  struct Chain: Hashable, Sendable {
    enum Name: Hashable, Sendable {
      case hook(Ruleset.Hook)
      /// With the entry that carries the name.
      case user(String, XTablesEntry)
    }
    var name: Name
    /// The last is the policy, or the RETURN of a user chain.
    var entries: [XTablesEntry]

    var userName: String? {
      if case .user(let text, _) = name { return text }
      return nil
    }
  }

  public let family: Ruleset.Family
  public let kind: Ruleset.Kind
  let validHooks: UInt32
  /// How many entries the kernel had.
  let originalCount: Int
  var chains: [Chain]
  var end: XTablesEntry
  var nextID: Int

  var layout: XTablesLayout { .of(family) }

  /// Reads what IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES answered. Any bytes give a table or an error.
  public init(
    _ kind: Ruleset.Kind, _ family: Ruleset.Family, _ info: Info, entries blob: [UInt8]
  ) throws(XTablesError) {
    self.kind = kind
    self.family = family
    validHooks = info.validHooks
    let layout = XTablesLayout.of(family)
    var entries: [XTablesEntry] = []
    // Where each entry starts, in order; its place here is its id.
    var offsets: [Int] = []
    var offset = 0
    while offset < blob.count {
      let entry = try XTablesEntry.parse(blob, at: offset, id: entries.count, layout)
      offsets.append(offset)
      entries.append(entry)
      offset += entry.bytes.count
    }
    guard entries.count == Int(info.entryCount) else {
      throw XTablesError("\(entries.count) entries where \(info.entryCount) were announced")
    }
    for index in entries.indices {
      guard case .entry(let destination) = entries[index].target else { continue }
      guard let id = Self.position(of: destination, in: offsets) else {
        throw XTablesError("entry \(index) jumps to \(destination)")
      }
      entries[index].target = .entry(id)
    }
    originalCount = entries.count
    nextID = entries.count
    guard let last = entries.popLast(), case .error = last.target else { throw XTablesError("no end of the table") }
    end = last
    chains = []
    try splitHooks(info, &entries, offsets)
    try splitUserChains(entries)
  }

  /// The entries of the hooks' chains, which come first and in the order of the hooks' numbers; `entries` keeps the rest.
  private mutating func splitHooks(
    _ info: Info, _ entries: inout [XTablesEntry], _ offsets: [Int]
  ) throws(XTablesError) {
    var position = 0
    for hook in Ruleset.Hook.allCases where info.validHooks & 1 << hook.number != 0 {
      let number = Int(hook.number)
      guard info.hookEntries.indices.contains(number), info.underflows.indices.contains(number),
        let first = Self.position(of: Int(info.hookEntries[number]), in: offsets),
        let policy = Self.position(of: Int(info.underflows[number]), in: offsets),
        first == position, policy >= first, policy < entries.count
      else { throw XTablesError("chain of the \(hook.rawValue) hook is not where it should be") }
      let chain = Array(entries[first...policy])
      guard !chain.contains(where: { if case .error = $0.target { true } else { false } }) else {
        throw XTablesError("chain of the \(hook.rawValue) hook holds a chain's name")
      }
      chains.append(Chain(name: .hook(hook), entries: chain))
      position = policy + 1
    }
    entries.removeFirst(position)
  }

  private static func position(of offset: Int, in offsets: [Int]) -> Int? {
    var low = 0
    var high = offsets.count
    while low < high {
      let middle = (low + high) / 2
      if offsets[middle] < offset { low = middle + 1 } else { high = middle }
    }
    return low < offsets.count && offsets[low] == offset ? low : nil
  }

  private mutating func splitUserChains(_ entries: [XTablesEntry]) throws(XTablesError) {
    var chain: Chain?
    for entry in entries {
      if case .error(let name) = entry.target {
        if let chain { try append(chain) }
        chain = Chain(name: .user(name, entry), entries: [])
      } else if chain != nil {
        chain?.entries.append(entry)
      } else {
        throw XTablesError("entry \(entry.id) is in no chain")
      }
    }
    if let chain { try append(chain) }
  }

  private mutating func append(_ chain: Chain) throws(XTablesError) {
    guard !chain.entries.isEmpty else { throw XTablesError("chain \(chain.userName ?? "") is empty") }
    chains.append(chain)
  }

  // MARK: -

  /// What IPT_SO_SET_REPLACE takes (struct ipt_replace), and how the counters go on.
  public struct Replacement: Hashable, Sendable {
    /// Where the pointer to the counters of the old entries belongs.
    public static let countersPointer = 88
    public static let headerSize = 96
    /// The header, with no pointer yet, and the entries.
    public var bytes: [UInt8]
    /// How many counters the kernel hands back, one for each old entry (struct xt_counters, 16 bytes).
    public var oldCount: Int
    /// For each new entry the place of its old counters; nil for a new one.
    public var origins: [Int?]
  }

  /// Lays the table out.
  public func replacement() -> Replacement {
    var blob: [UInt8] = []
    var hookEntries = [UInt32](repeating: 0, count: 5)
    var underflows = hookEntries
    var origins: [Int?] = []
    let order = chains.flatMap { chain in
      if case .user(_, let head) = chain.name { [head] + chain.entries } else { chain.entries }
    }
    // By id; -1 for an entry that is gone.
    var offsets = [Int](repeating: -1, count: nextID + 1)
    var offset = 0
    for entry in order + [end] {
      offsets[entry.id] = offset
      offset += entry.bytes.count
    }
    for chain in chains {
      guard case .hook(let hook) = chain.name, let first = chain.entries.first, let last = chain.entries.last else {
        continue
      }
      hookEntries[Int(hook.number)] = UInt32(clamping: offsets[first.id])
      underflows[Int(hook.number)] = UInt32(clamping: offsets[last.id])
    }
    for entry in order + [end] {
      if case .entry(let id) = entry.target, offsets.indices.contains(id), offsets[id] >= 0 {
        blob += entry.bytes(goingOnAt: offsets[id], layout)
      } else {
        blob += entry.bytes
      }
      origins.append(entry.id < originalCount ? entry.id : nil)
    }
    var header = [UInt8].zeros(Replacement.headerSize)
    header.put(kind.rawValue.utf8, at: 0)
    let numbers = [validHooks, UInt32(origins.count), UInt32(blob.count)] + hookEntries + underflows
    for (index, number) in (numbers + [UInt32(originalCount)]).enumerated() { header.put(number, at: 32 + 4 * index) }
    return Replacement(bytes: header + blob, oldCount: originalCount, origins: origins)
  }
}
