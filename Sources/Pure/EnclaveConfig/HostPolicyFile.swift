import Policy

/// The rules of a parent's owner (`tombolo host --policy FILE`): the sections `[egress]` and `[dns]` of a configuration, as far
/// as a host side can hold an enclave to them.
public struct HostPolicyFile: Equatable, Sendable {
  public var egress = EgressSettings()
  public var names = NameSettings()

  /// - Parameter file: the name that errors carry.
  public init(toml text: String, file: String) throws(ConfigurationError) {
    var reader = TableReader(try Document(text, file: file))
    // The file is there to say what is allowed, even where it says nothing.
    egress.hasSection = true
    try reader.table("egress") { (table) throws(ConfigurationError) in try egress.readRules(&table)
    }
    try reader.table("dns") { (table) throws(ConfigurationError) in
      try ResolverSettings.readAnswers(&table, &names)
    }
    try reader.finish()
    // The enclave has a cache of its own.
    names.cache = 0
  }
}
