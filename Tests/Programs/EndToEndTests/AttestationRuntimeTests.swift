import Foundation
import XCTest

/// What a host gives an enclave's program is what the image takes, and is in the register that the outside computes.
final class AttestationRuntimeTests: XCTestCase {
  private static let directory = World.directory + "/attestation-runtime"

  override class func setUp() {
    World.setUp(bigFile: false)
    bash("mkdir -p \(directory)")
  }

  override class func tearDown() { World.tearDown() }

  private func inEnclave(_ section: String, _ options: String, _ script: String) -> Outcome {
    bash(
      """
      cat > \(Self.directory)/a.toml <<'X'
      [network]
      mode = "none"
      [program.env]
      STAGE = "image"
      OWN = "kept"
      \(section)
      X
      cat > \(Self.directory)/a.sh <<'X'
      \(script)
      X
      ip netns exec \(World.host) \(World.tombolo) run --config \(Self.directory)/a.toml \(options) -- bash \(Self.directory)/a.sh own
      """)
  }

  private static let register =
    "curl -sS --unix-socket $TOMBOLO_ATTESTATION_SOCKET http://localhost/pcr/16 | python3 -c 'import json, sys; r = json.load(sys.stdin); print(r[\"locked\"], r[\"value\"])'"

  /// Also more than one answer has room for, bytes that are no text, and what could look like something else.
  func testGivenAndMeasured() {
    let options =
      "--enclave-argument --verbose --enclave-argument $'two\\nlines' --enclave-argument $'\\xff' --enclave-variable STAGE=test "
      + "--enclave-variable LONG=$(printf '%08000d' 7) --enclave-variable A=b=c"
    let outcome = inEnclave(
      "[attestation]\nruntime = [\"arguments\", \"variables\"]", options,
      """
      \(Self.register)
      printf '%s|' "$@" | od -An -v -w999 -c | tr -d ' '
      echo "$STAGE $OWN $A ${#LONG}"
      """)
    let computed = bash("\(World.tombolo) image pcr16 \(options)")
    XCTAssertEqual(
      outcome.output,
      "True \(computed.output)own|--verbose|two\\nlines|377|\ntest kept b=c 8000\n", outcome.errors + computed.errors)
    let text = bash("\(World.tombolo) image pcr16 --text \(options) | grep -v LONG").output
    XCTAssertEqual(
      text,
      """
      tombolo runtime 1
      argument 2d2d766572626f7365
      argument 74776f0a6c696e6573
      argument ff
      variable A 623d63
      variable STAGE 74657374

      """)
    let nothing = inEnclave(
      "[attestation]\nruntime = [\"arguments\", \"variables\"]", "", Self.register + "; echo $# $STAGE")
    XCTAssertEqual(nothing.output, "True \(bash("\(World.tombolo) image pcr16").output)1 image\n", nothing.errors)
  }

  /// The start ends, with the kind and the key, and no program runs.
  func testWhatTheImageDoesNotTake() {
    let argument = "--enclave-argument a"
    let variable = "--enclave-variable A=b"
    for (section, options, word) in [
      ("", argument, "arguments"), ("", variable, "variables"), ("[attestation]", argument, "arguments"),
      ("[attestation]\nruntime = \"none\"", variable, "variables"),
      ("[attestation]\nruntime = [\"arguments\"]", "\(argument) \(variable)", "variables"),
      ("[attestation]\nruntime = [\"variables\", \"addresses\"]", "\(variable) \(argument)", "arguments"),
    ] {
      let outcome = inEnclave(section, options, "echo it runs")
      XCTAssertEqual(outcome.status, 125, section)
      XCTAssertEqual(outcome.output, "")
      XCTAssertTrue(
        outcome.errors.contains("the host gives \(word) (--enclave-")
          && outcome.errors.contains("in attestation.runtime"), outcome.errors)
    }
  }

  func testMisuse() {
    for (options, sentence) in [
      ("--enclave-variable A", "--enclave-variable: found \"A\", expected NAME=VALUE"),
      ("--enclave-variable 1A=b", "--enclave-variable: found \"1A=b\": found an invalid variable's name"),
      (
        "--enclave-variable A=b --enclave-variable A=c",
        "--enclave-variable: found \"A=c\": found an invalid variable: A twice"
      ),
      (
        "--enclave-argument $(printf '%09000d' 7)",
        "--enclave-argument: found argument of 9000 bytes, expected at most 8192"
      ),
    ] {
      for command in ["run \(options) -- true", "image pcr16 \(options)"] {
        let outcome = bash("ip netns exec \(World.host) \(World.tombolo) \(command)")
        XCTAssertEqual(outcome.status, 125, command)
        XCTAssertTrue(outcome.errors.contains(sentence), outcome.errors)
      }
    }
  }
}
