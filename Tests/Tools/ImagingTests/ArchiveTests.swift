import Crypto
import Foundation
import XCTest

@testable import Imaging

/// Container images as Docker and the OCI write them.
final class ArchiveTests: XCTestCase {
  private let lower = tar([
    TarMember(name: "bin/app", body: Array("v1".utf8), mode: 0o755), TarMember(name: "etc/secret", body: [1]),
  ])
  private let upper = tar([
    TarMember(name: "bin/app", body: Array("v2".utf8), mode: 0o755), TarMember(name: "etc/.wh.secret"),
  ])

  private func digest(_ bytes: [UInt8]) -> String { hex(SHA256.hash(data: bytes)) }

  private func configuration(_ layers: [[UInt8]], architecture: String = "amd64") -> [UInt8] {
    let identifiers = layers.map { "\"sha256:\(digest($0))\"" }.joined(separator: ",")
    return Array(
      """
      {"architecture":"\(architecture)","os":"linux","created":"2024-01-01T00:00:00Z","config":{"User":"app","Env":["PATH=/bin","A=b=c"],
       "Entrypoint":["/bin/app","--flag"],"Cmd":["arg"],"WorkingDir":"/srv"},"rootfs":{"type":"layers","diff_ids":[\(identifiers)]}}
      """.utf8)
  }

  private func gzip(_ bytes: [UInt8], _ scratch: Scratch) throws -> [UInt8] {
    let file = try scratch.write("layer", bytes)
    try shell("gzip -n -f $1", file)
    return try FileSlice(path: file + ".gz").all(limit: 1 << 20)
  }

  private func read(_ path: String) throws -> ImageArchive {
    try ImageArchive.read(path, architecture: "amd64", warn: { _ in })
  }

  private func check(_ image: ImageArchive, _ what: String = "", line: UInt = #line) {
    XCTAssertEqual(image.tree.paths, ["bin", "bin/app", "etc"], what, line: line)
    XCTAssertEqual(image.tree.text(at: "bin/app"), "v2", what, line: line)
    XCTAssertEqual(image.program?.command, ["/bin/app", "--flag", "arg"], line: line)
    XCTAssertEqual(image.program?.environment, ["PATH=/bin", "A=b=c"], line: line)
    XCTAssertEqual(image.program?.user, "app", line: line)
    XCTAssertEqual(image.program?.workingDirectory, "/srv", line: line)
  }

  func testDockerSaveOldLayoutWithALinkedLayer() throws {
    let scratch = try Scratch()
    let config = configuration([lower, upper])
    let name = digest(config)
    let manifest = #"[{"Config":"\#(name).json","RepoTags":["a:b"],"Layers":["one/layer.tar","two/layer.tar"]}]"#
    let members = [
      TarMember(name: "one/layer.tar", body: lower), TarMember(name: "real/layer.tar", body: upper),
      // Docker before 25 stored a layer that came twice as a link.
      TarMember(name: "two/layer.tar", type: "2", link: "../real/layer.tar"),
      TarMember(name: "\(name).json", body: config), TarMember(name: "manifest.json", body: Array(manifest.utf8)),
    ]
    check(try read(try scratch.write("a.tar", tar(members))))
    let packed = try scratch.write("b.tar", try gzip(tar(members), scratch))
    check(try read(packed), "docker save | gzip")
  }

  private func layout(_ scratch: Scratch, change: (inout [String: [UInt8]]) -> Void = { _ in }) throws -> String {
    let layers = [try gzip(lower, scratch), upper]
    let config = configuration([lower, upper])
    func descriptor(_ type: String, _ bytes: [UInt8], _ rest: String = "") -> String {
      #"{"mediaType":"\#(type)","digest":"sha256:\#(digest(bytes))","size":\#(bytes.count)\#(rest)}"#
    }
    let layerTypes = ["application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar"]
    let list = zip(layerTypes, layers).map { descriptor($0, $1) }.joined(separator: ",")
    let manifest = Array(
      #"{"schemaVersion":2,"config":\#(descriptor("application/vnd.oci.image.config.v1+json", config)),"layers":[\#(list)]}"#
        .utf8)
    let manifestType = "application/vnd.oci.image.manifest.v1+json"
    let nested = Array(
      (#"{"schemaVersion":2,"manifests":["#
        + descriptor(manifestType, manifest, #","platform":{"architecture":"amd64","os":"linux"}"#) + ","
        + descriptor(manifestType, lower, #","platform":{"architecture":"arm64","os":"linux"}"#) + ","
        + descriptor(manifestType, upper, #","platform":{"architecture":"unknown","os":"unknown"}"#) + "]}").utf8)
    let index = Array(
      (#"{"schemaVersion":2,"manifests":["# + descriptor("application/vnd.oci.image.index.v1+json", nested) + "]}").utf8
    )
    var files: [String: [UInt8]] = ["oci-layout": Array(#"{"imageLayoutVersion":"1.0.0"}"#.utf8), "index.json": index]
    for blob in layers + [config, manifest, nested] { files["blobs/sha256/\(digest(blob))"] = blob }
    change(&files)
    for (name, bytes) in files { try scratch.write("oci/\(name)", bytes) }
    return scratch.path + "/oci"
  }

  func testOCILayoutAsDirectoryAndAsTarWithANestedIndexOfPlatforms() throws {
    let scratch = try Scratch()
    let directory = try layout(scratch)
    check(try read(directory), "directory")
    try shell("tar -C $1 -cf $1.tar .", directory)
    check(try read(directory + ".tar"), "tar")
    try shell("xz -k $1.tar", directory)
    check(try read(directory + ".tar.xz"), "tar.xz")
  }

  func testAnAlteredBlobIsFoundByItsDigest() throws {
    let scratch = try Scratch()
    let name = "blobs/sha256/\(digest(upper))"
    let path = try layout(scratch) { $0[name]?[1000] ^= 1 }
    XCTAssertTrue(failure { _ = try read(path) }.contains("does not match its digest"))
    let shorter = try Scratch()
    let cut = try layout(shorter) { _ = $0[name]?.removeLast(512) }
    XCTAssertTrue(failure { _ = try read(cut) }.contains("bytes; \(upper.count) were expected"))
    let missing = try Scratch()
    let without = try layout(missing) { $0[name] = nil }
    XCTAssertTrue(failure { _ = try read(without) }.contains("has no \(name)"))
  }

  func testALayerThatIsNotTheConfiguredOneIsFoundInADockerArchive() throws {
    let scratch = try Scratch()
    let config = configuration([lower])
    let manifest = #"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#
    func archive(_ layer: [UInt8], _ config: [UInt8], name: String = "c.json") throws -> String {
      try scratch.write(
        "a.tar",
        tar([
          TarMember(name: "l.tar", body: layer), TarMember(name: name, body: config),
          TarMember(name: "manifest.json", body: Array(manifest.replacingOccurrences(of: "c.json", with: name).utf8)),
        ]))
    }
    XCTAssertNoThrow(try read(try archive(lower, config)))
    XCTAssertTrue(failure { _ = try read(try archive(upper, config)) }.contains("layer"))
    let other = configuration([upper])
    XCTAssertTrue(
      failure { _ = try read(try archive(upper, other, name: "\(digest(config)).json")) }.contains("configuration"))
    let foreign = try archive(lower, configuration([lower], architecture: "arm64"))
    XCTAssertTrue(failure { _ = try read(foreign) }.contains("an image for arm64; amd64 was expected"))
  }

  func testAnImageForAnotherMachineIsRefused() throws {
    let scratch = try Scratch()
    let path = try layout(scratch)
    XCTAssertNoThrow(try ImageArchive.read(path, architecture: "amd64", warn: { _ in }))
    let text = failure { _ = try ImageArchive.read(path, architecture: "riscv64", warn: { _ in }) }
    XCTAssertTrue(text.contains("exactly one for linux/riscv64"), text)
  }

  func testARootFileSystemWithAFileCalledManifestIsARootFileSystem() throws {
    let scratch = try Scratch()
    let file = try scratch.write(
      "a.tar", tar([TarMember(name: "manifest.json", body: Array("{\"name\":1}".utf8)), TarMember(name: ".wh.x")]))
    let image = try read(file)
    XCTAssertEqual(image.tree.paths, [".wh.x", "manifest.json"])
    XCTAssertNil(image.program)
  }

  func testWhatIsNoArchiveIsSaidByName() throws {
    let scratch = try Scratch()
    let file = try scratch.write("notes.txt", "hello")
    XCTAssertTrue(failure { _ = try read(file) }.contains("notes.txt: is not a tar archive"))
    XCTAssertTrue(failure { _ = try read(scratch.path) }.contains("for a root file system use --rootfs"))
    XCTAssertTrue(
      failure { _ = try read(scratch.path + "/none") }.contains("/none: No such file or directory (ENOENT)"))
  }

  func testDamagedDocumentsAreErrorsAndNeverTrap() throws {
    var generator = SplitMix(seed: 3)
    for _ in 0..<60 {
      let scratch = try Scratch()
      let path = try layout(scratch) { files in
        guard var index = files["index.json"] else { return }
        index[Int.random(in: 0..<index.count, using: &generator)] = UInt8.random(in: .min ... .max, using: &generator)
        files["index.json"] = index
      }
      _ = try? read(path)
    }
  }

  func testWhatASystemsDirectoryHoldsComesAsItIs() throws {
    let scratch = try Scratch()
    try scratch.write("t/a", "text", mode: 0o4750)
    try shell(
      "cd $1/t && ln a b && ln -s /etc/passwd l && mkdir -m 1777 d && mknod n c 1 3 && chown -h 12:34 a l", scratch.path
    )
    // A name that is not UTF-8, and a socket.
    try shell(
      #"cd $1/t && touch "$(printf 'x\377y')" && python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('s')""#,
      scratch.path)
    var warnings: [String] = []
    let tree = try DirectoryReader.read(scratch.path + "/t", warn: { warnings.append($0) })
    XCTAssertEqual(
      tree.entries().map(\.path), ["a", "b", "d", "l", "n"].map { Array($0.utf8) } + [[0x78, 0xff, 0x79]])
    XCTAssertEqual(warnings.count, 1)
    XCTAssertTrue(warnings[0].hasSuffix("/s: a socket; left out"))
    XCTAssertTrue(tree.lookup("a") === tree.lookup("b"))
    XCTAssertEqual(tree.lookup("d")?.permissions, 0o1777)
    XCTAssertEqual(tree.lookup("l", followLast: false)?.group, 34)
    guard case .characterDevice(major: 1, minor: 3)? = tree.lookup("n")?.kind else { return XCTFail("no device node") }
  }
}
