import CLinux
import LinuxSystem
import Policy
import Roles

/// What the DNS client is handed, opened while its files can be reached and nothing of the program's has run.
public struct DNSClientFiles {
  public let executable: FileReference
  /// Of the pair to the proxy; both stay open in PID 1, so that each side can be started again.
  public let proxyEnd: FileReference
  public let clientEnd: FileReference
  /// PEM.
  public private(set) var certificates: [UInt8] = []

  /// - Parameter name: of the file beside init's own.
  init(besideInit name: String) throws {
    executable = try companion(name, neededFor: "dns.upstream")
    (proxyEnd, clientEnd) = try makeMessagePair()
  }

  mutating func readCertificates(_ path: String?) throws {
    guard let path = path ?? NameSettings.certificateFiles.first(where: { fileKind($0) != nil }) else {
      throw MissingFeature(
        sentence: "dns.upstream has a server with a certificate, and dns.ca_file names no file: there is none of "
          + NameSettings.certificateFiles.joined(separator: ", "))
    }
    certificates = try readFile(path, limit: UpstreamPlan.certificateLimit)
  }
}
