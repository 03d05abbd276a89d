import Inet

/// What is done with the program's queries besides the rules.
public struct NameSettings: Equatable, Sendable {
  /// How a query for a name that is denied is answered.
  public enum Denied: String, CaseIterable, Sendable {
    case refused, nxdomain

    /// RFC 1035 section 4.1.1.
    public var code: UInt8 { self == .refused ? 5 : 3 }
  }

  /// How many responses are kept.
  public var cache = 1000
  public static let cacheLimit = 1_000_000
  /// In seconds: for how long an address may be reached at least once it was the answer for a name.
  public var hold: UInt32 = 30
  /// A day.
  public static let holdLimit: UInt32 = 86_400
  public var denied = Denied.refused
  public var hosts: [FixedHost] = []
  /// The servers that the enclave asks itself, in their order; empty: the host asks its own.
  public var upstreams: [UpstreamServer] = []
  /// A PEM bundle of those whose certificates count; nil: the first of `certificateFiles` that is there.
  public var certificateFile: String?
  /// Where distributions have theirs: Debian, Alpine and Arch; Fedora and RHEL; openSUSE; Amazon Linux and others.
  public static let certificateFiles = [
    "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
  ]

  public init() {}
}
