/// A netlink request as a value; the Netlink module turns it into bytes with libmnl.
public struct NetlinkMessage: Hashable, Sendable {
  /// nlmsg_type.
  public var type: UInt16
  /// nlmsg_flags (NLM_F_*), to which sending adds what it needs.
  public var flags: UInt16
  /// The family's own header (struct nfgenmsg, struct rtmsg), without padding.
  public var header: [UInt8]
  public var attributes: [NetlinkAttribute]
  /// What it asks for, in the words of an error: `add rule ip tombolo output_nat …`.
  public var label: String

  public init(type: UInt16, flags: UInt16, header: [UInt8], attributes: [NetlinkAttribute], label: String) {
    self.type = type
    self.flags = flags
    self.header = header
    self.attributes = attributes
    self.label = label
  }
}

/// One attribute: a type and a value, or attributes inside it.
public struct NetlinkAttribute: Hashable, Sendable {
  public enum Value: Hashable, Sendable {
    case bytes([UInt8])
    /// With a NUL at its end.
    case string(String)
    /// With NLA_F_NESTED in its type.
    case nested([NetlinkAttribute])
  }

  public var type: UInt16
  public var value: Value

  public init(_ type: UInt16, _ value: Value) {
    self.type = type
    self.value = value
  }

  /// In network order, as nfnetlink wants all its numbers.
  public static func bigEndian(_ type: UInt16, _ number: some FixedWidthInteger) -> Self {
    NetlinkAttribute(type, .bytes(withUnsafeBytes(of: number.bigEndian) { Array($0) }))
  }

  /// In the machine's order, as rtnetlink wants its numbers.
  public static func native(_ type: UInt16, _ number: some FixedWidthInteger) -> Self {
    NetlinkAttribute(type, .bytes(withUnsafeBytes(of: number) { Array($0) }))
  }

  public static func string(_ type: UInt16, _ text: String) -> Self { NetlinkAttribute(type, .string(text)) }
  public static func nested(_ type: UInt16, _ inner: [NetlinkAttribute]) -> Self {
    NetlinkAttribute(type, .nested(inner))
  }
}
