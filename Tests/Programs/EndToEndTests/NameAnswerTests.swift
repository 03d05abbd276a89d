import Foundation
import XCTest

/// Answers of unbound, as programs in an enclave with a policy get them.
final class NameAnswerTests: XCTestCase {
  private static let directory = World.directory

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e; cd \(directory)
      ip -n \(World.server) addr add 10.9.0.4/24 dev v1; long=$(printf 'x%.0s' $(seq 250))
      cat > unbound.conf <<X
      server:
        interface: 10.9.0.4
        access-control: 0.0.0.0/0 allow
        chroot: ""
        username: ""
        use-syslog: no
        directory: "\(directory)"
        pidfile: "\(directory)/unbound.pid"
        module-config: "iterator"
        local-zone: "test." static
        local-data: "ok.test. 300 IN A 10.9.0.2"
        local-data: "long.test. 100000 IN A 10.9.0.2"
        local-data: "zero.test. 0 IN A 10.9.0.2"
        local-data: "bad.test. 60 IN A 10.9.0.2"
        local-data: "bad.test. 60 IN A 169.254.169.254"
        local-data: "svc.test. 60 IN HTTPS 1 . alpn=h2 ipv4hint=10.9.0.2,127.0.0.1 ech=AEX+DQBBTQAgACAk"
        local-data: "_8443._foo.svc.test. 60 IN SVCB 1 svc.test. port=8443 ech=AEX+DQBBTQAgACAk ipv6hint=fe80::1,fd09::2"
        local-data: "mail.test. 60 IN MX 10 ok.test."
        local-data: 'long.test. 60 IN TXT "$long" "$long" "$long" "$long" "$long" "$long"'
        local-data-ptr: "10.9.0.2 ok.test"
      remote-control:
        control-enable: no
      X
      ip netns exec \(World.server) unbound -c unbound.conf
      for i in $(seq 50); do ip netns exec \(World.host) dig +short +time=1 +tries=1 @10.9.0.4 ok.test | grep -q 10.9 && break; sleep 0.1; done
      """)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("kill $(cat \(directory)/unbound.pid)")
    World.tearDown()
  }

  func testAnswers() {
    let outcome = bash(
      """
      cat > \(Self.directory)/answers.toml <<'X'
      [egress]
      default = "deny"
      allow = ["*.test"]
      sni = "check"
      [dns]
      hold = "2s"
      X
      cat > \(Self.directory)/answers.sh <<'X'
      dig +short svc.test HTTPS; dig +short bad.test; dig +short mail.test MX; dig +short +dnssec ok.test
      dig none.test | grep -o 'status: [A-Z]*'
      ttl() { dig +noall +answer $1 | awk '{ print $1, $2 }'; }
      ttl zero.test; ttl long.test
      first=$(dig +noall +answer ok.test | awk '{ print $2 }'); sleep 1.1; second=$(dig +noall +answer ok.test | awk '{ print $2 }')
      [ "$second" -lt "$first" ] && echo counted down
      dig +short oK.TeSt | head -1; dig +noall +question oK.TeSt | grep -o 'oK.TeSt'
      fetch() { curl -sS --noproxy '*' --max-time 10 "$@" 2>/dev/null || echo refused; }
      fetch http://zero.test:8080/file
      dig +short _8443._foo.svc.test SVCB
      # Cut where there is no room, whole over TCP, and in a larger datagram.
      flags() { dig "$@" | grep -oE 'flags: [a-z ]*;|EDNS: version: 0|status: [A-Z]*' | grep -oE ' tc|EDNS|status.*' | paste -sd ' '; }
      flags +ignore +noedns long.test TXT; flags +ignore +bufsize=4000 long.test TXT; dig +short +noedns long.test TXT | wc -c
      flags +noedns ok.test; flags +nsid +cookie=0123456789abcdef +subnet=10.0.0.0/8 ok.test
      # RFC 6761; and the name of an address is for who may reach it.
      dig +short a.localhost; dig +short localhost AAAA; dig +short -x 127.0.0.1; dig +short -x ::1; flags +noedns a.invalid
      dig +short -x 10.9.0.2; flags +noedns -x 10.66.0.1
      X
      ip netns exec \(World.host) \(World.tombolo) run --dns 10.9.0.4 --config \(Self.directory)/answers.toml -- bash \(Self.directory)/answers.sh
      """)
    // The hint that is denied and the keys of ECH are gone; a day's TTL is an hour.
    XCTAssertEqual(
      outcome.output,
      """
      1 . alpn="h2" ipv4hint=10.9.0.2
      10.9.0.2
      10 ok.test.
      10.9.0.2
      status: NXDOMAIN
      zero.test. 0
      long.test. 3600
      counted down
      10.9.0.2
      oK.TeSt
      content-of-file
      1 svc.test. port=8443 ipv6hint=fd09::2
      status: NOERROR  tc
      status: NOERROR EDNS
      1518
      status: NOERROR
      status: NOERROR EDNS
      127.0.0.1
      ::1
      localhost.
      localhost.
      status: NXDOMAIN
      ok.test.
      status: REFUSED

      """, outcome.errors)
  }
}
