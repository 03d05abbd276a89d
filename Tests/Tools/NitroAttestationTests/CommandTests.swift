import CBORCodec
import Foundation
import SwiftASN1
import X509
import XCTest

@testable import NitroAttestation

/// `tombolo verify`: what a client learns by its exit status, and what it is told.
final class CommandTests: XCTestCase {
  private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().path
  private static let binaries = ProcessInfo.processInfo.environment["TOMBOLO_BINARIES"] ?? root + "/.build/release"
  private let directory = NSTemporaryDirectory() + "tombolo-verify-\(ProcessInfo.processInfo.globallyUniqueString)"

  override func setUpWithError() throws {
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
  }
  override func tearDownWithError() throws { try FileManager.default.removeItem(atPath: directory) }

  private struct Outcome {
    var status: Int32
    var output: String
    var errors: String
  }

  /// A script of bash(1) at the top of the tree, with `tombolo` in its PATH.
  private func bash(_ script: String) throws -> Outcome {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/bash")
    process.arguments = ["-c", script]
    process.currentDirectoryURL = URL(fileURLWithPath: Self.root)
    process.environment = ["PATH": Self.binaries + ":/usr/local/bin:/usr/bin:/bin", "D": directory]
    let files = try ["out", "err"].map { name in
      XCTAssertTrue(FileManager.default.createFile(atPath: "\(directory)/\(name)", contents: nil))
      return try XCTUnwrap(FileHandle(forWritingAtPath: "\(directory)/\(name)"))
    }
    (process.standardOutput, process.standardError, process.standardInput) = (files[0], files[1], FileHandle.nullDevice)
    try process.run()
    process.waitUntilExit()
    func text(_ name: String) throws -> String { try String(contentsOfFile: "\(directory)/\(name)", encoding: .utf8) }
    return Outcome(status: process.terminationStatus, output: try text("out"), errors: try text("err"))
  }

  private func write(_ name: String, _ bytes: [UInt8]) throws {
    try Data(bytes).write(to: URL(fileURLWithPath: "\(directory)/\(name)"))
  }

  private func expect(
    _ script: String, status: Int32 = 1, _ sentence: String = "", line: UInt = #line
  ) throws {
    let outcome = try bash(script)
    XCTAssertEqual(outcome.status, status, "\(script): \(outcome.errors)", line: line)
    let said = status == 0 ? outcome.errors == sentence : outcome.errors.contains(sentence)
    XCTAssertTrue(said, "\(script): \(outcome.errors)", line: line)
  }

  /// Every command of docs/attestation.md, with what it prints there; `…` stands for anything.
  func testTheDocumentsOwnCommands() throws {
    let page = try String(contentsOfFile: Self.root + "/docs/attestation.md", encoding: .utf8)
    let blocks = page.components(separatedBy: "```console\n").dropFirst().map { $0.components(separatedBy: "```")[0] }
    XCTAssertFalse(blocks.isEmpty)
    // One after the other: a later one uses what an earlier one has made.
    for block in blocks {
      let commands = ("\n" + block).components(separatedBy: "\n$ ").dropFirst()
      XCTAssertFalse(commands.isEmpty, block)
      for text in commands {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let expected = lines.dropFirst().joined(separator: "\n").trimmingCharacters(in: .newlines)
        let outcome = try bash("cd \(directory) && ln -sfn \(Self.root)/Tests Tests; \(lines[0])")
        var found = outcome.output + outcome.errors
        if outcome.status != 0 { found += "[status \(outcome.status)]" }
        let pattern = NSRegularExpression.escapedPattern(for: expected).replacingOccurrences(of: "…", with: ".*")
        XCTAssertNotNil(
          found.trimmingCharacters(in: .newlines).range(of: "^(?s:\(pattern))$", options: .regularExpression),
          "\(lines[0]) printed\n\(found)\nand not\n\(expected)")
      }
    }
  }

  func testOptions() throws {
    let now = UInt64(Date().timeIntervalSince1970 * 1000)
    let verify = "tombolo verify --root $D/root.pem --at-document-time"
    let made = now - 60_000
    let shift = Double(made) / 1000 - Double(TestSigner.now) / 1000
    let timely = try TestSigner(
      TestSigner.links.map { link in
        var link = link
        (link.notBefore, link.notAfter) = (link.notBefore + shift, link.notAfter + shift)
        return link
      })
    try write("root.der", timely.certificates[0])
    try write("root.pem", Array(Certificate(derEncoded: timely.certificates[0]).serializeAsPEM().pemString.utf8))
    try write("d", timely.document(["timestamp": .unsigned(made)]))
    try write("nonce", [6])
    let register = hex(TestSigner.register(0))
    try write(
      "pcrs", Array("{\"Measurements\": {\"HashAlgorithm\": \"Sha384 { ... }\", \"PCR0\": \"\(register)\"}}".utf8))
    try write("other", Array("{\"Measurements\": {\"PCR1\": \"\(register)\"}}".utf8))
    try write("none", Array("{}".utf8))
    try write("eif", Array(".eif is not all of one".utf8))
    for words in [
      "", "--nonce 06", "--nonce @$D/nonce", "--public-key 010203", "--user-data 0405", "--pcr 0=\(register)",
      "--pcrs $D/pcrs", "--pcrs $D/pcrs --pcr 0=\(register) --pcr PCR15=\(hex(TestSigner.register(15)))",
      "--max-age 8760h", "--root $D/root.der",
    ] { try expect("\(verify) \(words) $D/d", status: 0) }
    for (words, sentence) in [
      ("--nonce 07", "nonce is 06, 07 was expected"),
      ("--public-key @$D/nonce", "public_key is 010203, 06 was expected"),
      ("--user-data 04", "user_data is 0405, 04 was expected"), ("--pcrs $D/other", "PCR1 is"),
      ("--pcr 16=\(register)", "PCR16 is not in the document"), ("--max-age 1s", "; at most 1 s were allowed"),
    ] { try expect("\(verify) \(words) $D/d", sentence) }
    try expect("tombolo verify --at-document-time $D/d", "is not the root that is trusted")
    for (words, sentence) in [
      ("--nonce 0", "--nonce: found \"0\", expected hexadecimal digits, or @FILE"),
      ("--nonce @$D/missing", "No such file"),
      ("--pcr 0=00", "--pcr: found \"0=00\""), ("--pcr 32=\(register)", "--pcr: found"),
      ("--pcr \(register)", "--pcr: found"),
      ("--pcrs $D/pcrs --pcr 0=\(hex(TestSigner.register(1)))", "PCR0 was given twice, with two values"),
      ("--pcrs $D/none", "is neither an EIF nor measurements"), ("--pcrs $D/eif", "--pcrs: "),
      ("--pcrs $D/missing", "No such file"), ("--max-age 5", "--max-age: found \"5\""),
      ("--max-age 0s", "--max-age: found"),
      ("--root $D/d", "--root: "), ("--root $D/missing", "No such file"),
    ] { try expect("\(verify) \(words) $D/d", status: 125, sentence) }
    try expect("\(verify) $D/missing", status: 125, "No such file")
    try expect("tombolo verify", status: 125, "Missing expected argument")
    try expect("tombolo verify --believe-all $D/d", status: 125, "Unknown option '--believe-all'")
    try expect("\(verify) $D/pcrs", "it is neither CBOR")
    try expect("\(verify) /dev/null", "it is empty")
    try expect("head -c 100000 /dev/zero | \(verify) -", status: 125, "File too large")
  }

  /// The PCRs of an EIF, computed as `tombolo image describe` does.
  func testTheRegistersOfAnEIF() throws {
    let image = "Tests/fuzz/corpus/eif/four-sections"
    let described = try bash("tombolo image describe --json \(image)")
    let measured = try XCTUnwrap(
      (JSONSerialization.jsonObject(with: Data(described.output.utf8)) as? [String: Any])?["Measurements"]
        as? [String: String])
    let signer = try TestSigner()
    func document(_ changed: Int? = nil) throws -> [UInt8] {
      try signer.document([
        "timestamp": .unsigned(1_700_000_000_000),
        "pcrs": .map(
          try (0..<3).map { number in
            var value = try XCTUnwrap(DocumentText.bytes(hex: measured["PCR\(number)"] ?? ""))
            if number == changed { value[47] ^= 1 }
            return .init(key: .unsigned(UInt64(number)), value: .bytes(value))
          }),
      ])
    }
    // The signer's certificates are of another year than its document: none is valid then, so this one has no signature.
    func unsigned(_ document: [UInt8]) throws -> [UInt8] {
      guard case .array(let parts) = try CBOR(document), case .bytes(let payload) = parts[2],
        case .map(var fields) = try CBOR(payload)
      else { return [] }
      let nobody = CBOR.bytes([UInt8](repeating: 0, count: 64))
      for index in fields.indices where fields[index].key == .text("certificate") { fields[index].value = nobody }
      return CBOR.array([.bytes([0xa1, 1, 0x20]), .map([]), .bytes(CBOR.map(fields).encoded), nobody]).encoded
    }
    try write("same", unsigned(document()))
    try expect(
      "tombolo verify --allow-unsigned --pcrs \(image) $D/same", status: 0,
      "tombolo: warning: nobody has signed this document; nothing in it is known to be true\n")
    for number in 0..<3 {
      try write("other", unsigned(document(number)))
      try expect("tombolo verify --allow-unsigned --pcrs \(image) $D/other", "PCR\(number) is ")
    }
  }

  func testDebugAndUnsignedAreSaid() throws {
    let signer = try TestSigner()
    var fields = signer.fields()
    fields[2].value = .unsigned(1_700_000_000_000)
    fields[3].value = .map((0..<16).map { .init(key: .unsigned($0), value: .bytes([UInt8](repeating: 0, count: 48))) })
    let nobody = CBOR.bytes([UInt8](repeating: 0, count: 64))
    fields[4].value = nobody
    fields[5].value = .array([nobody])
    try write(
      "d", CBOR.array([.bytes([0xa1, 1, 0x20]), .map([]), .bytes(CBOR.map(fields).encoded), nobody]).encoded)
    try expect("tombolo verify $D/d", "the document is not signed: QEMU's nitro-enclave machine makes such ones")
    try expect("tombolo verify --allow-debug $D/d", "the document is not signed")
    try expect("tombolo verify --allow-unsigned $D/d", "the enclave runs in debug mode")
    let outcome = try bash("tombolo verify --allow-unsigned --allow-debug --json $D/d")
    XCTAssertEqual(outcome.status, 0, outcome.errors)
    XCTAssertTrue(outcome.errors.contains("warning: nobody has signed this document"), outcome.errors)
    XCTAssertTrue(outcome.errors.contains("warning: the enclave runs in debug mode"), outcome.errors)
    let said = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    XCTAssertEqual(said["signed"] as? Bool, false)
    XCTAssertEqual(said["debug"] as? Bool, true)
  }

  func testEveryFormAndAURL() throws {
    let genuine = "Tests/attestation/aws.bin"
    let outcome = try bash(
      """
      set -e
      v="tombolo verify --at-document-time"
      $v \(genuine) > $D/1
      $v - < \(genuine) > $D/2
      base64 -w76 \(genuine) | $v - > $D/3
      base64 -w0 \(genuine) | tr '+/' '-_' | tr -d = | $v - > $D/4
      od -An -v -tx1 \(genuine) | $v - > $D/5
      od -An -v -tx1 \(genuine) | tr -d ' \\n' | tr a-f A-F > $D/upper; $v $D/upper > $D/6
      coproc web { exec python3 -u -m http.server --bind 127.0.0.1 --directory Tests/attestation 0 2>$D/log; }
      read -r line <&${web[0]}; port=${line#*port }; port=${port%% *}
      $v http://127.0.0.1:$port/aws.bin > $D/7
      s=0; $v http://127.0.0.1:$port/missing || s=$?; kill $web_PID
      echo "missing $s"
      for i in 2 3 4 5 6 7; do cmp $D/1 $D/$i; done
      """)
    XCTAssertEqual(outcome.status, 0, outcome.errors)
    XCTAssertEqual(outcome.output, "missing 125\n")
    XCTAssertTrue(outcome.errors.contains("/missing could not be fetched"), outcome.errors)
  }

  func testJSON() throws {
    let outcome = try bash("tombolo verify --json --at-document-time Tests/attestation/aws.bin")
    let said = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    XCTAssertEqual(said["verified"] as? Bool, true)
    XCTAssertEqual((said["pcrs"] as? [String: String])?.count, 16)
    XCTAssertEqual((said["certificates"] as? [String])?.count, 5)
    let refused = try bash("tombolo verify --json Tests/attestation/aws.bin")
    XCTAssertEqual(refused.status, 1)
    let reason = try XCTUnwrap(JSONSerialization.jsonObject(with: Data(refused.output.utf8)) as? [String: Any])
    XCTAssertEqual(reason["verified"] as? Bool, false)
    XCTAssertTrue((reason["reason"] as? String)?.contains("is not valid after 2024-") ?? false, refused.output)
  }
}
