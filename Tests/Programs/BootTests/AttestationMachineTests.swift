import Foundation
import XCTest

/// A machine with a security module, QEMU's: unmodified clients inside get documents that say what the image is, what was asked,
/// and what the host gave.
final class AttestationMachineTests: XCTestCase {
  private static let directory = World.directory + "/attestation"
  private static let guide = MachineTests.repository + "/docs/attestation.md"

  override class func setUp() {
    XCTAssertFalse(MachineTests.assets.isEmpty, "no boot assets: run rootfs/boot-assets first")
    World.setUp(bigFile: false)
    bash("mkdir -p \(directory)")
  }

  override class func tearDown() { World.tearDown() }

  /// What a script of this page's needs: the programs, a QEMU and a kernel.
  private func script(_ text: String, timeout: TimeInterval = 120) -> Outcome {
    bash(
      """
      cd \(Self.directory); export PATH=\(World.binaries):\(MachineTests.assets)/qemu:$PATH
      cp -n \(MachineTests.assets)/kernel-enclave/bzImage .
      ip netns exec \(World.host) bash -ec '\(text.replacingOccurrences(of: "'", with: "'\\''"))'
      """, timeout: timeout)
  }

  /// The root file system of the guide: this machine's own programs.
  private static let root = """
    mkdir -p root/tmp root/bin
    for p in bash curl cat base64 rm; do p=$(readlink -f $(command -v $p)); cp -n $p root/bin; cp -n --parents $(ldd $p | grep -o '/[^ ]*') root; done
    """

  /// Every command of the step-by-step part of docs/attestation.md, one after the other.
  func testTheGuide() throws {
    let page = try String(contentsOfFile: Self.guide, encoding: .utf8)
    let part = try XCTUnwrap(page.components(separatedBy: "## A document from a program, step by step").last)
    let steps = part.components(separatedBy: "## Inside")[0].components(separatedBy: "```sh\n").dropFirst().map {
      $0.components(separatedBy: "```")[0]
    }
    XCTAssertEqual(steps.count, 6)
    let outcome = script("mkdir -p guide; cp -n bzImage guide; cd guide; " + steps.joined())
    XCTAssertTrue(outcome.output.contains("PCR16"), outcome.output + outcome.errors)
    XCTAssertTrue(outcome.errors.contains("5e1f was expected"), outcome.errors)
  }

  /// The registers are the image's, nonce and user data what was asked, in every client's form; a locked register stays, by name.
  func testEachClientGetsADocument() throws {
    let nonce = String(repeating: "5e", count: 20)
    let outcome = script(
      """
      \(Self.root)
      cat > root/inside.sh <<'X'
      ask() { curl -sS --unix-socket $TOMBOLO_ATTESTATION_SOCKET "$@" > /tmp/d; echo "$(base64 -w0 /tmp/d)"; }
      q='nonce=\(nonce)&user_data=010203'
      ask "http://localhost/attestation?$q"
      ask "http://localhost/attestation/raw?$q"
      ask "http://localhost/attestation/hex?$q"
      ask -H 'Content-Type: application/json' -d '{"nonce": "\(Data([UInt8](repeating: 0x5e, count: 20)).base64EncodedString())", "user_data": "AQID"}' http://localhost/v1/attestation
      ask "http://localhost/enclave/attestation?nonce=\(nonce)"
      curl -sS -d '{"challenge": "\\u0001\\u0002\\u0003", "nonce": "\(String(repeating: "^", count: 20))"}' http://127.0.0.1:9999/attestation-doc > /tmp/d; base64 -w0 /tmp/d; echo
      curl -sS -d x --unix-socket $TOMBOLO_ATTESTATION_SOCKET http://localhost/pcr/16/extend
      curl -sS -d x --unix-socket $TOMBOLO_ATTESTATION_SOCKET http://localhost/pcr/17/extend; ask http://localhost/attestation
      [ -e /dev/nsm ] || echo closed
      X
      printf '[network]\\nmode = "none"\\n[attestation]\\nlisten = [9999]\\npcrs = [17]\\n' > attest.toml
      tombolo image build --rootfs root --kernel bzImage --config attest.toml -o attest.eif -- bash /inside.sh > /dev/null
      tombolo image pcr16
      tombolo boot attest.eif --memory 512
      """)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    guard lines.count == 11 else { return XCTFail(outcome.output + outcome.errors) }
    for (index, line) in lines[1...6].enumerated() {
      let file = "\(Self.directory)/document-\(index)"
      try XCTUnwrap(Data(base64Encoded: line)).write(to: URL(fileURLWithPath: file))
      // nitriding's clients cannot ask for user data.
      let data = index == 4 ? "" : "--user-data 010203"
      let verified = bash(
        """
        \(World.tombolo) verify --allow-unsigned --pcrs \(Self.directory)/attest.eif --pcr 16=\(lines[0]) --nonce \(nonce) \(data) \(file)
        """)
      XCTAssertEqual(verified.status, 0, "form \(index): \(verified.errors)")
    }
    XCTAssertEqual(lines[7], "PCR16 is locked (ReadOnlyIndex)")
    XCTAssertTrue(lines[8].hasPrefix("{\"pcr\":17,"), lines[8])
    XCTAssertEqual(lines[10], "closed")
  }

  /// In a machine with its own module: keys are made before the program starts, documents have their public halves, and the file
  /// has the first one's. What the host gave is in the register.
  func testKeysAndTheDocumentsFile() throws {
    let outcome = script(
      """
      \(Self.root)
      for p in openssl stat od tr; do p=$(readlink -f $(command -v $p)); cp -n $p root/bin; cp -n --parents $(ldd $p | grep -o '/[^ ]*') root; done
      cat > root/keys.sh <<'X'
      for key in a b; do openssl pkey -in /run/tombolo/keys/$key.pem -pubout -outform der | od -An -v -tx1 | tr -d ' \\n'; echo; done
      stat -L -c '%a %u' /run/tombolo/keys/b.pem /run/document.cbor
      base64 -w0 /run/document.cbor; echo
      echo "$1 $STAGE"
      curl -sS --unix-socket $TOMBOLO_ATTESTATION_SOCKET 'http://localhost/attestation?key=b&nonce=07' > /tmp/d; base64 -w0 /tmp/d; echo
      X
      cat > keys.toml <<'X'
      [network]
      mode = "none"
      [attestation]
      document = "/run/document.cbor"
      runtime = ["arguments", "variables"]
      [[attestation.key]]
      name = "a"
      type = "secp256k1"
      [[attestation.key]]
      name = "b"
      type = "x25519"
      user = "33"
      X
      tombolo image build --rootfs root --kernel bzImage --config keys.toml -o keys.eif -- bash /keys.sh > /dev/null
      given="--enclave-argument --given --enclave-variable STAGE=test"
      tombolo image pcr16 $given
      tombolo boot keys.eif --memory 512 $given
      """)
    let lines = outcome.output.split(separator: "\n").map(String.init)
    guard lines.count == 8 else { return XCTFail(outcome.output + outcome.errors) }
    XCTAssertEqual(Array(lines[3...4]) + [lines[6]], ["400 33", "444 0", "--given test"])
    for (line, options) in [(5, "--public-key \(lines[1])"), (7, "--public-key \(lines[2]) --nonce 07")] {
      let file = "\(Self.directory)/keys-\(line)"
      try XCTUnwrap(Data(base64Encoded: lines[line])).write(to: URL(fileURLWithPath: file))
      let verified = bash(
        """
        \(World.tombolo) verify --allow-unsigned --pcrs \(Self.directory)/keys.eif --pcr 16=\(lines[0]) \(options) \(file)
        """)
      XCTAssertEqual(verified.status, 0, verified.errors)
    }
  }
}
