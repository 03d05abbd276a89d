import EnclaveConfig

/// `LocalEnclave` and the command line's settings as text, from `tombolo run` to its `tombolo-init`: one entry a
/// line, each key and value length-delimited, so that nothing needs quoting.
public enum LocalDocument {
  public struct Content: Equatable, Sendable {
    public var local: LocalEnclave
    /// The configuration file as `tombolo run` read it, with the name for errors; nil: read the enclave's own.
    public var configuration: (name: String, text: String)?
    /// TOML that goes over it.
    public var overrides: String
    /// The program's standard input is ours.
    public var passesInput: Bool
    /// Where the program starts unless the configuration says.
    public var defaultDirectory: String?

    public init(
      local: LocalEnclave, configuration: (name: String, text: String)?, overrides: String, passesInput: Bool,
      defaultDirectory: String?
    ) {
      self.local = local
      self.configuration = configuration
      self.overrides = overrides
      self.passesInput = passesInput
      self.defaultDirectory = defaultDirectory
    }

    public static func == (a: Content, b: Content) -> Bool {
      a.local == b.local && a.configuration?.name == b.configuration?.name
        && a.configuration?.text == b.configuration?.text && a.overrides == b.overrides
        && a.passesInput == b.passesInput && a.defaultDirectory == b.defaultDirectory
    }
  }

  public static func encode(_ content: Content) -> [UInt8] {
    var fields: [(String, String)] = [
      ("stage", content.local.stage), ("transport", content.local.transport),
      ("name-server", content.local.nameServer), ("user-namespace", content.local.hasUserNamespace ? "1" : "0"),
      ("overrides", content.overrides), ("input", content.passesInput ? "1" : "0"),
    ]
    if let rootfs = content.local.rootfs { fields.append(("rootfs", rootfs)) }
    if let directory = content.defaultDirectory { fields.append(("directory", directory)) }
    fields += content.local.search.map { ("search", $0) } + content.local.resolverOptions.map { ("option", $0) }
    if let count = content.local.userCount { fields.append(("users", "\(count)")) }
    fields += content.local.hidden.map { ("hide", $0) }
    for piece in content.local.pieces { fields.append(("piece", piece.encoded)) }
    if let configuration = content.configuration {
      fields.append(("configuration-name", configuration.name))
      fields.append(("configuration", configuration.text))
    }
    return fields.flatMap { key, value in Array("\(key) \(value.utf8.count)\n".utf8) + Array(value.utf8) }
  }

  /// nil where the bytes are not what `encode` makes.
  public static func decode(_ bytes: [UInt8]) -> Content? {
    var values: [String: [String]] = [:]
    var rest = bytes[...]
    while !rest.isEmpty {
      guard let newline = rest.firstIndex(of: 0x0a) else { return nil }
      let words = String(decoding: rest[..<newline], as: UTF8.self).split(separator: " ")
      guard words.count == 2, let count = Int(words[1]), count >= 0 else { return nil }
      rest = rest[(newline + 1)...]
      guard rest.count >= count else { return nil }
      values[String(words[0]), default: []].append(String(decoding: rest.prefix(count), as: UTF8.self))
      rest = rest.dropFirst(count)
    }
    func one(_ key: String) -> String? { values[key]?.first }
    guard let stage = one("stage"), let transport = one("transport"), let server = one("name-server") else {
      return nil
    }
    var local = LocalEnclave(
      rootfs: one("rootfs"), stage: stage, transport: transport,
      pieces: (values["piece"] ?? []).compactMap { RootPiece(encoded: $0) },
      hasUserNamespace: one("user-namespace") == "1", nameServer: server, search: values["search"] ?? [],
      resolverOptions: values["option"] ?? [])
    local.hidden = values["hide"] ?? []
    local.userCount = one("users").flatMap { UInt32($0) }
    let configuration = one("configuration").map { (name: one("configuration-name") ?? "", text: $0) }
    return Content(
      local: local, configuration: configuration, overrides: one("overrides") ?? "",
      passesInput: one("input") == "1", defaultDirectory: one("directory"))
  }
}
