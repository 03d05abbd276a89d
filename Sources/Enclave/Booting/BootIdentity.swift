import Digests
import LinuxSystem
import Wire

/// This boot's name and secrets: made once by PID 1, shared with the host in the first session and with our own processes
/// through descriptors, and written down nowhere.
public struct BootIdentity: Sendable {
  /// Made when first asked for, which is after the kernel's generator has been seeded.
  public static let own = BootIdentity()

  public let boot: BootID
  public let secrets: BootSecrets

  private init() {
    boot = BootID(high: randomUInt64(), low: randomUInt64())
    func token() -> Token {
      // The count is the token's length, so that this loop ends at once.
      while true { if let token = Token(randomBytes(Token.length)) { return token } }
    }
    secrets = BootSecrets(session: token(), proxy: token(), host: token())
  }

  /// What opens this boot's sessions.
  /// - Parameter policy: its digest.
  public func hello(_ digest: ConfigurationDigest, policy: [UInt8]? = nil) -> Hello {
    Hello(
      .session, token: secrets.session,
      parameters: StartReport(
        boot: boot, proxyToken: secrets.proxy, hostToken: secrets.host, configurationDigest: digest.bytes,
        version: tomboloVersion, policyDigest: policy
      ).parameters)
  }
}
