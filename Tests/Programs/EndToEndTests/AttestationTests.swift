import Foundation
import XCTest

/// Unmodified clients ask the attestation service of a local enclave, whose module is in memory: what they get, who gets it, and
/// that nobody keeps it from the others.
final class AttestationTests: XCTestCase {
  private static let directory = World.directory + "/attestation"

  override class func setUp() {
    World.setUp(bigFile: false)
    bash("mkdir -p \(directory)")
  }

  override class func tearDown() { World.tearDown() }

  private func inEnclave(
    _ keys: String, _ script: String, network: String = "mode = \"none\"", more: String = "", timeout: TimeInterval = 60
  ) -> Outcome {
    bash(
      """
      cat > \(Self.directory)/a.toml <<'X'
      \(more)
      [network]
      \(network)
      [attestation]
      \(keys)
      X
      cat > \(Self.directory)/a.sh <<'X'
      ask() { curl -sS -m 20 --unix-socket $TOMBOLO_ATTESTATION_SOCKET "$@"; }
      \(script)
      X
      ip netns exec \(World.host) \(World.tombolo) run --config \(Self.directory)/a.toml -- bash \(Self.directory)/a.sh
      """, timeout: timeout)
  }

  private func verify(_ options: String, _ file: String) -> String {
    let outcome = bash(
      "\(World.tombolo) verify --allow-unsigned --allow-debug \(options) \(file) >/dev/null && echo believed")
    return outcome.output.isEmpty ? outcome.errors : outcome.output
  }

  /// Each in its own client's form; what comes is what was asked for, and the register is the one that `tombolo image` says.
  func testEachForm() {
    let register = bash("\(World.tombolo) image pcr16").output.trimmingCharacters(in: .newlines)
    let nonce = String(repeating: "5e", count: 20)
    let outcome = inEnclave(
      "listen = [1350, 9999]",
      """
      cd $(mktemp -d); openssl ecparam -name secp384r1 -genkey -noout | openssl ec -pubout -out key.pem 2>/dev/null
      openssl pkey -pubin -in key.pem -outform der -out key.der
      show() { base64 -w0 $1; echo " $2"; }
      ask -o own 'http://localhost/attestation?nonce=\(nonce)&user_data=AQID'; show own own
      ask -H 'Accept: text/plain' 'http://localhost/attestation?nonce=\(nonce)&user_data=010203' | base64 -d > text; show text text
      ask -H 'Accept: application/json' 'http://localhost/attestation?nonce=\(nonce)&user_data=010203' | python3 -c 'import json, sys, base64; sys.stdout.buffer.write(base64.b64decode(json.load(sys.stdin)["document"]))' > json; show json json
      curl -sS -o raw 'http://127.0.0.1:1350/attestation/raw?nonce=\(nonce)&user_data=010203'; show raw raw
      curl -sS 'http://127.0.0.1:1350/attestation/hex?nonce=\(nonce)&user_data=010203' > hex; show hex hex
      python3 - <<'Y' > enclaver; show enclaver enclaver
      import json, sys, base64, urllib.request
      body = {"nonce": base64.b64encode(bytes.fromhex("\(nonce)")).decode(), "user_data": "AQID", "public_key": open("key.pem").read()}
      request = urllib.request.Request("http://127.0.0.1:1350/v1/attestation", json.dumps(body).encode(), {"Content-Type": "application/json"})
      answer = urllib.request.urlopen(request)
      assert answer.headers["Content-Type"] == "application/cbor"
      sys.stdout.buffer.write(answer.read())
      Y
      show key.der key
      ask 'http://localhost/enclave/attestation?nonce=\(nonce)' | base64 -d > nitriding; show nitriding nitriding
      curl -sS -o evervault -H 'Content-Type: application/json' -d '{"challenge": "a challenge", "nonce": "a nonce"}' http://127.0.0.1:9999/attestation-doc; show evervault evervault
      """)
    var files: [String: String] = [:]
    for line in outcome.output.split(separator: "\n") {
      let parts = line.split(separator: " ").map(String.init)
      guard parts.count == 2, let data = Data(base64Encoded: parts[0]) else { continue }
      files[parts[1]] = "\(Self.directory)/\(parts[1])"
      XCTAssertNoThrow(try data.write(to: URL(fileURLWithPath: "\(Self.directory)/\(parts[1])")))
    }
    let given = "--pcr 16=\(register) --nonce \(nonce)"
    for name in ["own", "text", "json", "raw", "hex"] {
      XCTAssertEqual(verify(given + " --user-data 010203", files[name] ?? name), "believed\n", outcome.errors)
    }
    XCTAssertEqual(
      verify(given + " --user-data 010203 --public-key @\(Self.directory)/key", files["enclaver"] ?? ""), "believed\n")
    XCTAssertEqual(verify(given, files["nitriding"] ?? ""), "believed\n")
    XCTAssertEqual(
      verify(
        "--pcr 16=\(register) --user-data 61206368616c6c656e6765 --nonce 61206e6f6e6365", files["evervault"] ?? "none"),
      "believed\n")
    XCTAssertTrue(outcome.errors.contains("nobody signs its documents"), outcome.errors)
  }

  /// Who may ask is known by the user; what may be changed by the configuration; an error names what it is about.
  func testWhoMayDoWhat() {
    let outcome = inEnclave(
      "callers = [\"root\", \"www-data\"]\npcrs = [17]",
      """
      ask -d x http://localhost/pcr/16/extend
      ask -d x http://localhost/pcr/18/extend
      ask -d x http://localhost/pcr/17/extend | tr , '\\n' | head -1
      ask -X POST http://localhost/pcr/17/lock | grep -o '"locked":true'
      ask -X POST -d x http://localhost/pcr/17/extend
      ask http://localhost/random?bytes=7 | wc -c
      ask http://localhost/pcr | python3 -c 'import json, sys; print([r["pcr"] for r in json.load(sys.stdin) if r["locked"]])'
      for user in www-data nobody; do setpriv --reuid $user --regid nogroup --clear-groups curl -sS -o /dev/null -w '%{http_code}\\n' --unix-socket $TOMBOLO_ATTESTATION_SOCKET http://localhost/attestation; done
      for p in /proc/[0-9]*; do
        [ "$(cat $p/comm)" = tombolo-attest ] || continue
        grep -E '^(Uid|CapPrm|CapBnd|NoNewPrivs|Seccomp):' $p/status | tr -s '\\t' ' '
        kill -9 ${p#/proc/}
      done
      for i in $(seq 50); do ask -o /dev/null -w '%{http_code}\\n' http://localhost/attestation 2>/dev/null && break; sleep 0.1; done
      """)
    XCTAssertEqual(
      outcome.output,
      """
      PCR16 is locked (ReadOnlyIndex)
      PCR18 is none of attestation.pcrs
      {"pcr":17
      "locked":true
      PCR17 is locked (ReadOnlyIndex)
      7
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]
      200
      403
      Uid: 61044 61044 61044 61044
      CapPrm: 0000000000000000
      CapBnd: 0000000000000000
      NoNewPrivs: 1
      Seccomp: 2
      200

      """, outcome.errors)
  }

  /// Addresses that the host chose are in the register that the outside computes from them.
  func testWhatTheHostGaveIsMeasured() {
    let network = "mode = \"raw\"\naddress = \"host\"\naddress6 = \"none\""
    let outcome = inEnclave(
      "runtime = [\"addresses\"]\nruntime_pcr = 20",
      """
      ask http://localhost/pcr/20 | python3 -c 'import json, sys; r = json.load(sys.stdin); print(r["locked"], r["value"])'
      ip -o -4 addr show tun0 | grep -o '[0-9.]*/[0-9]*' | head -1; cat /sys/class/net/tun0/mtu
      """, network: network)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    guard lines.count == 3 else { return XCTFail(outcome.output + outcome.errors) }
    let register = bash("\(World.tombolo) image pcr16 --address \(lines[1]) --mtu \(lines[2])")
    XCTAssertEqual("\(lines[0])\n", "True " + register.output, register.errors)
    let refused = inEnclave("", "true", network: network)
    XCTAssertTrue(
      refused.errors.contains("attestation.runtime: the host gives the enclave's addresses"), refused.errors)
  }

  /// A thousand clients that send nothing, one that sends for ever, one that sends by the byte: others are answered at once, and
  /// the service stays small.
  func testHostileClients() {
    let outcome = inEnclave(
      "rate = 10000",
      """
      ulimit -n 4096
      cat > /tmp/hostile.py <<'Y'
      import os, socket, threading, time, glob
      path = os.environ["TOMBOLO_ATTESTATION_SOCKET"]
      def open_one():
          s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(path); return s
      def good():
          s = open_one(); s.sendall(b"GET /attestation HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
          data = b""
          while True:
              more = s.recv(65536)
              if not more: return data.startswith(b"HTTP/1.1 200") and len(data) > 1000
              data += more
      held = []
      for i in range(1000):
          s = open_one(); held.append(s)
          try: s.sendall(b"GET /attes")
          except BrokenPipeError: pass
      print("with 1000 that wait:", all(good() for i in range(20)))
      s = open_one()
      try:
          while True: s.sendall(b"A" * 65536)
      except OSError: pass
      s = open_one(); s.sendall(b"GET /" + b"a" * 9000); print(s.recv(12))
      s = open_one(); s.sendall(b"POST / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 99999999\\r\\n\\r\\n"); print(s.recv(12))
      s = open_one(); s.sendall(b"GET /attestation/hex HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" * 300)
      print("beside 300 in a row:", all(good() for i in range(20)))
      s.shutdown(socket.SHUT_WR); data = b""
      while True:
          more = s.recv(1 << 20)
          if not more: break
          data += more
      print("in a row:", data.count(b"HTTP/1.1 200 OK"))
      s = open_one()
      try:
          for byte in b"GET /attestation HTTP/1.1\\r\\nHost: a\\r\\nX: " + b"a" * 400: s.sendall(bytes([byte])); time.sleep(0.03)
          s.settimeout(20); print("slow:", s.recv(12))
      except OSError: print("slow: closed")
      for p in glob.glob("/proc/[0-9]*"):
          try: name = open(p + "/comm").read()
          except OSError: continue
          if name == "tombolo-attest\\n":
              size = [int(l.split()[1]) for l in open(p + "/status") if l.startswith("VmHWM")][0]
              print("small:", size < 65536)
      Y
      python3 /tmp/hostile.py
      """, timeout: 120)
    XCTAssertEqual(
      outcome.output,
      """
      with 1000 that wait: True
      b'HTTP/1.1 431'
      b'HTTP/1.1 413'
      beside 300 in a row: True
      in a row: 300
      slow: b'HTTP/1.1 408'
      small: True

      """, outcome.errors)
  }

  /// Each with the key, what was found and what was expected; a program that could make the device anew is refused too.
  func testMisuse() {
    for (keys, more, sentence) in [
      ("listen = [80]\ncallers = [\"root\"]", "", "attestation.listen: found ports together with a list"),
      ("pcrs = [16]", "", "attestation.pcrs: found 16, which is attestation.runtime_pcr"),
      ("pcrs = [3]", "", "attestation.pcrs: found"), ("runtime = [\"all\"]", "", "expected \"addresses\""),
      ("without_module = \"x\"", "", "expected \"end\" or \"simulate\""), ("rate = 0", "", "a number from 1 to 10000"),
      ("callers = [\"nobody-of-that-name\"]", "", "attestation.callers: user \"nobody-of-that-name\" is not in"),
      ("", "[program]\ncapabilities = [\"MKNOD\"]", "program.capabilities: found MKNOD"),
    ] {
      let outcome = inEnclave(keys, "true", more: more)
      XCTAssertEqual(outcome.status, 125, keys)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }

  /// A machine, unlike a local enclave, has a security module, or says that it has none.
  func testUnderAnotherInit() {
    let outcome = bash(
      """
      cd \(Self.directory); printf '[network]\\nmode = "none"\\ntransport = "unix:\(Self.directory)/t"\\n[attestation]\\n' > c.toml
      mkdir -p t; \(World.tombolo) host --transport unix:\(Self.directory)/t >/dev/null 2>&1 & host=$!
      unshare -mn bash -c 'mount -t tmpfs t /run; \(World.binaries)/tombolo-init --config c.toml -- true'; echo $?
      echo 'without_module = "simulate"' >> c.toml
      unshare -mn bash -c 'mount -t tmpfs t /run; \(World.binaries)/tombolo-init --config c.toml -- test -S /run/tombolo/attestation/attestation.sock'; echo $?
      kill $host; wait $host
      """)
    XCTAssertEqual(outcome.output, "125\n0\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains("this machine has no security module (/dev/nsm)"), outcome.errors)
  }
}
