import CLinux
import FoundationEssentials
import LinuxSystem

/// What an image's configuration says of its program; nil and empty where it says nothing.
public struct ImageProgram: Equatable, Sendable {
  /// ENTRYPOINT and CMD, joined as Docker joins them.
  public var command: [String] = []
  /// `KEY=value`, in the image's order.
  public var environment: [String] = []
  public var user: String?
  public var workingDirectory: String?

  public init() {}
}

/// An image read from a file: a root file system, and what is known of its program.
public struct ImageArchive {
  public let tree: FileTree
  /// nil for a plain tar, which has none.
  public let program: ImageProgram?
  /// The configuration document as it stood in the archive, for the EIF's metadata.
  public let configuration: [UInt8]?

  /// Reads a tar of a root file system, a `docker save` archive, or an OCI image layout (tar or directory), each
  /// plain or compressed by gzip, xz or zstd.
  /// - Parameters:
  ///   - architecture: the one to take where the image has several (`amd64`, `arm64`).
  ///   - unpackedLimit: bytes that may come out of its compressed files together.
  public static func read(
    _ path: String, architecture: String, unpackedLimit: Int = UnpackLimit.usual, warn: @escaping (String) -> Void
  ) throws(ImageError) -> ImageArchive {
    var limit = UnpackLimit.image(unpackedLimit)
    if fileKind(path) == .directory {
      let layout = try DirectoryReader.read(path, warn: warn)
      guard let archive = try fromLayout(layout, name: path, architecture: architecture, &limit) else {
        throw .malformed(
          file: path,
          "is a directory without an OCI layout's index.json and oci-layout or docker save's manifest.json"
            + "; for a root file system use --rootfs")
      }
      return archive
    }
    let source = try FileSlice(path: path).decompressed(&limit)
    guard try TarReader.recognises(source) else {
      throw .malformed(file: path, "is not a tar archive (plain, or compressed by gzip, xz or zstd)")
    }
    let tree = FileTree()
    var plain = LayerApplier(tree: tree, whiteouts: false)
    try plain.apply(source)
    if let archive = try fromLayout(tree, name: path, architecture: architecture, &limit) { return archive }
    return ImageArchive(tree: tree, program: nil, configuration: nil)
  }

  private static func fromLayout(
    _ layout: FileTree, name: String, architecture: String, _ limit: inout UnpackLimit
  ) throws(ImageError) -> ImageArchive? {
    let documents = LayoutDocuments(tree: layout, name: name)
    if layout.lookup("oci-layout") != nil, layout.lookup("index.json") != nil {
      return try assemble(try documents.ociImage(architecture: architecture), documents, &limit)
    }
    // A root file system may have a file of that name too: then it is not this list.
    if layout.lookup("manifest.json") != nil, let image = try documents.dockerImage(architecture: architecture) {
      return try assemble(image, documents, &limit)
    }
    return nil
  }

  private static func assemble(
    _ image: LayoutDocuments.Image, _ documents: LayoutDocuments, _ limit: inout UnpackLimit
  ) throws(ImageError) -> ImageArchive {
    let identifiers = image.configuration.rootfs?.diffIDs ?? []
    guard identifiers.count == image.layers.count else {
      throw .malformed(
        file: documents.name, "the image has \(image.layers.count) layers, its configuration lists \(identifiers.count)"
      )
    }
    let tree = FileTree()
    var applier = LayerApplier(tree: tree, whiteouts: true)
    for (layer, identifier) in zip(image.layers, identifiers) {
      let source = try layer.decompressed(&limit)
      try documents.verify(source, identifier, "layer \(layer.name)")
      guard try TarReader.recognises(source) else {
        throw .malformed(file: layer.name, "this layer is not a tar archive")
      }
      try applier.apply(source)
    }
    return ImageArchive(
      tree: tree, program: image.configuration.config?.program ?? ImageProgram(), configuration: image.document)
  }
}

/// The JSON documents of an image layout. Names of fields: OCI image specification, and Docker's image specification
/// v1.2 for `manifest.json`.
struct LayoutDocuments {
  let tree: FileTree
  let name: String

  struct Image {
    var configuration: Configuration
    var document: [UInt8]
    var layers: [FileSlice]
  }

  struct Descriptor: Decodable {
    struct Platform: Decodable {
      var architecture: String?
      var os: String?
    }
    var mediaType: String?
    var digest: String
    var size: Int
    var platform: Platform?
    var annotations: [String: String]?
  }

  struct Index: Decodable { var manifests: [Descriptor] }

  struct Manifest: Decodable {
    var config: Descriptor
    var layers: [Descriptor]
  }

  struct DockerManifest: Decodable {
    var config: String
    var layers: [String]
    var tags: [String]?
    enum CodingKeys: String, CodingKey {
      case config = "Config"
      case layers = "Layers"
      case tags = "RepoTags"
    }
  }

  struct Configuration: Decodable {
    struct Program: Decodable {
      var user: String?
      var environment: [String]?
      var entryPoint: [String]?
      var command: [String]?
      var workingDirectory: String?
      enum CodingKeys: String, CodingKey {
        case user = "User"
        case environment = "Env"
        case entryPoint = "Entrypoint"
        case command = "Cmd"
        case workingDirectory = "WorkingDir"
      }
      var program: ImageProgram {
        var program = ImageProgram()
        program.command = (entryPoint ?? []) + (command ?? [])
        program.environment = environment ?? []
        program.user = user.flatMap { $0.isEmpty ? nil : $0 }
        program.workingDirectory = workingDirectory.flatMap { $0.isEmpty ? nil : $0 }
        return program
      }
    }
    struct RootFileSystem: Decodable {
      var diffIDs: [String]?
      enum CodingKeys: String, CodingKey { case diffIDs = "diff_ids" }
    }
    var architecture: String?
    var config: Program?
    var rootfs: RootFileSystem?
  }

  private static let largestDocument = 16 << 20

  func ociImage(architecture: String) throws(ImageError) -> Image {
    let index = try decode(Index.self, try contents("index.json"), "index.json")
    let manifestDescriptor = try select(index.manifests, architecture: architecture, depth: 0)
    let manifest = try decode(Manifest.self, try blob(manifestDescriptor), "manifest \(manifestDescriptor.digest)")
    let document = try blob(manifest.config)
    let configuration = try decode(Configuration.self, document, "configuration \(manifest.config.digest)")
    try check(configuration, architecture)
    var layers: [FileSlice] = []
    for layer in manifest.layers { layers.append(try slice(layer)) }
    return Image(configuration: configuration, document: document, layers: layers)
  }

  /// nil when `manifest.json` is some other document.
  func dockerImage(architecture: String) throws(ImageError) -> Image? {
    let bytes = try contents("manifest.json")
    guard let images = try? JSONDecoder().decode([DockerManifest].self, from: Data(bytes)) else { return nil }
    guard images.count == 1, let image = images.first else {
      let names = images.map { $0.tags?.first ?? $0.config }.joined(separator: ", ")
      throw .malformed(file: name, "holds \(images.count) images (\(names)); save exactly one")
    }
    let source = try file(image.config)
    let document = try source.all(limit: LayoutDocuments.largestDocument)
    // The file is named after its digest: <hex>.json, or blobs/sha256/<hex> since Docker 25.
    if let last = image.config.split(separator: "/").last {
      let digits = last.hasSuffix(".json") ? last.dropLast(5) : last
      if digits.count == 64, digits.allSatisfy(\.isHexDigit) {
        try verify(source, "sha256:\(digits)", "configuration \(image.config)")
      }
    }
    let configuration = try decode(Configuration.self, document, image.config)
    try check(configuration, architecture)
    var layers: [FileSlice] = []
    for layer in image.layers { layers.append(try file(layer)) }
    return Image(configuration: configuration, document: document, layers: layers)
  }

  /// Follows nested indexes to the one manifest that fits.
  private func select(
    _ manifests: [Descriptor], architecture: String, depth: Int
  ) throws(ImageError) -> Descriptor {
    let images = manifests.filter { manifest in
      if manifest.annotations?["vnd.docker.reference.type"] == "attestation-manifest" { return false }
      guard let platform = manifest.platform else { return true }
      return platform.os ?? "linux" == "linux" && platform.architecture ?? architecture == architecture
    }
    guard images.count == 1, let image = images.first else {
      let found = manifests.map { "\($0.platform?.os ?? "?")/\($0.platform?.architecture ?? "?")" }.joined(
        separator: ", ")
      throw .malformed(
        file: name,
        "the index lists \(manifests.count) manifests (\(found)); exactly one for linux/\(architecture) was expected, \(images.count) fit"
      )
    }
    let nested = [
      "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
    guard let type = image.mediaType, nested.contains(type) else { return image }
    guard depth < 4 else { throw .malformed(file: name, "image indexes nested more than 4 deep") }
    let index = try decode(Index.self, try blob(image), "index \(image.digest)")
    return try select(index.manifests, architecture: architecture, depth: depth + 1)
  }

  private func check(_ configuration: Configuration, _ architecture: String) throws(ImageError) {
    guard let found = configuration.architecture, found != architecture else { return }
    throw .malformed(file: name, "is an image for \(found); \(architecture) was expected")
  }

  private func slice(_ descriptor: Descriptor) throws(ImageError) -> FileSlice {
    let parts = descriptor.digest.split(separator: ":")
    guard parts.count == 2, parts[1].allSatisfy(\.isHexDigit) else {
      throw .malformed(file: name, "\"\(descriptor.digest)\" is not a digest")
    }
    let source = try file("blobs/\(parts[0])/\(parts[1])")
    guard source.count == descriptor.size else {
      throw .malformed(
        file: name, "blob \(descriptor.digest) has \(source.count) bytes; \(descriptor.size) were expected")
    }
    try verify(source, descriptor.digest, "blob \(descriptor.digest)")
    return source
  }

  private func blob(_ descriptor: Descriptor) throws(ImageError) -> [UInt8] {
    try slice(descriptor).all(limit: LayoutDocuments.largestDocument)
  }

  private func file(_ path: String) throws(ImageError) -> FileSlice {
    guard case .file(let content)? = tree.lookup(path)?.kind, let slice = try content.slice() else {
      throw .malformed(file: name, "has no \(path), which its manifest names")
    }
    return slice
  }

  private func contents(_ path: String) throws(ImageError) -> [UInt8] {
    try file(path).all(limit: LayoutDocuments.largestDocument)
  }

  private func decode<Document: Decodable>(
    _ type: Document.Type, _ bytes: [UInt8], _ what: String
  ) throws(ImageError) -> Document {
    do {
      return try JSONDecoder().decode(type, from: Data(bytes))
    } catch let error as DecodingError {
      throw .malformed(file: name, "\(what) is not what an image has there: \(LayoutDocuments.explain(error))")
    } catch {
      throw .malformed(file: name, "\(what) cannot be read: \(error)")
    }
  }

  private static func explain(_ error: DecodingError) -> String {
    func path(_ context: DecodingError.Context) -> String {
      context.codingPath.map(\.stringValue).joined(separator: ".")
    }
    return switch error {
    case .keyNotFound(let key, let context):
      "\(path(context))\(context.codingPath.isEmpty ? "" : ".")\(key.stringValue) is missing"
    case .typeMismatch(let type, let context): "\(path(context)) is not of type \(type)"
    case .valueNotFound(_, let context): "\(path(context)) is null"
    case .dataCorrupted(let context): context.codingPath.isEmpty ? "not JSON" : "\(path(context)) is damaged"
    @unknown default: "not as expected"
    }
  }

  /// Compares a file with its digest, `algorithm:hex`.
  func verify(_ source: FileSlice, _ digest: String, _ what: String) throws(ImageError) {
    let found: String
    if digest.hasPrefix("sha256:") {
      found = "sha256:" + (try source.sha256())
    } else if digest.hasPrefix("sha512:") {
      found = "sha512:" + (try source.sha512())
    } else {
      throw .malformed(file: name, "\(what): digest \"\(digest)\" is neither sha256 nor sha512")
    }
    guard found == digest.lowercased() else {
      throw .malformed(file: name, "\(what) does not match its digest: found \(found), expected \(digest)")
    }
  }
}
