import Foundation
import XCTest

/// A program that reads its key from a file, and a client that reads the public half from a document, have the two halves of one
/// pair.
final class AttestationKeyTests: XCTestCase {
  private static let directory = World.directory + "/attestation-keys"

  override class func setUp() {
    World.setUp(bigFile: false)
    bash("mkdir -p \(directory)")
  }

  override class func tearDown() { World.tearDown() }

  private func inEnclave(_ keys: String, _ script: String) -> Outcome {
    bash(
      """
      printf '[network]\\nmode = "none"\\n' > \(Self.directory)/a.toml
      cat >> \(Self.directory)/a.toml <<'X'
      \(keys)
      X
      cat > \(Self.directory)/a.sh <<'X'
      ask() { curl -sS -m 20 --unix-socket $TOMBOLO_ATTESTATION_SOCKET "$@"; }
      cd /run/tombolo/keys
      \(script)
      X
      ip netns exec \(World.host) \(World.tombolo) run --config \(Self.directory)/a.toml -- bash \(Self.directory)/a.sh
      """)
  }

  private func key(_ name: String, _ type: String, _ more: String = "") -> String {
    "[[attestation.key]]\nname = \"\(name)\"\ntype = \"\(type)\"\n\(more)\n"
  }

  /// OpenSSL's own reading of each file gives the public half that documents have, in both forms; the default is the first.
  func testEachType() {
    let types = ["secp256k1", "ed25519", "x25519", "p256", "p384"]
    let outcome = inEnclave(
      types.map { key($0, $0) + key("\($0)-raw", $0, "public_key = \"raw\"") }.joined(),
      """
      half() { python3 -c 'import sys; d = sys.stdin.buffer.read(); i = d.index(b"public_key") + 10; n = d[i + 1]; print(d[i + 2:i + 2 + n].hex() if d[i] == 0x58 else d[i])'; }
      for type in \(types.joined(separator: " ")); do
        der=$(openssl pkey -in $type.pem -pubout -outform der | od -An -v -tx1 | tr -d ' \\n')
        [ "$(ask "http://localhost/attestation?key=$type" | half)" = "$der" ] && echo $type
        # An EC key's ends with its point, 4 before x and y; the others' with the 32 bytes.
        der=$(openssl pkey -in $type-raw.pem -pubout -outform der | od -An -v -tx1 | tr -d ' \\n')
        case $type in p384) size=192;; p256|secp256k1) size=128;; *) size=64;; esac
        [ "$(ask "http://localhost/attestation/raw?key=$type-raw" | half)" = "${der: -$size}" ] && echo raw
      done
      [ "$(ask http://localhost/attestation | half)" = "$(ask -H 'Accept: application/json' http://localhost/key/secp256k1 | python3 -c 'import json, sys; k = json.load(sys.stdin); print(k["public_key"]); assert k["default"]')" ] && echo default
      ask 'http://localhost/attestation?public_key=0102' | half
      ask http://localhost/key | python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'
      ask http://localhost/key/none
      echo text > /tmp/m; openssl pkeyutl -sign -rawin -inkey ed25519.pem -in /tmp/m -out /tmp/s
      openssl pkeyutl -verify -rawin -inkey ed25519.pem -in /tmp/m -sigfile /tmp/s
      """)
    XCTAssertEqual(
      outcome.output,
      types.map { "\($0)\nraw\n" }.joined() + """
        default
        66
        10
        key: found "none"; there is \(types.map { "\($0), \($0)-raw" }.joined(separator: ", "))
        Signature Verified Successfully

        """, outcome.errors)
  }

  /// Each is its user's alone; the service itself, and another life of it, have the public half only.
  func testTheServiceCannotReadThem() {
    let outcome = inEnclave(
      key("a", "ed25519") + key("b", "p256", "user = \"www-data\""),
      """
      stat -c '%a %U %G' a.pem b.pem; stat -f -c %T .
      as() { setpriv --reuid $1 --regid $1 --clear-groups --bounding-set -all --inh-caps -all -- "${@:2}"; }
      as www-data cat b.pem | head -1; as www-data cat a.pem 2>/dev/null || echo refused
      as nobody cat b.pem 2>/dev/null || echo refused
      before=$(ask http://localhost/key)
      service() { for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = tombolo-attest ] && echo $p; done; }
      kill -9 $(basename $(service))
      for i in $(seq 100); do after=$(ask http://localhost/key 2>/dev/null) && break; sleep 0.1; done
      [ "$before" = "$after" ] && echo the same
      """)
    XCTAssertEqual(
      outcome.output,
      """
      400 root root
      400 www-data www-data
      tmpfs
      -----BEGIN PRIVATE KEY-----
      refused
      refused
      the same

      """, outcome.errors)
  }

  /// A program without HTTP reads its document from a file: one that is whole, of mode 0444, with the default key in it, and that
  /// a program of another user cannot change.
  func testTheDocumentsFile() {
    let outcome = inEnclave(
      "[attestation]\ndocument = \"/run/app/attestation.cbor\"\n" + key("a", "p256"),
      """
      cd /run/app; stat -L -c '%a %F' attestation.cbor
      openssl pkey -in /run/tombolo/keys/a.pem -pubout -outform der > /tmp/half
      python3 -c 'd = open("/run/app/attestation.cbor", "rb").read(); print(d[0] == 0x84, open("/tmp/half", "rb").read() in d)'
      setpriv --reuid nobody --regid nogroup --clear-groups bash -c 'echo x > attestation.cbor' 2>/dev/null || echo refused
      service() { for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = tombolo-attest ] && echo $p; done; }
      before=$(stat -L -c %i attestation.cbor); kill -9 $(basename $(service))
      for i in $(seq 100); do [ $(stat -L -c %i attestation.cbor) != $before ] && break; sleep 0.1; done
      [ $(stat -L -c %i attestation.cbor) != $before ] && cmp <(head -c 1 attestation.cbor) <(printf '\\204') && echo another
      base64 -w0 attestation.cbor
      """)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    XCTAssertEqual(lines.dropLast(), ["444 regular file", "True True", "refused", "another"], outcome.errors)
    XCTAssertNoThrow(
      try Data(base64Encoded: lines.last ?? "")?.write(to: URL(fileURLWithPath: "\(Self.directory)/document")))
    let verified = bash(
      "\(World.tombolo) verify --allow-unsigned --allow-debug --pcr 16=$(\(World.tombolo) image pcr16) \(Self.directory)/document"
    )
    XCTAssertEqual(verified.status, 0, verified.errors)
  }

  func testMisuse() {
    for (keys, sentence) in [
      (key("a", "rsa"), "attestation.key[1].type: found \"rsa\", expected one of \"ed25519\""),
      (key("a/b", "p256"), "attestation.key[1].name: found \"a/b\""),
      (
        key("a", "p256", "user = \"nobody-of-that-name\""),
        "attestation.key \"a\": user \"nobody-of-that-name\" is not in"
      ),
      (
        "[attestation]\ndocument = \"/tmp/a\"",
        "attestation.document: found \"/tmp/a\", expected an absolute path below /run"
      ),
      ("[attestation]\ndocument = \"/run/lock\"", "attestation.document: found /run/lock, which is there already"),
    ] {
      let outcome = inEnclave(keys, "true")
      XCTAssertEqual(outcome.status, 125, keys)
      XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
    }
  }
}
