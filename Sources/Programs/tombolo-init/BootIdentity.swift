import Digests
import Inet
import LinuxSystem
import Wire

/// This boot's name and secrets: made once by PID 1, shared with the host in the first session and with our own processes
/// through descriptors, and written down nowhere.
struct BootIdentity {
  /// Made when first asked for, which is after the kernel's generator has been seeded.
  static let own = BootIdentity()

  let boot: BootID
  let secrets: BootSecrets

  private init() {
    boot = BootID(high: randomUInt64(), low: randomUInt64())
    func token() -> Token {
      // The count is the token's length, so that this loop ends at once.
      while true { if let token = Token(randomBytes(Token.length)) { return token } }
    }
    secrets = BootSecrets(session: token(), proxy: token(), host: token())
  }

  /// What opens this boot's sessions.
  func hello(_ digest: ConfigurationDigest) -> Hello {
    Hello(
      .session, token: secrets.session,
      parameters: StartReport(
        boot: boot, proxyToken: secrets.proxy, hostToken: secrets.host, configurationDigest: digest.bytes,
        version: tomboloVersion
      ).parameters)
  }
}
