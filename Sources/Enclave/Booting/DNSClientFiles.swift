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

  mutating func readCertificates(_ named: String?) throws {
    guard let path = named ?? NameSettings.certificateFiles.first(where: { fileKind($0) != nil }) else {
      throw MissingFeature(
        sentence: "dns.upstream has a server with a certificate, and dns.ca_file names no file: there is none of "
          + NameSettings.certificateFiles.joined(separator: ", "))
    }
    let defect: String
    do throws(SystemError) {
      certificates = try readFile(path, limit: UpstreamPlan.certificateLimit)
      guard let found = CertificateBundle.defect(in: certificates) else { return }
      defect = found
    } catch {
      defect = "\(error)"
    }
    let key = named == nil ? "dns.ca_file: not set, so " : "dns.ca_file: "
    throw MissingFeature(sentence: "\(key)found \"\(path)\", expected PEM certificates: \(defect)")
  }
}
