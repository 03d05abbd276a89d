import Foundation
import XCTest

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
    .deletingLastPathComponent()
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

  /// Runs `script` after the prelude.
  @discardableResult
  static func bash(
    _ script: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) -> Outcome {
    plainly(prelude + "\n" + script, timeout: timeout, file: file, line: line)
  }

  // MARK: what both ways of capture are put through

  /// A refusal is one at once; a black hole is one when the program's own time is over, and not before.
  /// - Parameter run: the prelude's word that starts a program.
  static func refusalsAndTimeOuts(_ run: String) -> String {
    """
    \(run) -- python3 -c '
    import socket, time
    def attempt(address, limit):
        s = socket.socket(); s.settimeout(limit); start = time.time()
        try: s.connect(address)
        except Exception as e: return type(e).__name__, time.time() - start
    kind, took = attempt(("10.8.0.2", 81), 10); print(kind, took < 1)
    kind, took = attempt(("10.66.0.9", 80), 2); print(kind, 1.9 < took < 3)'
    """
  }

  static func halfCloseBothWaysAndReset(_ run: String) -> String {
    """
    cat > $D/peer.py <<'X'
    import socket, struct
    s = socket.create_server(("10.8.0.2", 7000))
    c, _ = s.accept(); data = c.makefile("rb").read(); c.sendall(b"got " + data); c.close()
    c, _ = s.accept(); c.sendall(b"first"); c.shutdown(socket.SHUT_WR); data = c.makefile("rb").read(); print("after its end:", data.decode()); c.close()
    c, _ = s.accept(); c.recv(1); c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); c.close()
    X
    $S timeout 20 python3 -u $D/peer.py & p=$!
    sleep 0.5
    \(run) -- python3 -c '
    import socket
    def dial(): return socket.create_connection(("10.8.0.2", 7000))
    c = dial(); c.sendall(b"half"); c.shutdown(socket.SHUT_WR); print(c.makefile("rb").read().decode())
    c = dial(); print(c.makefile("rb").read().decode()); c.sendall(b"second"); c.close()
    c = dial(); c.sendall(b"x")
    try: c.recv(10); print("no reset")
    except ConnectionResetError: print("reset")' > $D/inside
    wait $p > /dev/null; cat $D/inside
    """
  }
}

/// The shared helper, which within `RawWorld` has its method's name.
private func plainly(_ script: String, timeout: TimeInterval, file: StaticString, line: UInt) -> Outcome {
  bash(script, timeout: timeout, file: file, line: line)
}
