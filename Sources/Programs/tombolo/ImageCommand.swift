import ArgumentParser
import CLinux
import EnclaveConfig
import Imaging
import Inet
import LinuxSystem
import Wire

/// `tombolo image`: enclave images, from a root file system or a container image.
struct ImageCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image", abstract: "Build enclave images (EIF, initramfs) and describe them.",
    subcommands: [ImageBuildCommand.self, ImageDescribeCommand.self, ImagePCR16Command.self])
}

struct ImageBuildCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "build",
    abstract: "Build an EIF or an initramfs, bit for bit the same from the same input.",
    discussion: """
      The root file system comes from a directory, or from an archive: a tar, the output of docker save, or an OCI \
      image layout. Of a container image, USER, WORKDIR, ENV and ENTRYPOINT with CMD are kept; what --config says in \
      [program], and a command after --, win over them. SOURCE_DATE_EPOCH sets the time of all files (else 1970).
      """)

  @Option(help: ArgumentHelp("The root file system, as a directory.", valueName: "dir"))
  var rootfs: String?
  @Option(
    help: ArgumentHelp("The image: a tar, a docker save archive, an OCI layout (tar or directory).", valueName: "file"))
  var archive: String?
  @Option(help: ArgumentHelp("The kernel (bzImage). An EIF needs one.", valueName: "file"))
  var kernel: String?
  @Option(help: ArgumentHelp("The kernel's command line; by default nitro-cli's for x86-64.", valueName: "text"))
  var cmdline: String?
  @Option(
    help: ArgumentHelp("Take kernel modules from this directory (lib/modules/VERSION, nsm.ko).", valueName: "dir"))
  var modules: String?
  @Option(
    name: .customLong("module"), parsing: .singleValue,
    help: ArgumentHelp(
      "A module to take, with what it needs; may be repeated. By default those that tombolo-init uses.",
      valueName: "name"))
  var moduleNames: [String] = []
  @Option(help: ArgumentHelp("The enclave's configuration, /etc/tombolo.toml inside.", valueName: "file"))
  var config: String?
  @Option(
    name: .customLong("init"),
    help: ArgumentHelp("The init program; by default tombolo-init beside tombolo.", valueName: "file"))
  var initPath: String?
  @Option(help: ArgumentHelp("The image's name in its metadata; by default the output's.", valueName: "text"))
  var name: String?
  @Option(name: .customLong("version"), help: ArgumentHelp("The image's version in its metadata.", valueName: "text"))
  var imageVersion = "1.0"
  @Option(help: ArgumentHelp("Sign with this certificate (PEM, P-384).", valueName: "file"))
  var signingCertificate: String?
  @Option(help: ArgumentHelp("The certificate's private key (PEM, P-384).", valueName: "file"))
  var privateKey: String?
  @Option(
    help: ArgumentHelp(
      "The most that an archive's compressed files may unpack to together, such as 64GiB; by default 16GiB.",
      valueName: "size"))
  var unpackedLimit: String?
  @Flag(help: "Print one line of JSON with the file's name and size too.")
  var json = false
  @Option(
    name: .shortAndLong,
    help: ArgumentHelp("What to write; its ending says what it is: .eif or .cpio.", valueName: "file"))
  var output: String
  @Argument(parsing: .postTerminator, help: ArgumentHelp("The command to run, after --.", valueName: "command"))
  var command: [String] = []

  func run() throws { try sayingWhy(build) }

  private func build() throws {
    let root: ImageRequest.Root
    switch (rootfs, archive) {
    case (let directory?, nil): root = .directory(directory)
    case (nil, let file?): root = .archive(file)
    default: throw ValidationError("Give exactly one of --rootfs DIR and --archive FILE.")
    }
    let base = output.split(separator: "/").last.map(String.init) ?? output
    var request = ImageRequest(
      root: root, output: output, initPath: try initPath ?? besideThisProgram("tombolo-init"),
      name: name ?? base.split(separator: ".").first.map(String.init) ?? base, toolVersion: tomboloVersion)
    request.version = imageVersion
    request.kernel = kernel
    request.commandLine = cmdline
    request.modules = modules
    request.moduleNames = moduleNames
    request.configuration = config
    request.command = command
    request.signingCertificate = signingCertificate
    request.privateKey = privateKey
    request.time = try sourceDate()
    if let unpackedLimit {
      guard let bytes = parseSize(unpackedLimit), bytes > 0 else {
        throw ValidationError(
          "--unpacked-limit: found \"\(unpackedLimit)\", expected a size such as 64GiB, at most 1024GiB")
      }
      request.unpackedLimit = bytes
    }

    let bar = ProgressBar(label: base)
    defer { bar.clear() }
    let result = try ImageBuilder.build(
      request,
      warn: { sentence in
        bar.clear()
        report("warning: \(sentence)")
      }, progress: bar.show)
    bar.clear()
    report("\(output): \(megabytes(result.byteCount))")
    print(json ? summary(result) : measurements(result, indent: true))
  }

  private func measurements(_ result: ImageResult, indent: Bool) -> String {
    guard let measurements = result.measurements else {
      return "{\"Initramfs\": {\"SHA384\": \"\(hex(result.digest ?? []))\", \"Size\": \(result.byteCount)}}"
    }
    return indent
      ? "{\n  \"Measurements\": \(measurementsJSON(measurements, indent: "  "))\n}" : measurementsJSON(measurements)
  }

  private func summary(_ result: ImageResult) -> String {
    let what = result.measurements.map { "\"Measurements\": \(measurementsJSON($0)), \"IsSigned\": \($0.pcr8 != nil)" }
    let digest = result.digest.map { "\"SHA384\": \"\(hex($0))\"" }
    return "{\"Output\": \(jsonString(output)), \"Size\": \(result.byteCount), \(what ?? digest ?? "")}"
  }

  private func sourceDate() throws -> UInt32 {
    guard let value = getenv("SOURCE_DATE_EPOCH").map({ String(cString: $0) }), !value.isEmpty else { return 0 }
    guard let seconds = UInt32(value) else {
      throw ImageError.refused(
        "SOURCE_DATE_EPOCH is \"\(value)\"; seconds since 1970, 0 to \(UInt32.max), were expected")
    }
    return seconds
  }
}

/// `Measurements` as nitro-cli prints it.
func measurementsJSON(_ measurements: Measurements, indent: String? = nil) -> String {
  let fields = [("HashAlgorithm", "Sha384 { ... }")] + measurements.named.map { ($0.name, $0.hex) }
  guard let indent else { return "{" + fields.map { "\"\($0.0)\": \"\($0.1)\"" }.joined(separator: ", ") + "}" }
  return "{\n" + fields.map { "\(indent)  \"\($0.0)\": \"\($0.1)\"" }.joined(separator: ",\n") + "\n\(indent)}"
}

/// Ends the command with one sentence where an image is the matter.
func sayingWhy(_ body: () throws -> Void) throws {
  do { try body() } catch let error as ImageError { throw fail("\(error)", status: 1) } catch let error as SystemError {
    throw fail("\(error)", status: 1)
  }
}

/// One line on standard error.
func report(_ line: String) {
  try? writeAll(2, Array((line + "\n").utf8), "standard error")
}

/// Bytes in units that people read; 1 MB is 10^6 bytes.
func megabytes(_ count: Int) -> String {
  if count < 1_000_000 { return "\((count + 500) / 1000) kB" }
  return "\(count / 1_000_000).\(count / 100_000 % 10) MB"
}

private func besideThisProgram(_ name: String) throws -> String {
  let own = try readLink("/proc/self/exe")
  let directory = own.lastIndex(of: "/").map { String(own[..<$0]) } ?? ""
  let path = "\(directory)/\(name)"
  guard fileKind(path) == .file else {
    throw ImageError.refused("\(path): not there; give the init program with --init FILE")
  }
  return path
}

/// A line that is drawn over itself, on a terminal; nothing anywhere else.
final class ProgressBar {
  private static let width = 40
  private let label: String
  private let enabled = isatty(2) == 1
  private var drawn = -1

  init(label: String) { self.label = label }

  func show(_ done: Int, of total: Int) {
    let percent = total > 0 ? Int((Double(done) * 100 / Double(total)).rounded(.down)) : 100
    guard enabled, percent != drawn else { return }
    drawn = percent
    let full = percent * ProgressBar.width / 100
    let bar = String(repeating: "#", count: full) + String(repeating: "-", count: ProgressBar.width - full)
    try? writeAll(2, Array("\r\(label) [\(bar)] \(percent) % of \(megabytes(total))".utf8), "standard error")
  }

  func clear() {
    guard enabled, drawn >= 0 else { return }
    drawn = -1
    try? writeAll(2, Array("\r\u{1b}[K".utf8), "standard error")
  }
}
