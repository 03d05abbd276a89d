import Foundation
import XCTest

/// What an operator learns of a policy that holds: which one it is, what is used, what is denied, and which policy a day of use
/// needs.
final class PolicyRecordTests: XCTestCase {
  private static let directory = World.directory
  private static let tombolo = World.tombolo
  private static let run = World.run + " --dns 10.9.0.3"

  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e; cd \(directory)
      ip -n \(World.server) addr add 10.9.0.3/24 dev v1
      ip netns exec \(World.server) dnsmasq --no-resolv --no-hosts --listen-address=10.9.0.3 --bind-interfaces --local-ttl=60 \
        --host-record=ok.test,10.9.0.2 --host-record=other.test,10.9.0.2 --host-record=asked.test,10.9.0.9 --txt-record=text.test,words \
        --pid-file=\(directory)/names.pid --user=root
      """)
    XCTAssertEqual(made.status, 0, made.errors)
  }

  override class func tearDown() {
    bash("kill $(cat \(directory)/names.pid)")
    World.tearDown()
  }

  /// One number names a policy: before it is in an image, in the enclave's log, and at the host side that serves it.
  func testOneDigestEverywhere() {
    let outcome = bash(
      """
      cd \(Self.directory)
      cat > digest.toml <<'X'
      [egress]
      default = "deny"
      allow = ["*.example.com:443", "API.ok.test", "10.0.0.0/8:5432"]
      deny = ["secret.example.com", "private:22"]
      sni = "require"
      sni_ports = [443, 8443]
      [dns]
      hold = "1m"
      hosts = { "kms.internal" = ["10.0.0.5", "fd00::5"] }
      X
      cat > same.toml <<'X'
      hostname = "other"   # Has nothing to do with it.
      [dns]
      cache = 7
      hold = "60s"
      [dns.hosts]
      "KMS.internal." = ["10.0.0.5", "fd00::5"]
      [egress]
      sni_ports = [8443, 443, 443]
      sni = "require"
      # In another order, and one of them twice.
      deny = ["private:22", "secret.example.com"]
      allow = ["10.0.0.0/8:5432-5432", "api.ok.test.", "*.EXAMPLE.com:443", "api.ok.test"]
      X
      digest() { \(Self.tombolo) check $1 | sed -n 's/^digest //p'; }
      all=$(digest digest.toml); echo "length $(printf %s "$all" | wc -c)"; [ "$(digest same.toml)" = "$all" ] && echo same
      for change in 's/"deny"/"allow"/' 's/:443"/:444"/' 's/"API.ok.test", //' 's/"private:22"/"udp:\\/\\/private:22"/' 's/require/check/' 's/, 8443//' 's/1m/2m/' 's/10.0.0.5/10.0.0.6/'; do
        sed "$change" digest.toml > changed.toml; cmp -s digest.toml changed.toml && echo "no change: $change"
        [ "$(digest changed.toml)" = "$all" ] && echo "the same digest: $change"
      done
      \(Self.run) -v --hostname digest-\(World.id) --config digest.toml -- sh -c 'echo up; exec sleep 60' > out 2> log & p=$!
      for i in $(seq 100); do grep -q up out && break; sleep 0.1; done
      \(Self.tombolo) status digest-\(World.id) | sed -n 's/^ *policy *//p' > status
      \(Self.tombolo) status --json digest-\(World.id) | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["sessions"][0]["policy_digest"])' > json
      kill $p; wait $p
      sed -n 's/^tombolo init: info: policy: //p' log > said
      for place in status json said; do [ "$(cat $place)" = "$all" ] && echo $place; done
      sed 's/allow = \\[/allow = ["10.7.0.1", /' digest.toml > more.toml
      \(Self.run) -v --config digest.toml --allow-destination 10.7.0.1 -- true 2>&1 | grep -c "policy: $(digest more.toml)"
      """)
    XCTAssertEqual(outcome.output, "length 96\nsame\nstatus\njson\nsaid\n1\n", outcome.errors)
  }

  /// Without a section [egress] everything may leave. That is said, and not again when the proxy starts again.
  func testNoSectionIsSaidOnce() {
    let sentence = "the configuration has no section [egress]"
    let outcome = bash(
      """
      cd \(Self.directory)
      printf '[dns]\\ncache = 5\\n' > without.toml; printf '[egress]\\ndefault = "allow"\\n' > open.toml
      again='kill -9 2; until curl -sf -m 5 http://10.9.0.2:8080/file; do sleep 0.1; done'
      said() { echo "$1 $(grep -cF "$1: \(sentence)" log)"; }
      \(Self.run) --config without.toml -- bash -c "$again" 2> log; said warning
      \(Self.run) --log-format json --config without.toml -- true > log; said warning
      \(Self.run) -v --config open.toml -- true 2> log; said warning; said info
      \(Self.run) --mode none --config without.toml -- true 2> log; said warning
      # Without a configuration there is none that lacks something: only who asks is told.
      \(Self.run) -- true 2> log; said warning; \(Self.run) -v -- true 2> log; said info
      """)
    XCTAssertEqual(
      outcome.output,
      "content-of-file\nwarning 1\nwarning 1\nwarning 0\ninfo 0\nwarning 0\nwarning 0\ninfo 1\n", outcome.errors)
  }

  /// From the log of a day on which everything was allowed comes a policy under which the same programs work, and nothing else.
  func testAPolicyFromALog() {
    let day = """
      curl -sS --noproxy '*' http://ok.test:8080/file
      python3 -c 'import urllib.request as u; print(u.urlopen("http://[fd09::2]:8080/file").read().decode(), end="")'
      node -e 'fetch("http://ok.test:8080/file").then(r => r.text()).then(t => process.stdout.write(t))'
      dig +short text.test TXT; getent ahostsv4 asked.test | head -1 | cut -d' ' -f1; getent hosts missing.test
      curl -s -m 5 http://169.254.169.254/; [ $? = 0 ] || echo "no metadata"
      """
    let outcome = bash(
      """
      cd \(Self.directory)
      cat > day.sh <<'X'
      \(day)
      X
      printf '[egress]\\ndefault = "allow"\\n' > open.toml
      day() { \(Self.run) -v "$@" -- bash day.sh; }
      for form in json text; do day --log-format $form --config open.toml > day.log 2> errors; \(Self.tombolo) check --suggest day.log > $form.toml || cat errors; done
      \(Self.tombolo) check --seen day.log | sed 's#/32, .*#/32#'
      day --config open.toml > first 2> day.log; \(Self.tombolo) check --suggest day.log > raw.toml 2> warning
      cut -d: -f3 warning
      cat raw.toml; cmp raw.toml json.toml; cmp raw.toml text.toml
      day --config raw.toml > second 2> errors; cmp first second || cat errors; cat second
      \(Self.run) --config raw.toml -- bash -c 'for url in http://other.test:8080/file http://10.9.0.2:8080/file http://ok.test:8081/; do curl -s -m 5 --noproxy "*" $url || echo refused; done' 2>/dev/null
      """, timeout: 120)
    XCTAssertEqual(
      outcome.output,
      """
      used [fd09::2]:8080: egress.default is "allow"
      used dns asked.test: egress.default is "allow"
      used dns ok.test: egress.default is "allow"
      used dns text.test: egress.default is "allow"
      used ok.test:8080: egress.default is "allow"
      denied 169.254.169.254:80: built-in rule "metadata": it is in 169.254.169.254/32
       this log has the form "raw", in which the program can have written any of these lines itself
      # What day.log says was used.
      [egress]
      default = "deny"
      allow = [
        "[fd09::2]:8080",
        "icmp://asked.test",  # was asked for, and nothing connected to it
        "icmp://text.test",  # was asked for, and nothing connected to it
        "ok.test:8080",
      ]
      content-of-file
      content-of-file
      content-of-file
      "words"
      10.9.0.9
      no metadata
      refused
      refused
      refused

      """, outcome.errors)
  }

  /// What is in use, and what either side has refused, with its number, while it runs.
  func testStatusListsWhatIsUsedAndDenied() {
    let outcome = bash(
      """
      cd \(Self.directory)
      printf '[egress]\\nallow = ["ok.test:8080", "other.test"]\\n' > inside.toml; printf '[egress]\\nallow = ["ok.test"]\\n' > host.toml
      \(Self.run) --hostname seen-\(World.id) --config inside.toml --policy host.toml -- bash -c '
        for i in 1 2 3; do curl -s --noproxy "*" http://ok.test:8080/file; done; for i in 1 2; do curl -s -m 5 http://10.9.0.9:9/; done
        getent hosts other.test; dig missing.test > /dev/null; echo up; exec sleep 60' > out 2> log & p=$!
      for i in $(seq 100); do grep -q up out && break; sleep 0.1; done
      # The log comes by a way of its own.
      for i in $(seq 50); do \(Self.tombolo) status seen-\(World.id) | grep -q missing && break; sleep 0.1; done
      \(Self.tombolo) status seen-\(World.id) | sed -nE 's/^ *(used|denied) +/\\1 /p' | sed -E 's/[0-9]+ × dns/N × dns/' | sort
      \(Self.tombolo) status --json seen-\(World.id) | python3 -c '
      import json, sys
      [s] = json.load(sys.stdin)
      print([d["count"] for d in s["used"]["list"] if d["destination"] == "ok.test:8080"], s["used"]["others"])
      print([(d["count"], d["side"]) for d in s["denied"]["list"] if d["destination"] == "10.9.0.9:9"])'
      kill $p; wait $p
      """)
    XCTAssertEqual(
      outcome.output,
      """
      denied 2 × 10.9.0.9:9 (enclave: no rule of egress.allow names it)
      denied N × dns missing.test (enclave: no rule of egress.allow names it)
      denied N × dns other.test (host: no rule of egress.allow names it)
      used 3 × ok.test:8080
      used N × dns ok.test
      [3] 0
      [(2, 'enclave')]

      """, outcome.errors)
  }
}
