import Foundation
import XCTest

/// Who the client is: towards the program with nginx's `proxy_protocol`, from a load balancer with haproxy's `send-proxy`; and
/// ranges of published ports.
final class ProxyProtocolTests: XCTestCase {
  let directory = World.directory
  override class func setUp() {
    World.setUp(bigFile: false)
    _ = bash(
      """
      cd \(World.directory)
      cat > proxied.conf <<'X'
      daemon off; worker_processes 1; pid /tmp/nginx.pid; error_log stderr; events {}
      http { access_log off;
        server { listen 80 proxy_protocol; location / { return 200 "$proxy_protocol_addr of $remote_addr\\n"; } } }
      X
      for v in 1 2; do printf '[ingress]\\nports = [{ port = 80, proxy_protocol = "v%s" }]\\n' $v > v$v.toml; done
      cat > balancer.cfg <<'X'
      defaults
        mode tcp
        timeout connect 5s
        timeout client 20s
        timeout server 20s
      listen one
        bind 10.9.0.2:9501
        server s 10.9.0.1:9500 send-proxy
      listen two
        bind 10.9.0.2:9502
        server s 10.9.0.1:9500 send-proxy-v2
      X
      cat > try.sh <<'X'
      # Until somebody answers there.
      fetch() { for i in $(seq 200); do curl -gsS --noproxy '*' -m 10 "$@" 2>/dev/null && return; sleep 0.05; done; curl -gsS --noproxy '*' "$@"; }
      X
      """)
  }
  override class func tearDown() { World.tearDown() }

  func testNginxLearnsTheClientsAddress() {
    for version in [1, 2] {
      let outcome = bash(
        """
        cd \(directory); . ./try.sh; h="ip netns exec \(World.host)"
        $h \(World.tombolo) run --config v\(version).toml -p 10.9.0.1:9500:80 -p [fd09::1]:9500:80 -- nginx -c \(directory)/proxied.conf >&2 & e=$!
        export -f fetch; ip netns exec \(World.server) bash -c 'fetch http://10.9.0.1:9500/; fetch http://[fd09::1]:9500/'
        kill $e; wait $e
        """)
      XCTAssertEqual(
        outcome.output, "10.9.0.2 of 127.0.0.1\nfd09::2 of 127.0.0.1\n", "version \(version): \(outcome.errors)")
    }
  }

  /// The client's address goes through: client, haproxy, `-p`, the enclave, nginx. A client that says nothing of itself is reset.
  func testALoadBalancersClientIsTheProgramsClient() {
    let outcome = bash(
      """
      cd \(directory); . ./try.sh; h="ip netns exec \(World.host)"
      ip netns exec \(World.server) haproxy -f balancer.cfg & b=$!
      $h \(World.tombolo) run --config v2.toml --accept-proxy-protocol -p 10.9.0.1:9500:80 -- nginx -c \(directory)/proxied.conf >&2 & e=$!
      export -f fetch; $h bash -c 'fetch http://10.9.0.2:9501/; fetch http://10.9.0.2:9502/'
      ip netns exec \(World.server) curl -s --noproxy '*' -m 10 http://10.9.0.1:9500/; echo "without $?"
      printf 'PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\\r\\nGET / HTTP/1.0\\r\\n\\r\\n' | ip netns exec \(World.server) socat -t 5 - TCP:10.9.0.1:9500 | tail -1
      kill $e $b; wait $e
      """)
    XCTAssertEqual(
      outcome.output,
      "10.9.0.1 of 127.0.0.1\n10.9.0.1 of 127.0.0.1\nwithout 56\n2001:db8::7 of 127.0.0.1\n", outcome.errors)
  }

  func testARangeOfPortsIsPublished() {
    let outcome = bash(
      """
      cd \(directory); . ./try.sh; h="ip netns exec \(World.host)"
      $h \(World.tombolo) run -p 9510-9512:8010-8012 -p [::1]:9510:8010 -- sh -c '
        cd \(directory)/www; for p in 8010 8012; do python3 -m http.server $p & done; exec sleep 30' > /dev/null 2>&1 & e=$!
      export -f fetch; $h bash -c 'fetch http://127.0.0.1:9510/file; fetch http://127.0.0.1:9512/file; fetch http://[::1]:9510/file
        curl -s --noproxy "*" -m 10 http://127.0.0.1:9511/; echo $?'
      kill $e; wait $e
      """)
    XCTAssertEqual(
      outcome.output, "content-of-file\ncontent-of-file\ncontent-of-file\n7\n", outcome.errors)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      ("-p 8000-8010:8000-8009", "-p: found \"8000-8010:8000-8009\", expected [ADDR:]HOSTPORT:ENCLAVEPORT such as"),
      ("--accept-proxy-protocol", "--accept-proxy-protocol: expected -p with it"),
      (
        "--mode raw --accept-proxy-protocol -p 1:1",
        "--accept-proxy-protocol: in raw mode the program itself has the connection"
      ),
    ] {
      let outcome = bash("\(World.run) \(arguments) -- true", timeout: 15)
      XCTAssertEqual(outcome.status, 125, outcome.errors)
      XCTAssertTrue(outcome.errors.contains(sentence), "\(arguments): \(outcome.errors)")
    }
  }
}
