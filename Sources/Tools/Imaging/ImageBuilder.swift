import CLinux
import Crypto
import LinuxSystem

/// What to build an image from, and where to.
public struct ImageRequest: Sendable {
  public enum Root: Sendable {
    case directory(String)
    case archive(String)
  }

  public var root: Root
  public var output: String
  public var initPath: String
  public var kernel: String?
  /// nil for AWS's own (x86-64 only).
  public var commandLine: String?
  public var modules: String?
  /// Empty for the usual ones.
  public var moduleNames: [String] = []
  public var configuration: String?
  public var command: [String] = []
  public var name: String
  public var version = "1.0"
  public var toolVersion: String
  public var signingCertificate: String?
  public var privateKey: String?
  /// Bytes that may come out of an archive's compressed files together.
  public var unpackedLimit = UnpackLimit.usual
  /// Seconds since 1970 (SOURCE_DATE_EPOCH).
  public var time: UInt32 = 0

  public init(root: Root, output: String, initPath: String, name: String, toolVersion: String) {
    self.root = root
    self.output = output
    self.initPath = initPath
    self.name = name
    self.toolVersion = toolVersion
  }

  /// nitro-cli's command line for x86-64.
  public static let usualCommandLine =
    "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd random.trust_cpu=on"
}

public struct ImageResult: Sendable {
  /// nil for a `.cpio`, which is not measured: the registers cover the kernel and its command line too.
  public var measurements: Measurements?
  public var byteCount: Int
  /// Of a `.cpio`: its SHA-384.
  public var digest: [UInt8]?
}

/// Builds images: reads everything, plans the ramdisks, writes the file in one pass.
public struct ImageBuilder {
  public enum Format: Sendable {
    case eif
    case cpio

    public init(output: String) throws(ImageError) {
      if output.hasSuffix(".eif") {
        self = .eif
      } else if output.hasSuffix(".cpio") {
        self = .cpio
      } else {
        throw .refused("\(output): the output's name must end in .eif or .cpio, which says what is built")
      }
    }
  }

  /// - Parameters:
  ///   - warn: gets sentences about what was left out.
  ///   - progress: gets the bytes written so far and in all.
  public static func build(
    _ request: ImageRequest, warn: @escaping (String) -> Void, progress: @escaping (Int, Int) -> Void
  ) throws(ImageError) -> ImageResult {
    let format = try Format(output: request.output)
    let kernel: (file: FileSlice, image: KernelImage)?
    if let path = request.kernel {
      let file = try FileSlice(path: path)
      kernel = (file, try KernelImage(file))
    } else {
      guard format == .cpio else { throw .refused("\(request.output): an EIF needs a kernel (--kernel FILE)") }
      kernel = nil
    }
    let architecture = kernel?.image.architecture ?? .x86_64
    let signer = try signer(request, format)
    let output = try AtomicOutput(path: request.output)
    let plan = try plan(request, architecture: architecture, kernelVersion: kernel?.image.version, warn: warn)
    let ramdisks = [
      try CpioArchive(plan.tree.boot, time: request.time), try CpioArchive(plan.tree.application, time: request.time),
    ]

    var result: ImageResult
    switch (format, kernel) {
    case (.eif, let kernel?):
      let metadata = ImageMetadata(
        name: request.name, version: request.version, buildTime: request.time, toolVersion: request.toolVersion,
        kernelVersion: kernel.image.version)
      let contents = EIFContents(
        kernel: kernel.file, architecture: architecture, commandLine: try commandLine(request, architecture),
        metadata: metadata.json(docker: plan.configuration), ramdisks: ramdisks, signer: signer)
      let total = contents.byteCount
      let measurements = try EIFWriter.write(contents, to: output) { progress(min($0, total), total) }
      progress(total, total)
      result = ImageResult(measurements: measurements, byteCount: output.count, digest: nil)
    default:
      let total = ramdisks.reduce(0) { $0 + $1.byteCount }
      var digest = SHA384()
      for ramdisk in ramdisks {
        try ramdisk.write { (chunk) throws(ImageError) in
          digest.update(bufferPointer: chunk)
          try output.append(chunk)
          progress(output.count, total)
        }
      }
      result = ImageResult(measurements: nil, byteCount: output.count, digest: Array(digest.finalize()))
    }
    try output.commit()
    return result
  }

  private static func commandLine(
    _ request: ImageRequest, _ architecture: KernelArchitecture
  ) throws(ImageError) -> String {
    if let line = request.commandLine { return line }
    guard architecture == .x86_64 else {
      throw .refused("the kernel is for arm64: give its command line with --cmdline")
    }
    return ImageRequest.usualCommandLine
  }

  private static func signer(_ request: ImageRequest, _ format: Format) throws(ImageError) -> ImageSigner? {
    switch (request.signingCertificate, request.privateKey) {
    case (nil, nil): return nil
    case (let certificate?, let key?):
      guard format == .eif else { throw .refused("\(request.output): only an EIF can be signed") }
      return try ImageSigner(certificatePath: certificate, keyPath: key)
    default: throw .refused("signing needs both --signing-certificate and --private-key")
    }
  }

  private static func companion(
    _ name: String, neededFor key: String, beside initPath: String
  ) throws(ImageError) -> FileSlice {
    let path = (initPath.lastIndex(of: "/").map { String(initPath[...$0]) } ?? "") + name
    guard fileKind(path) == .file else {
      throw .refused("\(key) needs \(name) beside the init program: \(path) is not there")
    }
    let program = try FileSlice(path: path)
    try StaticProgram.check(program)
    return program
  }

  private static func plan(
    _ request: ImageRequest, architecture: KernelArchitecture, kernelVersion: String?, warn: @escaping (String) -> Void
  ) throws(ImageError) -> (tree: ImagePlan, configuration: [UInt8]?) {
    let initProgram = try FileSlice(path: request.initPath)
    try StaticProgram.check(initProgram)
    var given: (name: String, text: String)?
    if let path = request.configuration {
      guard let text = String(validating: try FileSlice(path: path).all(limit: 1 << 20), as: UTF8.self) else {
        throw .malformed(file: path, "is not UTF-8")
      }
      given = (path, text)
    }
    let archive: ImageArchive
    switch request.root {
    case .directory(let path):
      archive = ImageArchive(tree: try DirectoryReader.read(path, warn: warn), program: nil, configuration: nil)
    case .archive(let path):
      archive = try ImageArchive.read(
        path, architecture: architecture.imageName, unpackedLimit: request.unpackedLimit, warn: warn)
    }
    var nsm: FileContent?
    var modules: [KernelModules.Module] = []
    if let directory = request.modules {
      let found = try KernelModules(directory, kernelVersion: kernelVersion)
      nsm = found.nsm
      let usual = request.moduleNames.isEmpty
      let extra = try ImagePlan.hasNetworkMounts(archive.tree, given: given) ? KernelModules.forNetworkMounts : []
      modules = try found.loadOrder(usual ? KernelModules.usual + extra : request.moduleNames, required: !usual)
    } else if !request.moduleNames.isEmpty {
      throw .refused("--module needs --modules DIR, the directory to take modules from")
    }
    let plan = try ImagePlan(
      root: archive.tree, program: archive.program ?? ImageProgram(), command: request.command, given: given,
      initProgram: initProgram,
      companion: { (name, key) throws(ImageError) in
        try companion(name, neededFor: key, beside: request.initPath)
      }, nsm: nsm, modules: modules)
    return (plan, archive.configuration)
  }
}
