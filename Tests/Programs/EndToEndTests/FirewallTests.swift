import Foundation
import XCTest

/// Each way in which connections of the program reach the proxy, with each kind of rules: what a program sees is the same.
final class FirewallTests: XCTestCase {
  private let directory = World.directory
  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  private static let script = """
    curl -sS http://web.test:8080/file; curl -sS http://10.9.0.2:8080/file; curl -gsS "http://[fd09::2]:8080/file"
    for a in 10.9.0.2 "[fd09::2]"; do curl -gs -m 10 http://$a:9/; echo "refused $?"; done
    dig +notcp +short web.test; dig +tcp +short web.test AAAA
    for s in iptables-legacy-save ip6tables-legacy-save; do echo "$($s 2>/dev/null | grep -c tombolo) of ours"; done
    """

  /// The rules of "true" leave connections alone that go through the interface; those of "early" redirect them all.
  func testEachWay() {
    for firewall in ["nftables", "xtables"] {
      for connect in ["true", "early"] {
        let outcome = bash(
          """
          printf '[network]\\nfirewall = "\(firewall)"\\nconnect = "\(connect)"\\n[program]\\ncapabilities = ["NET_ADMIN", "NET_RAW"]\\n' > \(directory)/way.toml
          \(World.run) --config \(directory)/way.toml --dns 10.9.0.2 -- sh -c '\(Self.script)'
          """)
        let lines = outcome.output.split(separator: "\n").map(String.init)
        XCTAssertEqual(Array(lines.prefix(3)), Array(repeating: "content-of-file", count: 3), outcome.errors)
        // A client that connects without waiting may find the reset before it has looked whether it is connected.
        let ends = connect == "true" ? ["refused 7"] : ["refused 56", "refused 7"]
        XCTAssertTrue(lines.dropFirst(3).prefix(2).allSatisfy { ends.contains($0) }, outcome.output)
        XCTAssertEqual(Array(lines.dropFirst(5).prefix(2)), ["10.9.0.2", "fd09::2"], outcome.output)
        let counts = lines.dropFirst(7).map { $0 != "0 of ours" }
        XCTAssertEqual(counts, Array(repeating: firewall == "xtables", count: 2), outcome.output + outcome.errors)
      }
    }
  }

  /// Somebody else's rules, of an init above us: they are there as before while we are and afterwards, and a second start in the
  /// same network does not put ours there twice.
  func testOthersRulesStay() {
    let outcome = bash(
      """
      cd \(directory); mkdir -p transport; chmod 755 transport; others=tmb-o-\(World.id)
      printf '[network]\\nfirewall = "xtables"\\ntransport = "unix:%s"\\n[program]\\ncapabilities = ["NET_ADMIN", "NET_RAW"]\\n' $PWD/transport > others.toml
      ip netns exec \(World.host) \(World.tombolo) host --transport unix:$PWD/transport --log-format raw > others.out 2> others.err & h=$!
      for i in $(seq 100); do [ -S transport/host_7766 ] && break; sleep 0.05; done
      ip netns add $others
      for t in iptables ip6tables; do
        ip netns exec $others $t-legacy -t nat -N theirs; ip netns exec $others $t-legacy -t nat -A OUTPUT -p tcp --dport 7 -j theirs
        ip netns exec $others $t-legacy -t nat -A theirs -j RETURN; ip netns exec $others $t-legacy -A OUTPUT -p udp --dport 7 -j DROP
        ip netns exec $others $t-legacy -A INPUT -p tcp --dport 9999 -j REJECT
      done
      saved() { for t in iptables ip6tables; do ip netns exec $others $t-legacy-save | grep -E "$1" | sed 's/\\[[0-9:]*\\]//; s/# .*//' | sort; done; }
      saved 'theirs|dport (7|9999)' > before
      for i in 1 2; do
        ip netns exec $others unshare -mpf --mount-proc \(World.binaries)/tombolo-init --config others.toml -- \\
          sh -c 'curl -sS http://10.9.0.2:8080/file; curl -gsS "http://[fd09::2]:8080/file"; for t in iptables ip6tables; do $t-legacy-save | grep -c tombolo; done' > inside.$i
        saved 'theirs|dport (7|9999)' > after; cmp before after && echo theirs as before
        saved tombolo | grep -c . > ours.$i
      done
      cmp ours.1 ours.2 && echo ours once; [ "$(cat ours.1)" -gt 0 ] && echo ours
      kill $h; wait $h 2>/dev/null; ip netns del $others; cat others.out
      """)
    XCTAssertEqual(
      outcome.output.split(separator: "\n").filter { Int($0) == nil }.map(String.init),
      ["theirs as before", "theirs as before", "ours once", "ours"] + Array(repeating: "content-of-file", count: 4),
      outcome.errors)
  }
}
