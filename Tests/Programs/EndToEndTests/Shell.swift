import Foundation
import XCTest

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
    .deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent(".build/release").path
  static let tombolo = binaries + "/tombolo"
  /// For guests whose program starts enclaves of its own: a container could not either. TOML, without single quotes.
  static let everyRight = """
    [program]
    seccomp = "none"
    capabilities = ["CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
      "NET_BIND_SERVICE", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "SYS_CHROOT", "SYS_PTRACE", "SYS_ADMIN", "SYS_NICE",
      "SYS_RESOURCE", "MKNOD", "AUDIT_WRITE", "SETFCAP"]
    """
  /// Debian's own, which other users may execute too.
  static let python = "/usr/bin/python3"
  /// A `tombolo run` in H.
  static let run = "ip netns exec \(host) \(tombolo) run"

  /// - Parameter bigFile: a gibibyte of random bytes to move.
  static func setUp(bigFile: Bool = true) {
    let made = bash(
      """
      set -e
      mkdir -p \(directory)/www && cd \(directory)
      echo content-of-file > www/file
      head -c \(bigFile ? 1 << 30 : 1) /dev/urandom > www/big; chmod -R a+rX .
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
