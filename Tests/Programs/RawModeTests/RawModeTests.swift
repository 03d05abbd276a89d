import Foundation
import XCTest

/// Raw mode as a user meets it: whole enclaves, unmodified programs, hosts in other namespaces.
final class RawModeTests: XCTestCase {
  override class func setUp() { RawWorld.setUp() }
  override class func tearDown() { RawWorld.tearDown() }

  private func check(
    _ script: String, _ expected: String, timeout: TimeInterval = 60, file: StaticString = #filePath, line: UInt = #line
  ) {
    let outcome = RawWorld.bash(script, timeout: timeout, file: file, line: line)
    XCTAssertEqual(outcome.output, expected, outcome.errors, file: file, line: line)
  }

  // MARK: out of the enclave

  func testCurlFetchesOverIPv4AndIPv6() {
    check(
      "run -- sh -c 'curl -sS http://10.8.0.2:8080/file; curl -gsS http://[fd08::2]:8080/file'",
      "content-of-file\ncontent-of-file\n")
  }

  func testPing() {
    check("run -- ping -c 3 -i 0.2 -q 10.8.0.2 | grep -o '[0-9]* received'", "3 received\n")
    check("run -- ping -c 3 -i 0.2 -q fd08::2 | grep -o '[0-9]* received'", "3 received\n")
  }

  /// UDP by itself, and the resolver's way through resolv.conf.
  func testNamesResolve() {
    check(
      "run -- sh -c 'dig +short @10.8.0.2 web.test; dig +tcp +short web.test AAAA; curl -sS http://web.test:8080/file'",
      "10.8.0.2\nfd08::2\ncontent-of-file\n")
  }

  /// Without --dns: the host's own resolver behind the link's address, also where it is on the host's loopback.
  func testTheHostsResolverAnswers() {
    check(
      """
      mkdir -p /etc/netns/\(RawWorld.host); echo nameserver 127.0.0.1 > /etc/netns/\(RawWorld.host)/resolv.conf
      $H dnsmasq --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces --host-record=loop.test,10.8.0.2 \
        --txt-record=big.test,$(printf 'x%.0s' $(seq 250)),$(printf 'y%.0s' $(seq 250)),$(printf 'z%.0s' $(seq 250)) \
        --pid-file=$D/loop.pid --user=root
      $H $T run --mode raw -- sh -c 'cat /etc/resolv.conf; curl -sS http://loop.test:8080/file; dig +tcp +short loop.test; dig +noedns +ignore big.test TXT | grep -c "flags:.* tc "; dig +noedns +short big.test TXT | wc -c'
      kill $(cat $D/loop.pid); rm -r /etc/netns/\(RawWorld.host)
      """, "nameserver 169.254.53.53\ncontent-of-file\n10.8.0.2\n1\n759\n")
  }

  func testIperfOverUDP() {
    check(
      """
      $S iperf3 -s -1 -D >/dev/null; sleep 0.5
      run -- iperf3 -u -b 50M -t 1 -c 10.8.0.2 -J | python3 -c 'import json,sys; e=json.load(sys.stdin)["end"]["sum"]; print(e["bytes"] > 5000000, e["lost_packets"] < 100)'
      """, "True True\n")
  }

  func testOneGibibyteArrivesUnchangedBothWays() {
    let sum = RawWorld.bash("cat $D/big.sum").output
    check("run -- sh -c 'curl -sS http://10.8.0.2:8080/big | sha256sum | cut -d\" \" -f1'", sum, timeout: 120)
    check(
      "run -- curl -sS -T $D/www/big http://10.8.0.2:8080/up/big && sha256sum $D/www/up/big | cut -d' ' -f1; rm -f $D/www/up/big",
      sum, timeout: 120)
  }

  // MARK: faithful

  func testRefusalsAndTimeOuts() {
    check(RawWorld.refusalsAndTimeOuts("run"), "ConnectionRefusedError True\nTimeoutError True\n")
  }

  func testHalfCloseBothWaysAndReset() {
    check(RawWorld.halfCloseBothWaysAndReset("run"), "after its end: second\ngot half\nfirst\nreset\n")
  }

  /// A router on the way has a smaller MTU: without ICMP's answer large segments would vanish.
  func testPathMTUIsFound() {
    check(
      """
      ip -n \(RawWorld.host) link set v0 mtu 1300
      run -- sh -c 'curl -sS --max-time 10 -T /usr/bin/curl -o /dev/null -w "%{http_code}\n" http://10.8.0.2:8080/up/mtu; ip route get 10.8.0.2 | grep -o "mtu [0-9]*"'
      ip -n \(RawWorld.host) link set v0 mtu 1500; rm -f $D/www/up/mtu
      """, "201\nmtu 1300\n")
  }

  // MARK: into the enclave

  /// nginx, unmodified, writes the client's own address into its log.
  func testPublishedPortsShowTheClient() {
    check(
      """
      cat > $D/inside.conf <<X
      daemon off; pid /tmp/nginx.pid; error_log stderr; events {}
      http { access_log /dev/stdout; server { listen 80; listen [::]:80; location / { return 200 "hello\\n"; } } }
      X
      $H $T run --mode raw -p 8081:80 -p [::]:8081:80 -- nginx -c $D/inside.conf > $D/access & p=$!
      for i in $(seq 50); do $S curl -s -o /dev/null http://10.8.0.1:8081/ && break; sleep 0.1; done
      $S curl -gsS http://[fd08::1]:8081/; $H curl -sS http://127.0.0.1:8081/
      # What is not published is closed, also for those who know the way.
      $S ip route add 10.118.0.0/16 via 10.8.0.1; $S curl -s --max-time 5 http://10.118.0.2:81/; echo $?
      kill $p; wait $p
      cut -d' ' -f1 $D/access | sort -u
      """, "hello\nhello\n7\n10.118.0.1\n10.8.0.2\nfd08::2\n")
  }

  func testTwoEnclavesAtOnceHaveAddressesOfTheirOwn() {
    check(
      """
      for i in 1 2; do run -- sh -c 'hostname -I | cut -d" " -f1; sleep 2; curl -sS http://10.8.0.2:8080/file' > $D/two.$i & done
      sleep 1.5; $H nft list tables | wc -l
      wait; sort $D/two.1 $D/two.2 | uniq
      """, "4\n10.118.0.2\n10.118.0.6\ncontent-of-file\n")
  }

  // MARK: leaving no trace

  func testEverythingIsAsBefore() {
    check(
      """
      snapshot > $D/before
      run -p 8082:80 -- curl -sS http://10.8.0.2:8080/file
      snapshot > $D/after; diff $D/before $D/after && echo same; ls /run/tombolo 2>/dev/null | grep -c "$($H stat -Lc %i /proc/self/ns/net)"
      """, "content-of-file\nsame\n0\n")
  }

  /// A killed host daemon leaves rules and forwarding behind; its next start takes them away.
  func testTheNextStartCleansUpAfterSIGKILL() {
    check(
      """
      snapshot > $D/before
      $H $T run --mode raw -p 8083:80 -- sleep 100 & p=$!
      sleep 1.5; kill -9 $p; wait $p
      $H nft list tables; $H sysctl -n net.ipv4.ip_forward
      run -- true
      snapshot > $D/after; diff $D/before $D/after && echo same
      """, "table ip tombolo0\ntable ip6 tombolo0\n1\nsame\n")
  }

  /// The program's own TCP bridges the time without a host.
  func testADownloadSurvivesARestartOfTheHost() {
    let sum = RawWorld.bash("cat $D/big.sum").output
    check(
      """
      mkdir -p $D/transport; printf '[network]\\nmode = "raw"\\ntransport = "unix:%s"\\n' $D/transport > $D/child.toml
      host() { $H $T host --transport unix:$D/transport --raw >> $D/host.log 2>&1 & h=$!; }
      host; sleep 0.5
      unshare -n $I --config $D/child.toml -- sh -c "curl -sS http://10.8.0.2:8080/slow | sha256sum | cut -d' ' -f1 > $D/restarted" & e=$!
      sleep 3; kill -9 $h; wait $h; sleep 1; host
      timeout 60 tail --pid=$e -f /dev/null; cat $D/restarted; kill $e $h; wait
      """, sum, timeout: 100)
  }

  /// A program between the two Unix sockets passes bytes and not the memory that packets go through: then they must go over
  /// the stream, and `tombolo status` must not say otherwise.
  func testARelayBetweenTheSocketsPassesNoMemory() {
    check(
      """
      mkdir -p $D/transport $D/relayed
      printf '[network]\\nmode = "raw"\\nqueues = 1\\ntransport = "unix:%s"\\n' $D/relayed > $D/child.toml
      $H $T host --transport unix:$D/transport --raw > $D/host.log 2>&1 & h=$!
      for i in $(seq 50); do [ -S $D/transport/host_7766 ] && break; sleep 0.1; done
      socat UNIX-LISTEN:$D/relayed/host_7766,fork,mode=777 UNIX-CONNECT:$D/transport/host_7766 & s=$!
      seen() {
        unshare -n $I --config $D/child.toml -- sh -c "curl -sS http://10.8.0.2:8080/file > $D/fetched; sleep 2" & e=$!
        sleep 1.5; $T status $h | grep -c "queue 0.*shared memory"; wait $e; cat $D/fetched; rm $D/fetched
      }
      seen; grep -c 'was lost: the memory was not taken' $D/host.log
      kill $s; wait $s; rm -rf $D/relayed; ln -s $D/transport $D/relayed
      seen; grep -c 'was lost: the memory was not taken' $D/host.log; kill $h; wait $h
      rm -rf $D/relayed $D/transport
      """,
      """
      0
      content-of-file
      1
      1
      content-of-file
      1

      """, timeout: 30)
  }

  // MARK: rights

  func testWithoutRightsASentenceSaysSo() {
    let outcome = RawWorld.bash(
      "setpriv --reuid 65534 --regid 65534 --clear-groups $T run --mode raw -- true; echo $?")
    XCTAssertEqual(outcome.output, "125\n")
    XCTAssertTrue(outcome.errors.contains("needs root or CAP_NET_ADMIN"), outcome.errors)
  }
}
