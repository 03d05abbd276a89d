import CLinux
import LinuxSystem

/// Fetches a URL with curl(1), the machine's own: it has TLS, the machine's certificates and proxies, and somebody who keeps
/// it. What it brings is not trusted: a document is verified whatever way it came.
enum Fetcher {
  private static let seconds = 30
  /// What curl(1) and its TLS library take from the environment. Without HOME it reads no .curlrc.
  private static let variables = [
    "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "CURL_CA_BUNDLE",
    "SSL_CERT_FILE", "SSL_CERT_DIR",
  ]

  static func fetch(_ url: String, limit: Int) throws -> [UInt8] {
    let (pid, output) = try start(url, limit: limit)
    let bytes: [UInt8]
    do { bytes = try readToEnd(output.rawValue, limit: limit) } catch {
      sendSignal(SIGKILL, to: pid)
      _ = end()
      throw Misuse("\(url): more than \(limit) bytes, which no attestation document has")
    }
    guard end() == 0 else { throw Misuse("\(url) could not be fetched") }
    return bytes
  }

  /// Our own copy of the pipe's other end is closed at the end of this, so that curl's end is the output's.
  private static func start(_ url: String, limit: Int) throws -> (pid: Int32, output: FileReference) {
    let curl = try find()
    let (reading, writing) = try makePipe()
    let null = FileReference(try openFile("/dev/null", O_RDONLY))
    var request = SpawnRequest(
      .path(curl),
      arguments: [
        "curl", "--fail", "--silent", "--show-error", "--proto", "=http,https", "--max-time", "\(seconds)",
        "--max-filesize", "\(limit)", "--url", url,
      ],
      environment: variables.compactMap { name in environmentVariable(name).map { "\(name)=\($0)" } },
      descriptors: [null.rawValue, writing.rawValue, 2])
    request.newSession = false
    request.parentDeathSignal = SIGKILL
    request.noNewPrivileges = true
    return (try withExtendedLifetime((null, writing)) { try spawn(request) }, reading)
  }

  /// curl's exit status, -1 for a signal. It has closed its output, and ends within its time.
  private static func end() -> Int {
    while true {
      switch reapChild() {
      case .child(_, let status, _): return status.map { Int($0) } ?? -1
      case .noneEnded: sleepMilliseconds(2)
      default: return -1
      }
    }
  }

  private static func find() throws -> String {
    for part in (environmentVariable("PATH") ?? "/usr/bin").split(separator: ":") {
      let path = "\(part)/curl"
      if fileKind(path) == .file, isExecutable(path) { return path }
    }
    throw Misuse("curl is not in PATH, and fetches URLs; fetch the document another way, and give its file or \"-\"")
  }
}
