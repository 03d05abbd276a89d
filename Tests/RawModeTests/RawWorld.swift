import Foundation
import XCTest

/// What a script did.
struct Outcome {
  var status: Int32
  var output: String
  var errors: String
}

/// The world around the enclaves of these tests: a namespace H where `tombolo` runs, joined by veth to a namespace S with
/// unmodified servers (nginx, dnsmasq, iperf3). Everything has this process's id in its name and is removed at the end.
enum RawWorld {
  static let id = ProcessInfo.processInfo.processIdentifier
  static let host = "tmb-rh-\(id)"
  static let server = "tmb-rs-\(id)"
  /// Seen by local enclaves too, which have a /tmp of their own.
  static let directory = "/var/tmp/tombolo-raw-\(id)"
  static let binaries =
    ProcessInfo.processInfo.environment["TOMBOLO_BINARIES"]
    ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().appendingPathComponent(".build/release").path
  /// Words that the scripts use.
  static let prelude = """
    H="ip netns exec \(host)"; S="ip netns exec \(server)"; D=\(directory); T=\(binaries)/tombolo; I=\(binaries)/tombolo-init
    run() { $H $T run --mode raw --dns 10.8.0.2 "$@"; }
    snapshot() {
      $H nft list ruleset; $H iptables-legacy-save | grep tombolo; $H ip link; $H ip rule; $H ip route; $H ip -6 route
      $H sysctl -a 2>/dev/null | grep '^net\\.' | grep -v 'random\\|conntrack_count\\|\\.stats\\|dentry'
    }
    """

  /// - Parameter bigFile: a gibibyte of random bytes to move.
  static func setUp(bigFile: Bool = true) {
    let made = bash(
      """
      set -e
      mkdir -p $D/www/up && cd $D && chmod 777 www/up
      echo content-of-file > www/file
      head -c \(bigFile ? 1 << 30 : 1) /dev/urandom > www/big; chmod -R a+rX .
      sha256sum www/big | cut -d' ' -f1 > big.sum
      ip netns add \(host); ip netns add \(server)
      ip link add v0 netns \(host) type veth peer name v1 netns \(server)
      ip -n \(host) addr add 10.8.0.1/24 dev v0; ip -n \(server) addr add 10.8.0.2/24 dev v1
      ip -n \(host) addr add fd08::1/64 dev v0 nodad; ip -n \(server) addr add fd08::2/64 dev v1 nodad
      for n in \(host) \(server); do ip -n $n link set lo up; done
      ip -n \(host) link set v0 up; ip -n \(server) link set v1 up
      # A black hole for what has no other way.
      ip -n \(host) route add 10.66.0.0/24 via 10.8.0.2
      cat > nginx.conf <<X
      worker_processes 1; daemon on; pid $D/nginx.pid; error_log $D/nginx.log;
      events { worker_connections 1024; }
      http { access_log off; client_max_body_size 0; client_body_temp_path $D/body;
        server { listen 8080; listen [::]:8080; root $D/www; dav_methods PUT;
          location /slow { alias $D/www/big; limit_rate 100m; } } }
      X
      $S nginx -c $D/nginx.conf
      $S dnsmasq --no-resolv --no-hosts --listen-address=10.8.0.2 --bind-interfaces \
        --host-record=web.test,10.8.0.2,fd08::2 --pid-file=$D/dnsmasq.pid --user=root
      """, timeout: 120)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  static func tearDown() {
    bash(
      """
      cd $D || exit 0
      for f in *.pid; do [ -s $f ] && kill $(cat $f); done
      ip netns del \(host); ip netns del \(server); rm -rf $D
      """)
  }

  /// Runs bash with `script` after the prelude, bounded in time by timeout(1).
  @discardableResult
  static func bash(
    _ script: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) -> Outcome {
    let base = "/tmp/tmb-raw-\(id)-\(UInt64.random(in: 0...UInt64.max))"
    defer { for end in [".out", ".err"] { unlink(base + end) } }
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, base + ".out", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, base + ".err", O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    let words = ["/usr/bin/timeout", "--kill-after=5", "\(timeout)", "bash", "-c", prelude + "\n" + script]
    var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
    defer { for word in argv { free(word) } }
    var pid: pid_t = 0
    let code = posix_spawn(&pid, words[0], &actions, nil, &argv, environ)
    guard code == 0 else {
      XCTFail("bash: errno \(code)", file: file, line: line)
      return Outcome(status: -1, output: "", errors: "")
    }
    var raw: Int32 = 0
    while waitpid(pid, &raw, 0) < 0, errno == EINTR {}
    let status = raw & 0x7f == 0 ? (raw >> 8) & 0xff : 128 + (raw & 0x7f)
    func text(_ end: String) -> String {
      String(decoding: FileManager.default.contents(atPath: base + end) ?? Data(), as: UTF8.self)
    }
    if status == 124 { XCTFail("took longer than \(timeout) s: \(script)", file: file, line: line) }
    return Outcome(status: status, output: text(".out"), errors: text(".err"))
  }
}
