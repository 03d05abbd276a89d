import Foundation
import XCTest

/// Arguments, variables and file names are bytes: what is not UTF-8 arrives as it was given (issue 10, 12).
final class BytesTests: XCTestCase {
  let place = "/var/tmp/tombolo-bytes-\(World.id)"
  let run = "\(World.tombolo) run --mode none"

  override func setUp() { bash("mkdir -p \(place)") }
  override func tearDown() { bash("rm -rf \(place)") }

  func testArgumentsVariablesAndDirectories() {
    let outcome = bash(
      #"""
      cd \#(place); cat > show.py <<'X'
      import os, sys
      print(*[os.fsencode(a).hex() for a in sys.argv[1:]], os.environb.get(b"A", b"").hex(), os.getcwdb()[-3:].hex())
      X
      mkdir $'d\xe9\xff'
      \#(run) -e $'A=\xe9=\xff' -w $'\#(place)/d\xe9\xff' -- python3 \#(place)/show.py $'caf\xe9' $'\xc3\xa9' $'\xf4\x8f\xbb\xa9' $'\xc3' $'e\xcc\x81' ''
      cd $'d\xe9\xff' && \#(run) -e $'A=\xcc\x81x' -- python3 \#(place)/show.py
      cd ..; mkdir -p $'r\xe9/\xff' && cp /bin/busybox $'r\xe9/\xff' && \#(run) --rootfs $'r\xe9' -- $'/\xff/busybox' echo $'x\xe9' | od -An -tx1
      ls $'r\xe9' | od -An -tx1
      \#(run) -- $'/no\xe9'; echo $?
      """#)
    XCTAssertEqual(
      outcome.output,
      "636166e9 c3a9 f48fbba9 c3 65cc81  e93dff 64e9ff\ncc8178 64e9ff\n 78 e9 0a\n ff 0a\n127\n", outcome.errors)
    XCTAssertTrue(outcome.errors.contains(#"/no\xE9: not found in the enclave"#), outcome.errors)
  }

  /// A configuration is TOML, which is Unicode, without NUL in what becomes an argument.
  func testConfigurations() {
    let outcome = bash(
      #"""
      cd \#(place); printf '[program]\ncommand = ["printf", "%%s", "\\U0010fee9\xf4\x8f\xbb\xa9\xc3\xa9"]\n' > private.toml
      \#(run) --config private.toml | od -An -tx1
      printf '[program]\nenv = { A = "\xe9" }\n' > latin.toml; \#(run) --config latin.toml -- true; echo $?
      printf '[program]\ncommand = ["a", "b\\u0000c"]\n' > nul.toml; \#(run) --config nul.toml; echo $?
      printf '[program]\nenv = { A = "b\\u0000c" }\n' > nul.toml; \#(run) --config nul.toml -- true; echo $?
      """#)
    XCTAssertEqual(outcome.output, " f4 8f bb a9 f4 8f bb a9 c3 a9\n125\n125\n125\n", outcome.errors)
    for sentence in [
      "latin.toml:2: not TOML: found bytes that are not UTF-8", "nul.toml:2: program.command: found",
      "expected an array of strings without NUL bytes", "nul.toml:2: program.env.A: found",
      "expected a string without NUL bytes",
    ] {
      XCTAssertTrue(outcome.errors.contains(sentence), "\(sentence): \(outcome.errors)")
    }
  }
}
