/// Kernel modules from a directory such as an unpacked Debian package: found by name, with what they depend on, in the
/// order in which they must be loaded.
///
/// Dependencies come from the modules themselves (`depends=` and `softdep=pre:` in `.modinfo`), which is what depmod
/// makes modules.dep from: an unpacked package has no modules.dep, and a stale one cannot mislead.
struct KernelModules {
  struct Module {
    /// Below the root: `lib/modules/6.1.0/kernel/net/tun.ko`, never compressed.
    var path: String
    var bytes: [UInt8]
  }

  /// What `tombolo-init` can make use of, in a kernel that has it as modules; the default of `--modules`.
  static let usual = [
    "virtio_pci", "virtio_mmio", "virtio_rng", "vmw_vsock_virtio_transport", "nsm", "ptp_kvm", "tun", "veth",
    "nf_tables",
    "nft_chain_nat", "nft_redir", "nft_ct", "nft_queue", "nft_nat", "nft_masq", "nft_reject_inet",
    "nft_reject_ipv4", "nft_reject_ipv6", "nfnetlink_queue", "overlay",
  ]
  /// Where the configuration has a `[[mount]]` of type nfs: megabytes that no other image needs.
  static let forNetworkMounts = ["nfsv4"]
  private static let endings = [".ko", ".ko.xz", ".ko.gz", ".ko.zst"]
  private static let largestModule = 256 << 20

  let version: String
  private let directory: String
  /// Normalised name to path below `directory`.
  private let files: [String: (path: [[UInt8]], content: FileContent)]
  /// Modules that are part of the kernel, and the aliases under which they are asked for.
  private let builtIn: Set<String>
  /// `nsm.ko` at the top, as AWS's bootstrap kernels come.
  let nsm: FileContent?

  /// - Parameters:
  ///   - directory: one with `lib/modules/VERSION` or `usr/lib/modules/VERSION` below it, or `VERSION` itself.
  ///   - kernelVersion: which to take of several.
  init(_ directory: String, kernelVersion: String?) throws(ImageError) {
    self.directory = directory
    let tree = try DirectoryReader.read(directory, warn: { _ in })
    nsm = if case .file(let content)? = tree.lookup("nsm.ko")?.kind { content } else { nil }
    let parent = ["lib/modules", "usr/lib/modules", ""].lazy.compactMap { path -> FileNode? in
      guard let node = tree.lookup(path), node.isDirectory else { return nil }
      return KernelModules.versions(in: node).isEmpty ? nil : node
    }.first
    guard let parent else {
      if tree.lookup("kernel")?.isDirectory == true, let name = directory.split(separator: "/").last {
        (files, builtIn) = try KernelModules.scan(tree.root, directory)
        version = String(name)
        return
      }
      guard nsm != nil else {
        throw .malformed(
          file: directory, "has no kernel modules; lib/modules/VERSION/kernel or nsm.ko was expected in it")
      }
      (files, builtIn, version) = ([:], [], "")
      return
    }
    let versions = KernelModules.versions(in: parent).sorted()
    if let only = versions.first, versions.count == 1 {
      version = only
    } else if let kernelVersion, versions.contains(kernelVersion) {
      version = kernelVersion
    } else {
      throw .malformed(
        file: directory,
        "has modules of \(versions.joined(separator: ", ")); the kernel is \(kernelVersion ?? "of unknown version")")
    }
    if let kernelVersion, kernelVersion != version {
      throw .malformed(
        file: directory, "has modules of \(version), the kernel is \(kernelVersion): it would refuse them")
    }
    let root = parent.children[Array(version.utf8)]?.node ?? parent
    (files, builtIn) = try KernelModules.scan(root, directory)
  }

  private static func versions(in node: FileNode) -> [String] {
    node.children.filter { $0.value.node.children[Array("kernel".utf8)]?.node.isDirectory == true }.map { text($0.key) }
  }

  private static func scan(
    _ root: FileNode, _ directory: String
  ) throws(ImageError) -> ([String: (path: [[UInt8]], content: FileContent)], Set<String>) {
    var files: [String: (path: [[UInt8]], content: FileContent)] = [:]
    var pending: [(path: [[UInt8]], node: FileNode)] = [([], root)]
    while let (path, node) = pending.popLast() {
      for (name, child) in node.children {
        if child.node.isDirectory { pending.append((path + [name], child.node)) }
        guard case .file(let content) = child.node.kind, let module = moduleName(text(name)) else { continue }
        let file = (path: path + [name], content: content)
        if let other = files[module], isPreferred(other.path, to: file.path) { continue }
        files[module] = file
      }
    }
    var builtIn: Set<String> = []
    if case .file(let content)? = root.children[Array("modules.builtin".utf8)]?.node.kind {
      for line in text(try content.all(limit: 16 << 20)).split(separator: "\n") {
        if let last = line.split(separator: "/").last, let name = moduleName(String(last)) { builtIn.insert(name) }
      }
    }
    if case .file(let content)? = root.children[Array("modules.builtin.modinfo".utf8)]?.node.kind {
      // module.key=value, NUL after each
      for record in try content.all(limit: 16 << 20).split(separator: 0) {
        let parts = text(record).split(separator: "=", maxSplits: 1)
        if parts.count == 2, parts[0].hasSuffix(".alias") { builtIn.insert(normalised(String(parts[1]))) }
      }
    }
    return (files, builtIn)
  }

  /// `nf-tables.ko.xz` is the module nf_tables; nil for other files.
  private static func moduleName(_ file: String) -> String? {
    guard let ending = endings.first(where: { file.hasSuffix($0) }) else { return nil }
    return normalised(String(file.dropLast(ending.count)))
  }

  /// Of two files with one module's name: depmod takes that below `updates` first. Which of others does not matter, but
  /// must not change from build to build.
  private static func isPreferred(_ one: [[UInt8]], to other: [[UInt8]]) -> Bool {
    func key(_ path: [[UInt8]]) -> (Int, String) {
      (path.first == Array("updates".utf8) ? 0 : 1, FileTree.joined(path))
    }
    return key(one) < key(other)
  }

  private static func normalised(_ name: String) -> String { String(name.map { $0 == "-" ? "_" : $0 }) }

  /// The modules and all they need, dependencies first.
  /// - Parameter required: whether a name that is nowhere is an error; what is built into the kernel never is.
  func loadOrder(_ names: [String], required: Bool) throws(ImageError) -> [Module] {
    var order: [Module] = []
    var seen: Set<String> = []
    for name in names {
      try add(KernelModules.normalised(name), required: required, neededBy: nil, &order, &seen, depth: 0)
    }
    return order
  }

  private func add(
    _ name: String, required: Bool, neededBy: String?, _ order: inout [Module], _ seen: inout Set<String>, depth: Int
  ) throws(ImageError) {
    guard !seen.contains(name), !builtIn.contains(name) else { return }
    guard let file = files[name] else {
      guard required else { return }
      let why = neededBy.map { ", which \($0) needs" } ?? ""
      throw .malformed(file: directory, "has no kernel module \"\(name)\"\(why) for \(version)")
    }
    guard depth < 64 else {
      throw .malformed(file: directory, "modules that need one another more than 64 deep (\(name))")
    }
    seen.insert(name)
    let bytes = try read(file.content)
    guard let information = ModuleInformation(bytes) else {
      throw .malformed(
        file: "\(directory): \(FileTree.joined(file.path))", "is not a kernel module (ELF with .modinfo)")
    }
    for soft in information.softDependencies {
      for other in try resolve(soft: soft) {
        try add(other, required: false, neededBy: name, &order, &seen, depth: depth + 1)
      }
    }
    for other in information.dependencies.map(KernelModules.normalised) {
      try add(other, required: true, neededBy: name, &order, &seen, depth: depth + 1)
    }
    let path = "lib/modules/\(version)/" + FileTree.joined(file.path)
    let ending = KernelModules.endings.first { path.hasSuffix($0) } ?? ""
    order.append(Module(path: path.dropLast(ending.count) + ".ko", bytes: bytes))
  }

  /// A soft dependency is a module or an alias (`crc32c`); for an alias, every module is asked whether it is one of its own.
  private func resolve(soft name: String) throws(ImageError) -> [String] {
    let name = KernelModules.normalised(name)
    if files[name] != nil || builtIn.contains(name) { return [name] }
    var matches: [String] = []
    for (module, file) in files.sorted(by: { $0.key < $1.key }) {
      if ModuleInformation(try read(file.content))?.aliases.contains(name) == true { matches.append(module) }
    }
    return matches
  }

  private func read(_ content: FileContent) throws(ImageError) -> [UInt8] {
    guard let slice = try content.slice() else { return try content.all(limit: KernelModules.largestModule) }
    var limit = UnpackLimit(KernelModules.largestModule, nil)
    return try slice.decompressed(&limit).all(limit: KernelModules.largestModule)
  }
}

/// The `.modinfo` section of a module: `key=value`, NUL after each.
struct ModuleInformation: Equatable {
  var dependencies: [String] = []
  var softDependencies: [String] = []
  /// With `_` for `-`, as module names are compared.
  var aliases: Set<String> = []

  /// nil for what is no 64-bit little-endian ELF file with such a section.
  init?(_ bytes: [UInt8]) {
    guard bytes.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]), let section = ModuleInformation.section(bytes) else {
      return nil
    }
    for record in section.split(separator: 0) {
      let line = text(record)
      if line.hasPrefix("depends=") {
        dependencies = line.dropFirst("depends=".count).split(separator: ",").map(String.init)
      } else if line.hasPrefix("alias=") {
        aliases.insert(String(line.dropFirst("alias=".count).map { $0 == "-" ? "_" : $0 }))
      } else if line.hasPrefix("softdep=") {
        // softdep=pre: a b post: c
        var before = false
        for word in line.dropFirst("softdep=".count).split(separator: " ") {
          if word.hasSuffix(":") { before = word == "pre:" } else if before { softDependencies.append(String(word)) }
        }
      }
    }
  }

  /// elf(5): Elf64_Ehdr has e_shoff at 40, e_shentsize at 58, e_shnum at 60, e_shstrndx at 62; Elf64_Shdr has sh_name
  /// at 0, sh_offset at 24, sh_size at 32.
  private static func section(_ bytes: [UInt8]) -> ArraySlice<UInt8>? {
    func number(_ offset: Int, _ count: Int) -> Int? {
      UInt64(littleEndian: bytes, at: offset, count: count).flatMap { Int(exactly: $0) }
    }
    func range(_ index: Int, _ table: Int, _ entry: Int) -> ArraySlice<UInt8>? {
      guard let start = number(table + index * entry + 24, 8), let count = number(table + index * entry + 32, 8),
        start <= bytes.count, count <= bytes.count - start
      else { return nil }
      return bytes[start..<start + count]
    }
    guard let table = number(40, 8), let entry = number(58, 2), let count = number(60, 2),
      let nameIndex = number(62, 2),
      entry >= 64, nameIndex < count, table <= bytes.count, count * entry <= bytes.count - table,
      let names = range(nameIndex, table, entry)
    else { return nil }
    for index in 0..<count {
      guard let name = number(table + index * entry, 4), name < names.count else { continue }
      let found = names[(names.startIndex + name)...].prefix { $0 != 0 }
      if found.elementsEqual(".modinfo".utf8) { return range(index, table, entry) }
    }
    return nil
  }
}
