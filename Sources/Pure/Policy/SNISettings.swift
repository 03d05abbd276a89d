/// What is done with the name that a TLS client names to its server.
public struct SNISettings: Equatable, Sendable {
  public enum Check: String, CaseIterable, Sendable {
    case off
    /// A name that there is must be allowed.
    case check
    /// There must be one.
    case require
  }

  public var check = Check.off
  /// The ports at which a client's first bytes are looked at.
  public var ports: [UInt16] = [443]
  /// Whether QUIC's clients are looked at: datagrams to port 443.
  public var checksQUIC = false

  public init() {}
}
