import ArgumentParser
import CLinux
import EnclaveConfig
import Imaging
import LinuxSystem
import NitroAttestation

struct VerifyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify",
    abstract: "Verify an attestation document, and that it says what you expect.",
    discussion: """
      Ends with status 0 when the document is genuine and all that was asked for is so, with 1 and the reason otherwise. \
      Genuine means: signed, by a certificate that leads to AWS's root (or --root) and is valid now. A document says which \
      image runs only where you give its PCRs, and that it was made for you only where you give your nonce. \
      BYTES are hexadecimal digits, or @FILE for what is in a file. See docs/attestation.md.
      """)

  @Option(help: ArgumentHelp("Trust this certificate (PEM or DER) instead of AWS's root.", valueName: "file"))
  var root: String?
  @Flag(help: "The certificates must be valid at the time that the document says, not now: for one that was kept.")
  var atDocumentTime = false
  @Option(help: ArgumentHelp("The document must be no older than this, such as 30s, 5m or 1h.", valueName: "duration"))
  var maxAge: String?
  @Option(
    parsing: .singleValue,
    help: ArgumentHelp("What a register must be, such as 0=3f5a…; may be repeated.", valueName: "n=hex"))
  var pcr: [String] = []
  @Option(
    help: ArgumentHelp(
      "Registers must be what this says: an EIF, or nitro-cli's or `tombolo image`'s measurements (JSON).",
      valueName: "file"))
  var pcrs: String?
  @Option(help: ArgumentHelp("The document's nonce must be this.", valueName: "bytes"))
  var nonce: String?
  @Option(help: ArgumentHelp("The document's public key must be this.", valueName: "bytes"))
  var publicKey: String?
  @Option(help: ArgumentHelp("The document's user data must be this.", valueName: "bytes"))
  var userData: String?
  @Flag(
    help: "Believe an enclave in debug mode too: its parent can read what it prints, and its image is not measured.")
  var allowDebug = false
  @Flag(help: "Believe a document that nobody has signed, as QEMU makes them: for tests alone, anybody can write one.")
  var allowUnsigned = false
  @Flag(help: "Print one line of JSON, also for a document that is refused.")
  var json = false
  @Argument(
    help: ArgumentHelp(
      "The document as CBOR, base64 or hexadecimal digits: a file, an http or https URL (fetched by curl), or - for standard input.",
      valueName: "file|url|-"))
  var source: String

  func run() throws {
    do {
      let verifier = try verifier()
      let input = try read(source)
      do throws(AttestationError) {
        show(try verifier.verify(DocumentText.decode(input)))
      } catch {
        if json { print("{\"verified\": false, \"reason\": \(jsonString("\(error)"))}") }
        throw fail("\(source): \(error)", status: 1)
      }
    } catch let code as ExitCode {
      throw code
    } catch {
      throw fail("\(error)")
    }
  }

  private func verifier() throws -> AttestationVerifier {
    var verifier = AttestationVerifier()
    if let root {
      let bytes = try readFile(root, limit: 1 << 20)
      do throws(AttestationError) {
        verifier.root =
          bytes.first == 0x30
          ? try TrustedRoot(certificate: bytes) : try TrustedRoot(pem: String(decoding: bytes, as: UTF8.self))
      } catch {
        throw Misuse("--root: \(root): \(error)")
      }
    }
    if atDocumentTime { verifier.time = .document }
    if let maxAge {
      guard let age = parseDuration(maxAge), age > .zero else {
        throw Misuse("--max-age: found \"\(maxAge)\", expected a duration such as \"30s\", \"5m\" or \"1h\"")
      }
      verifier.maximumAge = UInt64(age / .milliseconds(1))
    }
    verifier.expectedPCRs = try registers()
    verifier.nonce = try bytes("--nonce", nonce)
    verifier.publicKey = try bytes("--public-key", publicKey)
    verifier.userData = try bytes("--user-data", userData)
    verifier.allowsDebug = allowDebug
    verifier.allowsUnsigned = allowUnsigned
    return verifier
  }

  private func registers() throws -> [Int: [UInt8]] {
    var registers = try pcrs.map(registers(ofFile:)) ?? [:]
    for text in pcr {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard parts.count == 2, let (number, value) = MeasurementsText.register(name: parts[0], value: parts[1]) else {
        throw Misuse(
          "--pcr: found \"\(text)\", expected a number from 0 to 31, \"=\", and 96 hexadecimal digits (SHA-384)")
      }
      guard registers[number] == nil || registers[number] == value else {
        throw Misuse("--pcr: PCR\(number) was given twice, with two values")
      }
      registers[number] = value
    }
    return registers
  }

  /// An EIF is told by its first bytes; the rest of it is read in pieces.
  private func registers(ofFile path: String) throws -> [Int: [UInt8]] {
    let start = try readStart(path)
    if start == Array(".eif".utf8) {
      let image: EIFDescription
      do { image = try EIFDescription(path: path) } catch { throw Misuse("--pcrs: \(error)") }
      if let damage = image.damage { throw Misuse("--pcrs: \(ImageError.damaged(file: path, damage))") }
      let measured = image.measurements
      var registers = [0: measured.pcr0, 1: measured.pcr1, 2: measured.pcr2]
      registers[8] = measured.pcr8
      return registers
    }
    guard let registers = MeasurementsText.registers(try readFile(path, limit: 1 << 20)) else {
      throw Misuse(
        "--pcrs: \(path) is neither an EIF nor measurements as nitro-cli prints them, {\"Measurements\": {\"PCR0\": \"…\"}}"
      )
    }
    return registers
  }

  private func readStart(_ path: String) throws -> [UInt8] {
    let file = try openFile(path, O_RDONLY)
    var start = [UInt8](repeating: 0, count: 4)
    guard case .bytes(let count) = start.withUnsafeMutableBytes({ readBytes(file.rawValue, $0) }) else { return [] }
    return Array(start.prefix(count))
  }

  private func bytes(_ option: String, _ text: String?) throws -> [UInt8]? {
    guard let text else { return nil }
    if text.hasPrefix("@") { return try readFile(String(text.dropFirst()), limit: 1 << 16) }
    guard let bytes = DocumentText.bytes(hex: text) else {
      throw Misuse("\(option): found \"\(text)\", expected hexadecimal digits, or @FILE")
    }
    return bytes
  }

  private func read(_ source: String) throws -> [UInt8] {
    let limit = DocumentText.maximumSize + 1
    if source == "-" { return try readToEnd(0, limit: limit) }
    if source.hasPrefix("http://") || source.hasPrefix("https://") { return try Fetcher.fetch(source, limit: limit) }
    return try readFile(source, limit: limit)
  }

  private func show(_ verified: VerifiedDocument) {
    if !verified.isSigned { say("warning: nobody has signed this document; nothing in it is known to be true") }
    if verified.document.isDebug { say("warning: the enclave runs in debug mode") }
    print(json ? verified.json : verified.words)
  }
}

extension VerifiedDocument {
  fileprivate var registers: [(number: Int, value: [UInt8])] {
    document.pcrs.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
  }

  private var made: String { rfc3339(UInt32(clamping: document.timestamp / 1000)) }

  fileprivate var words: String {
    var lines = [("Module", document.moduleID), ("Made", made)]
    if let validUntil { lines.append(("Valid until", rfc3339(UInt32(clamping: validUntil)))) }
    lines += subjects.first.map { [("Root", $0)] } ?? [("Signed by", "nobody")]
    // A register that nothing uses is zeros.
    for (number, value) in registers where number < 3 || value.contains(where: { $0 != 0 }) {
      lines.append(("PCR\(number)", hex(value)))
    }
    for (name, value) in [
      ("Public key", document.publicKey), ("User data", document.userData), ("Nonce", document.nonce),
    ] {
      if let value { lines.append((name, hex(value))) }
    }
    return lines.map { name, value in name + String(repeating: " ", count: 13 - name.count) + shown(value) }
      .joined(separator: "\n")
  }

  /// The module's id and names are text of somebody else's, if nobody has signed them.
  private func shown(_ text: String) -> String {
    text.unicodeScalars.reduce(into: "") { line, scalar in
      if (0x20...0x7e).contains(scalar.value) { line.unicodeScalars.append(scalar) } else { line += "?" }
    }
  }

  fileprivate var json: String {
    func field(_ bytes: [UInt8]?) -> String { bytes.map { "\"\(hex($0))\"" } ?? "null" }
    let pcrs = registers.map { "\"\($0.number)\": \"\(hex($0.value))\"" }.joined(separator: ", ")
    let fields = [
      "\"verified\": true", "\"signed\": \(isSigned)", "\"debug\": \(document.isDebug)",
      "\"module_id\": \(jsonString(document.moduleID))", "\"timestamp\": \(document.timestamp)",
      "\"made\": \"\(made)\"",
      "\"valid_until\": \(validUntil.map { "\"\(rfc3339(UInt32(clamping: $0)))\"" } ?? "null")", "\"pcrs\": {\(pcrs)}",
      "\"public_key\": \(field(document.publicKey))", "\"user_data\": \(field(document.userData))",
      "\"nonce\": \(field(document.nonce))",
      "\"certificates\": [\(subjects.map(jsonString).joined(separator: ", "))]",
    ]
    return "{" + fields.joined(separator: ", ") + "}"
  }
}
