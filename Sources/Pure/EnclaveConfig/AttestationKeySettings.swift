extension AttestationSettings {
  /// A key pair that is made at the start: `[[attestation.key]]`.
  public struct Key: Equatable, Sendable {
    public enum Kind: String, CaseIterable, Sendable { case ed25519, x25519, p256, p384, secp256k1 }

    /// How the public half stands in documents.
    public enum PublicForm: String, CaseIterable, Sendable {
      /// SubjectPublicKeyInfo (RFC 5280).
      case der
      /// The bytes of the key, or x and y of its point.
      case raw
    }

    /// By which it is asked for; its file's, too.
    public var name: String
    public var kind: Kind
    /// Whose the private half is, as `program.user`; nil: the program's user.
    public var user: String?
    public var publicForm = PublicForm.der

    public init(_ name: String, _ kind: Kind) {
      self.name = name
      self.kind = kind
    }

    static let limit = 16

    /// One table of `[[attestation.key]]`.
    static func read(_ table: inout TableReader) throws(ConfigurationError) -> Key {
      let nameForm = "1 to 64 letters, digits, \"-\", \"_\" and \".\", the first no \".\""
      guard let name = try table.value("name", nameForm, Self.name) else {
        throw table.missing("name", "found none, expected \(nameForm)")
      }
      let kinds = Kind.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
      guard let kind = try table.value("type", "one of \(kinds)", { Kind(rawValue: $0) }) else {
        throw table.missing("type", "found none, expected one of \(kinds)")
      }
      var made = Key(name, kind)
      made.user = try table.value("user", "name or uid, and after a \":\" group or gid", Configuration.user)
      made.publicForm =
        try table.value("public_key", "\"der\" or \"raw\"") { PublicForm(rawValue: $0) } ?? made.publicForm
      return made
    }

    private static func name(_ text: String) -> String? {
      let good = text.utf8.allSatisfy { byte in
        (0x30...0x39).contains(byte) || (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
          || byte == UInt8(ascii: "-") || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ".")
      }
      return good && (1...64).contains(text.utf8.count) && text.utf8.first != UInt8(ascii: ".") ? text : nil
    }
  }

  mutating func readKeys(_ table: inout TableReader) throws(ConfigurationError) {
    var list: [Key] = []
    try table.tables("key") { (table) throws(ConfigurationError) in
      let key = try Key.read(&table)
      guard !list.contains(where: { $0.name == key.name }) else {
        throw table.error("name", "found \"\(key.name)\" twice, expected another name for each key")
      }
      guard list.count < Key.limit else {
        throw table.error("name", "found more than \(Key.limit) keys, expected at most \(Key.limit)")
      }
      list.append(key)
    }
    if !list.isEmpty { keys = list }
  }
}
