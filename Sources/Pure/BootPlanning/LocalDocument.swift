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
    var local = LocalEnclave(rootfs: nil, stage: "", transport: "", pieces: [], hasUserNamespace: false, nameServer: "")
    var content = Content(local: local, configuration: nil, overrides: "", passesInput: false, defaultDirectory: nil)
    var name = ""
    var text: String?
    var rest = bytes[...]
    while !rest.isEmpty {
      guard let newline = rest.firstIndex(of: 0x0a), let space = rest[..<newline].firstIndex(of: 0x20),
        let count = Int(String(decoding: rest[(space + 1)..<newline], as: UTF8.self)), count >= 0
      else { return nil }
      let key = String(decoding: rest[..<space], as: UTF8.self)
      rest = rest[(newline + 1)...]
      guard rest.count >= count else { return nil }
      let value = String(decoding: rest.prefix(count), as: UTF8.self)
      rest = rest.dropFirst(count)
      switch key {
      case "stage": local.stage = value
      case "transport": local.transport = value
      case "name-server": local.nameServer = value
      case "user-namespace": local.hasUserNamespace = value == "1"
      case "rootfs": local.rootfs = value
      case "search": local.search.append(value)
      case "option": local.resolverOptions.append(value)
      case "hide": local.hidden.append(value)
      case "users": local.userCount = Int(value).flatMap { UInt32(exactly: $0) }
      case "piece":
        guard let piece = RootPiece(encoded: value) else { return nil }
        local.pieces.append(piece)
      case "overrides": content.overrides = value
      case "input": content.passesInput = value == "1"
      case "directory": content.defaultDirectory = value
      case "configuration-name": name = value
      case "configuration": text = value
      default: return nil
      }
    }
    guard !local.stage.isEmpty, !local.transport.isEmpty, !local.nameServer.isEmpty else { return nil }
    content.local = local
    content.configuration = text.map { (name: name, text: $0) }
    return content
  }
}
