import Foundation
import XCTest

/// What an enclave must not reach unless somebody says so: the parent's credentials, its services, and what is no machine's
/// address. With real servers at those addresses, so that a hole would be seen.
final class DestinationTests: XCTestCase {
  private let run = World.run
  private let directory = World.directory

  /// S has the addresses of clouds' metadata, and H a way to them: without a denial each would answer.
  override class func setUp() {
    World.setUp(bigFile: false)
    let made = bash(
      """
      set -e
      for a in 169.254.169.254 100.100.100.200 168.63.129.16 198.51.100.7; do
        ip -n \(World.server) addr add $a/32 dev lo; ip -n \(World.host) route add $a via 10.9.0.2
      done
      for a in fd00:ec2::254 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1; do
        ip -n \(World.server) addr add $a/128 dev lo nodad; ip -n \(World.host) route add $a via fd09::2
      done
      for a in 169.254.169.254 [fd00:ec2::254] [64:ff9b::a9fe:a9fe]; do
        ip netns exec \(World.host) curl -gsS --noproxy '*' --max-time 5 http://$a:8080/file
      done
      cat > \(World.directory)/dial.py <<'X'
      import socket, sys, time
      for word in sys.argv[1:]:
          host, port = word.rsplit(":", 1); start = time.time()
          try:
              s = socket.create_connection((host.strip("[]"), int(port)), 5); s.sendall(b"GET /file HTTP/1.0\\r\\n\\r\\n")
              answer = s.makefile("rb").read()
              print(word, "answered" if answer.endswith(b"content-of-file\\n") else "ended", flush=True)
          except OSError as e:
              print(word, "refused" if time.time() - start < 1 else "hung: " + str(e), flush=True)
      X
      """)
    XCTAssertEqual(made.output, String(repeating: "content-of-file\n", count: 3), made.errors)
  }
  override class func tearDown() { World.tearDown() }

  private static let special = [
    "169.254.169.254", "[64:ff9b::a9fe:a9fe]", "169.254.170.2", "169.254.1.1", "100.100.100.200", "168.63.129.16",
    "192.0.0.192", "198.51.100.7", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1",
    "[::ffff:169.254.169.254]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[fd20:ce::254]", "[2001:db8::1]", "[100::1]",
    "[ff0e::1]", "[4000::1]",
  ].map { $0 + ":8080" }

  /// connect(2) itself fails for these, before there is a packet that anybody could log.
  private static let kernels = ["255.255.255.255:8080", "224.0.0.1:8080", "[ff0e::1]:8080"]

  /// Refused inside already, at once, each with the reason in the log, and an ordinary address beside them.
  func testSpecialDestinationsAreRefused() {
    XCTAssertEqual(Self.special.count, 20)
    // As many as there are lines for at once: a flood is a few.
    for some in [Self.special.prefix(10), Self.special.suffix(10)] {
      let outcome = bash(
        "\(run) -v -- python3 \(directory)/dial.py \(some.joined(separator: " ")) 10.9.0.2:8080 [fd09::2]:8080")
      let expected = some.map { "\($0) refused\n" } + ["10.9.0.2:8080 answered\n", "[fd09::2]:8080 answered\n"]
      XCTAssertEqual(outcome.output, expected.joined(), outcome.errors)
      for destination in some where !Self.kernels.contains(destination) {
        // A mapped address is IPv4 for the kernel.
        let shown = destination.replacingOccurrences(of: "[::ffff:169.254.169.254]", with: "169.254.169.254")
        XCTAssertTrue(
          outcome.errors.contains("egress to \(shown) denied: built-in rule \""), destination + outcome.errors)
      }
    }
    let outcome = bash(
      "\(run) -v -- python3 \(directory)/dial.py 169.254.169.254:8080 [64:ff9b::a9fe:a9fe]:8080 [2002:a9fe:a9fe::1]:8080"
    )
    XCTAssertTrue(
      outcome.errors.contains(
        "egress to 169.254.169.254:8080 denied: built-in rule \"metadata\": it is in 169.254.169.254/32, metadata of AWS"
      ),
      outcome.errors)
    XCTAssertTrue(
      outcome.errors.contains("denied: built-in rule \"metadata\": it stands for 169.254.169.254"), outcome.errors)
  }

  /// The host's side is asked by itself: an image that allows itself everything gets no further.
  func testTheHostRefusesWhatTheImageAllows() {
    let outcome = bash(
      """
      cat > \(directory)/open.toml <<'X'
      [egress]
      default = "allow"
      allow = ["169.254.169.254", "100.100.100.200:8080", "168.63.129.16", "198.51.100.0/24", "fd00:ec2::254"]
      X
      \(run) --config \(directory)/open.toml -- python3 \(directory)/dial.py 169.254.169.254:8080 [64:ff9b::a9fe:a9fe]:8080 \
        [fd00:ec2::254]:8080 198.51.100.7:8080 [::ffff:169.254.169.254]:8080 [2002:a9fe:a9fe::1]:8080 100.100.100.200:8080 \
        168.63.129.16:8080 10.9.0.2:8080
      """)
    let lines = outcome.output.split(separator: "\n")
    XCTAssertEqual(lines.count, 9, outcome.errors)
    XCTAssertTrue(lines.dropLast().allSatisfy { $0.hasSuffix(" refused") }, outcome.output + outcome.errors)
    XCTAssertEqual(lines.last, "10.9.0.2:8080 answered")
    for address in ["169.254.169.254:8080", "[64:ff9b::a9fe:a9fe]:8080", "[fd00:ec2::254]:8080"] {
      XCTAssertTrue(
        outcome.errors.contains("tombolo: connection to \(address) denied: built-in rule \"metadata\""), outcome.errors)
    }
    XCTAssertTrue(outcome.errors.contains("connection to 198.51.100.7:8080 denied: built-in rule \"reserved\""))
  }

  /// Who means it gets it, on that port, in each form.
  func testAnAllowedDestinationAnswers() {
    let outcome = bash(
      """
      \(run) --allow-destination 169.254.169.254:8080 --allow-destination '[fd00:ec2::254]' -- python3 \(directory)/dial.py \
        169.254.169.254:8080 [64:ff9b::a9fe:a9fe]:8080 [fd00:ec2::254]:8080 169.254.169.254:8081 100.100.100.200:8080
      """)
    XCTAssertEqual(
      outcome.output,
      """
      169.254.169.254:8080 answered
      [64:ff9b::a9fe:a9fe]:8080 answered
      [fd00:ec2::254]:8080 answered
      169.254.169.254:8081 refused
      100.100.100.200:8080 refused

      """, outcome.errors)
  }

  /// The parent's own services, also at an address that it has got a moment ago.
  func testTheMachinesOwnAddresses() {
    let outcome = bash(
      """
      cd \(directory)/www; ip netns exec \(World.host) python3 -m http.server 7100 --bind :: >/dev/null 2>&1 & server=$!
      for i in $(seq 50); do ip netns exec \(World.host) curl -sS --noproxy '*' http://10.9.0.1:7100/file >/dev/null 2>&1 && break; sleep 0.1; done
      rm -f \(directory)/go \(directory)/first
      \(run) --hostname own -- sh -c 'python3 \(directory)/dial.py 10.9.0.1:7100 [fd09::1]:7100 [::ffff:10.9.0.1]:7100
        touch \(directory)/inside; echo waiting; while ! curl -sS -o /dev/null http://10.9.0.2:8080/go 2>/dev/null || [ "$(curl -s -o /dev/null -w %{http_code} http://10.9.0.2:8080/go)" != 200 ]; do sleep 0.05; done
        python3 \(directory)/dial.py 10.9.7.7:7100 [fd09:7::7]:7100 10.9.0.2:8080' > \(directory)/first 2> \(directory)/first.err & enclave=$!
      for i in $(seq 100); do grep -qs waiting \(directory)/first && break; sleep 0.1; done
      ip -n \(World.host) addr add 10.9.7.7/32 dev v0; ip -n \(World.host) addr add fd09:7::7/128 dev v0 nodad
      ip netns exec \(World.host) curl -sS --noproxy '*' http://10.9.7.7:7100/file
      \(World.tombolo) status --json own | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["traffic"]["outgoing"]["denied"])'
      touch \(directory)/www/go; wait $enclave; cat \(directory)/first; grep -c 'denied: built-in rule "host": it is an address of this machine' \(directory)/first.err
      \(run) --allow-host-ports 7100 -- python3 \(directory)/dial.py 10.9.0.1:7100 [fd09::1]:7100 10.9.7.7:7100
      \(run) --allow-destination 10.9.0.1:7100 -- python3 \(directory)/dial.py 10.9.0.1:7100 10.9.7.7:7100
      rm \(directory)/www/go; kill $server
      ip -n \(World.host) addr del 10.9.7.7/32 dev v0; ip -n \(World.host) addr del fd09:7::7/128 dev v0
      """)
    XCTAssertEqual(
      outcome.output,
      """
      content-of-file
      3
      10.9.0.1:7100 refused
      [fd09::1]:7100 refused
      [::ffff:10.9.0.1]:7100 refused
      waiting
      10.9.7.7:7100 refused
      [fd09:7::7]:7100 refused
      10.9.0.2:8080 answered
      5
      10.9.0.1:7100 answered
      [fd09::1]:7100 answered
      10.9.7.7:7100 answered
      10.9.0.1:7100 answered
      10.9.7.7:7100 refused

      """, outcome.errors)
  }

  /// A program that tries again and again must not fill the log.
  func testAFloodIsAFewLines() {
    let outcome = bash(
      """
      \(run) -- python3 -c '
      import socket
      for i in range(2000):
          try: socket.create_connection(("169.254.169.254", 8080), 5).recv(1)
          except OSError: pass'
      """)
    let lines = outcome.errors.split(separator: "\n").filter { $0.contains("denied") }
    XCTAssertTrue((10...60).contains(lines.count), outcome.errors)
  }

  func testMistakesAreSaid() {
    for (arguments, sentence) in [
      (
        "--allow-destination example.com", "--allow-destination: found \"example.com\", expected an address or a prefix"
      ),
      (
        "--allow-destination 10.0.0.1/8",
        "--allow-destination: found \"10.0.0.1/8\", expected 10.0.0.0/8, or 10.0.0.1 alone"
      ),
      ("--allow-host-ports 80,x", "--allow-host-ports: found \"80,x\", expected ports such as 5432,8000-8009"),
    ] {
      let outcome = bash("\(run) \(arguments) -- true")
      XCTAssertEqual(outcome.status, 125)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }
}
