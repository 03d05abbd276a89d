import EnclaveConfig

/// The two ramdisks of an image, in the layout of AWS's own tools: what boots in the first, what it runs in the second.
///
/// ```
/// ramdisk 0   /dev/console  /init  [/tombolo-dns]  [/tombolo-attest]  [/nsm.ko]  [/lib/modules/VERSION/…  /lib/modules/tombolo.load]
/// ramdisk 1   /rootfs/…  /rootfs/etc/tombolo.toml  /cmd  /env
/// ```
/// Unpacked one after the other they are one initramfs.
struct ImagePlan {
  static let configurationPath = "etc/tombolo.toml"
  static let moduleListPath = "lib/modules/tombolo.load"

  let boot: FileTree
  let application: FileTree
  /// Contents of `/rootfs/etc/tombolo.toml`.
  let configuration: String

  /// The image's own `/etc/tombolo.toml`.
  private static func ownConfiguration(_ root: FileTree) throws(ImageError) -> (name: String, text: String)? {
    guard case .file(let content)? = root.lookup(configurationPath)?.kind else { return nil }
    let bytes = try content.all(limit: 1 << 20)
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw .malformed(file: "the image's /\(configurationPath)", "is not UTF-8")
    }
    return ("the image's /\(configurationPath)", text)
  }

  /// Whether its configuration mounts from servers; what is wrong with it is said by whoever reads it next.
  static func hasNetworkMounts(
    _ root: FileTree, given: (name: String, text: String)?
  ) throws(ImageError) -> Bool {
    var found = given
    if found == nil { found = try ownConfiguration(root) }
    guard let found, let configuration = try? Configuration(toml: found.text, file: found.name) else { return false }
    return configuration.mounts.contains(where: \.isNetwork)
  }

  /// - Parameters:
  ///   - modules: in the order in which they must be loaded.
  ///   - companion: gives a program of our own that the configuration needs: its name, and the key that needs it.
  ///   - given: the configuration given explicitly; without one, the image's own `/etc/tombolo.toml` counts as given.
  init(
    root: FileTree, program: ImageProgram, command: [String], given: (name: String, text: String)?,
    initProgram: FileSlice, companion: (_ name: String, _ key: String) throws(ImageError) -> FileSlice,
    nsm: FileContent?, modules: [KernelModules.Module]
  ) throws(ImageError) {
    boot = FileTree()
    // Descriptors 0 to 2 of PID 1, where the kernel's own built-in archive has no console.
    try boot.insert("dev/console", FileNode(.characterDevice(major: 5, minor: 1), permissions: 0o600))
    try boot.insert("init", FileNode(.file(.slice(initProgram)), permissions: 0o755))
    if let nsm { try boot.insert("nsm.ko", FileNode(.file(nsm), permissions: 0o644)) }
    for module in modules { try boot.insert(module.path, FileNode(.file(.bytes(module.bytes)), permissions: 0o644)) }
    if !modules.isEmpty {
      let list = modules.map { "/\($0.path)\n" }.joined()
      try boot.insert(ImagePlan.moduleListPath, ImagePlan.file(list))
    }

    let own = given == nil ? try ImagePlan.ownConfiguration(root) : nil
    let merged = try ProgramConfiguration(given: given ?? own, image: program, command: command)
    guard let first = merged.command.first, !first.isEmpty else {
      throw .refused("the image names no command: give one after --, or as program.command in --config")
    }
    var companions: [(name: String, key: String)] = []
    if merged.needsDNSClient { companions.append(("tombolo-dns", "dns.upstream")) }
    if merged.needsAttestation { companions.append(("tombolo-attest", "[attestation]")) }
    for needed in companions {
      let program = try companion(needed.name, needed.key)
      try boot.insert(needed.name, FileNode(.file(.slice(program)), permissions: 0o755))
    }
    configuration = merged.toml
    try root.insert(ImagePlan.configurationPath, ImagePlan.file(merged.toml))

    application = FileTree()
    try application.insert("rootfs", root.root)
    if let text = ImagePlan.lines(merged.command) { try application.insert("cmd", ImagePlan.file(text)) }
    if let text = ImagePlan.lines(merged.environment) { try application.insert("env", ImagePlan.file(text)) }
  }

  private static func file(_ text: String) -> FileNode {
    FileNode(.file(.bytes(Array(text.utf8))), permissions: 0o644)
  }

  /// AWS's files have an entry a line. What does not fit (an entry with a line feed in it) stands in the configuration
  /// alone, and a reader that knows only these files must not find half of it.
  private static func lines(_ entries: [String]) -> String? {
    entries.contains { $0.utf8.contains(UInt8(ascii: "\n")) } ? nil : entries.map { $0 + "\n" }.joined()
  }
}
