import Foundation
import XCTest

/// What `--log-format` makes of real programs' output, read by those who read logs: Python's json, a terminal's rules.
final class LogTests: XCTestCase {
  let run = World.run
  let directory = World.directory
  override class func setUp() { World.setUp(bigFile: false) }
  override class func tearDown() { World.tearDown() }

  func testLogFormats() {
    let text = bash("\(run) --log-format text -- sh -c 'echo one; printf two'").output
    let time = #"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"#
    XCTAssertNotNil(
      text.range(
        of: "^\(time) \(time) \\d+ stdout \\| one\n\(time) \(time) \\d+ stdout \\| two\n", options: .regularExpression),
      text)
    let json = bash("\(run) --log-format json -- sh -c 'echo \"a\\\"b\" >&2; exit 5'").output
    let objects = json.split(separator: "\n").map {
      (try? JSONSerialization.jsonObject(with: Data($0.utf8))) as? [String: Any] ?? [:]
    }
    XCTAssertEqual(objects.count, 2, json)
    XCTAssertEqual(objects.first?["line"] as? String, "a\"b", json)
    XCTAssertEqual(objects.first?["source"] as? String, "stderr")
    XCTAssertEqual(objects.last?["event"] as? String, "exit", json)
    XCTAssertEqual(objects.last?["status"] as? Int, 5)
    // One machine, one clock; and the records count on.
    for object in objects {
      let received = object["received"] as? String ?? ""
      XCTAssertNotNil(received.range(of: "^\(time)$", options: .regularExpression), json)
      XCTAssertLessThanOrEqual(object["time"] as? String ?? "~", received)
    }
    XCTAssertLessThan(objects.first?["sequence"] as? Int ?? .max, objects.last?["sequence"] as? Int ?? 0)
  }

  /// A program that writes anything at all: its log is read line by line, and nothing of it is lost on the way.
  func testAnyBytesAreReadBackFromJSON() {
    let outcome = bash(
      """
      cd \(directory); python3 -c 'import os, sys; sys.stdout.buffer.write(b"".join(os.urandom(199) + b"\\xc2\\x9b\\xe2\\x80\\xae\\xed\\xa0\\x80" for _ in range(10000)))' > noise
      \(run) --log-format json -- cat \(directory)/noise > noise.json; echo $?
      python3 - <<'X'
      import base64, json
      parts = []
      for line in open("noise.json", "rb"):
          assert not any(b < 0x20 or b == 0x7f for b in line[:-1]), line
          record = json.loads(line)
          assert not set(map(chr, range(0x80, 0xa0))) & set(line.decode()), line
          if "event" in record: continue
          parts.append(base64.b64decode(record["base64"], validate=True) if "base64" in record else record["line"].encode())
          assert "base64" not in record or parts[-1].decode(errors="replace") == record["line"]
      print(b"\\n".join(parts) == open("noise", "rb").read())
      X
      rm noise noise.json
      """, timeout: 60)
    XCTAssertEqual(outcome.output, "0\nTrue\n", outcome.errors)
  }

  /// A program that is not trusted writes to an operator's terminal: title, cursor, colours and what hides its own line's
  /// beginning arrive as characters that can be read.
  func testATerminalIsNotObeyed() {
    let outcome = bash(
      #"""
      cd \#(directory); printf '\033]0;owned\007\rforged | line\302\233 \342\200\256txt.exe\177\b\n\377\n' > hostile
      \#(run) --log-format text -- cat \#(directory)/hostile | cut -d' ' -f4- | head -2; head -c 2000000 /dev/urandom > hostile
      \#(run) --log-format text -- cat \#(directory)/hostile > hostile.text
      LC_ALL=C tr -d '\n\t\040-\176\200-\377' < hostile.text | wc -c; iconv -f UTF-8 -t UTF-8 hostile.text | cmp - hostile.text && echo UTF-8
      rm hostile hostile.text
      """#, timeout: 60)
    XCTAssertEqual(
      outcome.output,
      #"""
      stdout | \x1b]0;owned\x07\x0dforged | line\u{9b} \u{202e}txt.exe\x7f\x08
      stdout | \xff
      0
      UTF-8

      """#, outcome.errors)
  }

  /// A daemon that is killed while whoever reads its output is slow: the next one gets from the enclave what was not written.
  func testAKilledDaemonWithASlowReaderLosesNoLine() {
    let outcome = bash(
      #"""
      cd \#(directory); mkdir -p killed; chmod 755 killed; mkfifo killed.pipe
      printf '[network]\ntransport = "unix:%s"\n[logs]\ndrain = "60s"\n' $PWD/killed > killed.toml
      start() { ip netns exec \#(World.host) \#(World.tombolo) host --transport unix:$PWD/killed --log-format raw 2>> killed.err & h=$!; }
      there() { for i in $(seq 100); do [ -S killed/host_7766 ] && break; sleep 0.05; done; }
      sleep 60 < killed.pipe & r=$!
      start > killed.pipe; exec 3< killed.pipe; there
      unshare -n \#(World.binaries)/tombolo-init --config killed.toml -- sh -c 'seq 30000; echo done > \#(directory)/killed.done; exit 4' & e=$!
      for i in $(seq 100); do [ -e killed.done ] && break; sleep 0.1; done; sleep 1
      kill -9 $h; wait $h 2>/dev/null; kill $r; cat <&3 > killed.first; exec 3<&-; rm -f killed/host_7766
      start > killed.second; there; wait $e; echo "status $?"
      for i in $(seq 100); do grep -q "status 4" killed.err && break; sleep 0.1; done; kill $h; wait $h
      python3 - <<'X'
      whole = b"".join(b"%d\n" % number for number in range(1, 30001))
      first, second = (open(f"killed.{part}", "rb").read() for part in ("first", "second"))
      print(len(first) > 0, whole.startswith(first), whole.endswith(second), len(first) + len(second) >= len(whole))
      X
      rm -r killed killed.*
      """#, timeout: 60)
    XCTAssertEqual(outcome.output, "status 4\nTrue True True True\n", outcome.errors)
  }

  /// A hostile enclave, or whoever can reach the socket, fills no disk with the daemon's complaints; each is counted.
  func testAFloodOfComplaintsIsAFewLines() {
    let outcome = bash(
      #"""
      cd \#(directory); mkdir -p flood; chmod 755 flood
      ip netns exec \#(World.host) \#(World.tombolo) host --transport unix:$PWD/flood > flood.out 2> flood.err & h=$!
      for i in $(seq 100); do [ -S flood/host_7766 ] && break; sleep 0.1; done
      python3 - <<'X'
      import socket
      old = bytes.fromhex("544d424c01")
      for number in range(1500):
          s = socket.socket(socket.AF_UNIX); s.connect("flood/host_7766")
          s.sendall(b"GET / HTTP/1.0\r\n" if number % 3 else old); s.recv(100); s.close()
      X
      kill $h; wait $h; cat flood.err; rm -r flood flood.out flood.err
      """#, timeout: 60)
    let lines = outcome.output.split(separator: "\n")
    func count(_ what: String, _ remainder: String) -> Int {
      lines.count { $0.contains(what) }
        + lines.filter { $0.contains("\(remainder): … and ") }
        .compactMap { $0.split(separator: " ").drop { $0 != "and" }.dropFirst().first }.compactMap { Int($0) }
        .reduce(0, +)
    }
    XCTAssertEqual(
      count("a stream from the enclave: found ", "streams that began with no hello"), 1500, outcome.output)
    // A slow machine sees more windows, each with five lines and a sum.
    XCTAssertLessThan(lines.count, 100, outcome.output)
  }
}
