import Foundation
import XCTest

/// What a command did.
struct Outcome {
  var status: Int32
  var output: String
  var errors: String
}

/// Runs bash with `script`, bounded in time; ends it by its own process group's id if it takes longer.
@discardableResult
func bash(_ script: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line) -> Outcome {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/usr/bin/timeout")
  process.arguments = ["--kill-after=5", "\(timeout)", "bash", "-c", script]
  let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
  let outURL = directory.appendingPathExtension("out")
  let errURL = directory.appendingPathExtension("err")
  defer {
    try? FileManager.default.removeItem(at: outURL)
    try? FileManager.default.removeItem(at: errURL)
  }
  _ = FileManager.default.createFile(atPath: outURL.path, contents: nil)
  _ = FileManager.default.createFile(atPath: errURL.path, contents: nil)
  guard let out = try? FileHandle(forWritingTo: outURL), let err = try? FileHandle(forWritingTo: errURL) else {
    XCTFail("no temporary files", file: file, line: line)
    return Outcome(status: -1, output: "", errors: "")
  }
  process.standardOutput = out
  process.standardError = err
  process.standardInput = FileHandle.nullDevice
  do { try process.run() } catch {
    XCTFail("bash: \(error)", file: file, line: line)
    return Outcome(status: -1, output: "", errors: "")
  }
  process.waitUntilExit()
  func text(_ url: URL) -> String { String(decoding: (try? Data(contentsOf: url)) ?? Data(), as: UTF8.self) }
  let status = process.terminationReason == .exit ? process.terminationStatus : 128 + process.terminationStatus
  if status == 124 { XCTFail("took longer than \(timeout) s: \(script)", file: file, line: line) }
  return Outcome(status: status, output: text(outURL), errors: text(errURL))
}

/// The world outside the enclaves of these tests: a namespace H where `tombolo` runs, joined by veth to a namespace S
/// with unmodified servers (nginx, dnsmasq). Everything has this process's id in its name and is removed at the end.
final class World: @unchecked Sendable {
  static let id =
    ProcessInfo.processInfo.environment["TOMBOLO_TEST_ID"] ?? "\(ProcessInfo.processInfo.processIdentifier)"
  static let host = "tmb-h-\(id)"
  static let server = "tmb-s-\(id)"
  /// Seen by local enclaves too, which have a /tmp of their own.
  static let directory = "/var/tmp/tombolo-e2e-\(id)"
  static let binaries =
    ProcessInfo.processInfo.environment["TOMBOLO_BINARIES"]
    ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent(".build/release").path
  static let tombolo = binaries + "/tombolo"
  /// A `tombolo run` in H.
  static let run = "ip netns exec \(host) \(tombolo) run"

  static func setUp() {
    let made = bash(
      """
      set -e
      mkdir -p \(directory)/www && cd \(directory)
      echo content-of-file > www/file
      head -c 1073741824 /dev/urandom > www/big; chmod -R a+rX .
      sha256sum www/big | cut -d' ' -f1 > big.sum
      mkdir -p www/up && chmod 777 www/up
      ip netns add \(host); ip netns add \(server)
      ip link add v0 netns \(host) type veth peer name v1 netns \(server)
      ip -n \(host) addr add 10.9.0.1/24 dev v0; ip -n \(server) addr add 10.9.0.2/24 dev v1
      ip -n \(host) addr add fd09::1/64 dev v0 nodad; ip -n \(server) addr add fd09::2/64 dev v1 nodad
      for n in \(host) \(server); do ip -n $n link set lo up; done
      ip -n \(host) link set v0 up; ip -n \(server) link set v1 up
      cat > nginx.conf <<'X'
      worker_processes 1; daemon on; pid \(directory)/nginx.pid; error_log \(directory)/nginx.log;
      events { worker_connections 4096; }
      http { access_log off; client_max_body_size 0; client_body_temp_path \(directory)/body;
        server { listen 8080 backlog=4096; listen [::]:8080; root \(directory)/www; dav_methods PUT; } }
      X
      ip netns exec \(server) nginx -c \(directory)/nginx.conf
      long=$(printf 'x%.0s' $(seq 250))
      ip netns exec \(server) dnsmasq --no-resolv --no-hosts --listen-address=10.9.0.2 --bind-interfaces \
        --host-record=web.test,10.9.0.2,fd09::2 --txt-record=big.test,$long,$long,$long,$long,$long,$long \
        --pid-file=\(directory)/dnsmasq.pid --user=root
      """, timeout: 120)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  static func tearDown() {
    bash(
      """
      cd \(directory) || exit 0
      for f in nginx.pid dnsmasq.pid; do [ -s $f ] && kill $(cat $f); done
      ip netns del \(host); ip netns del \(server)
      rm -rf \(directory)
      """)
  }
}
