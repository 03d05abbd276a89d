import EnclaveConfig

/// The ports and paths that inside and outside agree on.
public enum EnclaveLayout {
  public static let proxyID = Configuration.proxyID
  /// The one vsock port on each side; over the unix transport part of the sockets' names.
  public static let port = Configuration.defaultPort
  /// Where redirected TCP arrives, on both loopbacks.
  public static let egressPort: UInt16 = 61_001
  /// Where TCP arrives that the host has connected, on the interface of TCP mode.
  public static let connectionPort: UInt16 = 61_002
  /// Where redirected DNS arrives.
  public static let dnsPort: UInt16 = 61_053
  /// The file beside init that asks the servers of `dns.upstream`.
  public static let dnsClient = "tombolo-dns"
  /// The file beside init that is the attestation service.
  public static let attestationService = "tombolo-attest"
  public static let attestationDirectory = "/run/tombolo/attestation"
  public static let attestationSocket = "/run/tombolo/attestation/attestation.sock"
  /// The variable of the program that says where the socket is.
  public static let attestationVariable = "TOMBOLO_ATTESTATION_SOCKET"
  /// Where the file of `attestation.document` is; the service's own directory.
  public static let documentDirectory = "/run/tombolo/attestation/document"
  /// Where the private halves of `[[attestation.key]]` are.
  public static let keyDirectory = "/run/tombolo/keys"
  public static func keyFile(_ name: String) -> String { "\(keyDirectory)/\(name).pem" }
  public static let securityModule = "/dev/nsm"
  /// The unix transport's directory as seen inside.
  public static let transportDirectory = "/run/tombolo/host"

  public static func hostSocket(in directory: String, port: UInt32 = port) -> String { "\(directory)/host_\(port)" }
  public static func enclaveSocket(in directory: String, port: UInt32 = port) -> String {
    "\(directory)/enclave_\(port)"
  }
}
