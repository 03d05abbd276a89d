import ArgumentParser
import CLinux
import Imaging

struct ImageDescribeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "describe", abstract: "Check an EIF and print what is in it.",
    discussion: "Ends with status 1 when the file is damaged, after printing what can be said of it.")

  @Flag(help: "Print JSON, with the fields of nitro-cli describe-eif and more.")
  var json = false
  @Argument(help: ArgumentHelp("The EIF.", valueName: "file.eif"))
  var file: String

  func run() throws { try sayingWhy(describe) }

  private func describe() throws {
    let description = try EIFDescription(path: file)
    print(json ? document(description) : words(description))
    if let damage = description.damage { throw ImageError.damaged(file: file, damage) }
    if let certificate = description.signature?.certificate, !certificate.isValid(at: now()) {
      report(
        "warning: the certificate is for \(certificate.notBefore) to \(certificate.notAfter); Nitro refuses it now")
    }
  }

  private func now() -> String { rfc3339(UInt32(clamping: time(nil))).prefix(19) + "Z" }

  private func words(_ image: EIFDescription) -> String {
    var lines = [
      "\(file): EIF version \(image.version), \(image.isARM64 ? "arm64" : "x86-64"), \(image.fileSize) bytes",
      "CRC-32        \(image.checksumMatches ? "matches" : "DOES NOT MATCH")",
      "Defaults      \(image.defaultMemory >> 20) MiB of memory, \(image.defaultCPUs) CPUs",
      "Command line  \(image.commandLine)",
      "Sections",
    ]
    for section in image.sections {
      let kind = section.kind.description
      lines.append(
        "  \(kind)\(String(repeating: " ", count: 14 - kind.count))\(section.size) bytes at \(section.offset)")
    }
    if let metadata = image.metadata { lines.append("Metadata      \(String(decoding: metadata, as: UTF8.self))") }
    lines += image.measurements.named.map { "\($0.name)          \($0.hex)" }
    if let signature = image.signature {
      let certificate = signature.certificate
      lines.append("Signed by     \(certificate.subject)")
      lines.append("  issued by   \(certificate.issuer), valid \(certificate.notBefore) to \(certificate.notAfter)")
    } else {
      lines.append(image.sections.contains { $0.kind == .signature } ? "Signature     NOT VALID" : "Not signed")
    }
    return lines.joined(separator: "\n")
  }

  private func document(_ image: EIFDescription) -> String {
    let sections = image.sections.map {
      "{\"Type\": \(jsonString($0.kind.description)), \"Offset\": \($0.offset), \"Size\": \($0.size)}"
    }.joined(separator: ", ")
    let signed = image.sections.contains { $0.kind == .signature }
    var fields = [
      "\"EifVersion\": \(image.version)", "\"Measurements\": \(measurementsJSON(image.measurements))",
      "\"IsSigned\": \(signed)", "\"CheckCRC\": \(image.checksumMatches)", "\"Size\": \(image.fileSize)",
      "\"Architecture\": \"\(image.isARM64 ? "arm64" : "x86_64")\"", "\"Cmdline\": \(jsonString(image.commandLine))",
      "\"Sections\": [\(sections)]",
    ]
    if let signature = image.signature {
      let certificate = signature.certificate
      fields.append(
        "\"SigningCertificate\": {\"SubjectName\": \(jsonString(certificate.subject)), \"IssuerName\": "
          + "\(jsonString(certificate.issuer)), \"NotBefore\": \"\(certificate.notBefore)\", \"NotAfter\": \"\(certificate.notAfter)\"}"
      )
    }
    if signed { fields.append("\"SignatureCheck\": \(image.signature != nil && image.damage == nil)") }
    switch (image.metadata, image.damage) {
    case (_, .metadata), (nil, _): break
    case (let metadata?, _) where image.checksumMatches:
      fields.append("\"Metadata\": \(String(decoding: metadata, as: UTF8.self))")
    default: break  // changed bytes are not passed on as JSON
    }
    if let damage = image.damage { fields.append("\"Damage\": \(jsonString(damage.description))") }
    return "{" + fields.joined(separator: ", ") + "}"
  }
}
