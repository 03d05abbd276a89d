import CLinux
import Foundation
import XCTest

@testable import Imaging

/// What is misread here is a file missing from, or wrong in, somebody's enclave.
final class TarTests: XCTestCase {
  private func tree(_ path: String) throws -> FileTree {
    try ImageArchive.read(path, architecture: "amd64", warn: { _ in }).tree
  }

  func testEveryFormatAndCompressionOfTheCommonTarProgramsGivesTheSameTree() throws {
    let scratch = try Scratch()
    let long = String(repeating: "long-directory-name/", count: 12) + String(repeating: "f", count: 120)
    try scratch.write("t/\(long)", "deep")
    try scratch.write("t/ü", "umlaut", mode: 0o4755)
    try shell(
      "cd $1/t && ln ü hard && ln -s \(String(repeating: "x", count: 150)) link && mkfifo pipe && chown 70000:3000000 hard && chmod 4755 hard",
      scratch.path)
    let direct = try DirectoryReader.read(scratch.path + "/t", warn: { _ in })
    var expected: [UInt8] = []
    try CpioArchive(direct).write { expected += $0 }
    let ways = [
      "tar -C $1/t --format=gnu -cf $2 .", "tar -C $1/t --format=pax -cf $2 .", "tar -C $1/t --format=gnu -czf $2 .",
      "tar -C $1/t --format=pax -cJf $2 .", "tar -C $1/t --format=pax --numeric-owner -c . | zstd -q > $2",
      "bsdtar -C $1/t --format=pax -cf $2 .", "bsdtar -C $1/t --format=gnutar -cf $2 .",
      "cd $1/t && tar --format=gnu -cf $2 *",
      "tar -C $1/t --format=gnu -cf $2.1 . && gzip -c < $2.1 | head -c 100 > $2 && gzip -c < $2.1 | tail -c +101 >> $2",
    ]
    for way in ways where !way.contains("zstd") || FileManager.default.fileExists(atPath: "/usr/bin/zstd") {
      let file = scratch.path + "/a.tar"
      try shell(way, scratch.path, file)
      var bytes: [UInt8] = []
      try CpioArchive(try tree(file)).write { bytes += $0 }
      XCTAssertEqual(bytes, expected, way)
    }
  }

  func testBase256NumbersAsGNUTarWritesLargeOwners() throws {
    let scratch = try Scratch()
    try scratch.write("t/f", "x")
    try shell("tar -C $1/t --format=gnu --owner=:4000000000 --group=:3000000000 -cf $1/a.tar f", scratch.path)
    let node = try tree(scratch.path + "/a.tar").lookup("f")
    XCTAssertEqual(node?.owner, 4_000_000_000)
    XCTAssertEqual(node?.group, 3_000_000_000)
  }

  func testNamesThatWouldLeaveTheImageAreRefused() throws {
    let scratch = try Scratch()
    for name in ["../evil", "a/../../evil", "..", "/../evil", "a/.."] {
      let file = try scratch.write("a.tar", tar([TarMember(name: name, body: [1])]))
      XCTAssertTrue(failure { _ = try tree(file) }.contains("has .. in its name"), name)
    }
    let file = try scratch.write("a.tar", tar([TarMember(name: "a", type: "1", link: "../../etc/passwd")]))
    XCTAssertTrue(failure { _ = try tree(file) }.contains("the hard link"))
  }

  func testLinksAreFollowedInsideTheImageOnly() throws {
    let outside = try Scratch()
    let tree = try layered([
      [
        TarMember(name: "absolute", type: "2", link: outside.path),
        TarMember(name: "absolute/file", body: Array("1".utf8)),
        TarMember(name: "up", type: "2", link: "../../../../../.." + outside.path),
        TarMember(name: "up/other", body: Array("2".utf8)), TarMember(name: "root", type: "2", link: "/"),
        TarMember(name: "root/at-root", body: Array("3".utf8)),
        TarMember(name: "/leading/slash", body: Array("4".utf8)),
      ]
    ])
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: outside.path), [])
    XCTAssertEqual(tree.text(at: outside.path + "/file"), "1")
    XCTAssertEqual(tree.text(at: outside.path + "/other"), "2")
    XCTAssertEqual(tree.text(at: "at-root"), "3")
    XCTAssertEqual(tree.text(at: "leading/slash"), "4")
    XCTAssertEqual(tree.text(at: "root/root/../../leading/slash"), "4")
  }

  func testLinksInACircleEndInAnErrorNotALoop() throws {
    let text = failure {
      _ = try layered([
        [
          TarMember(name: "a", type: "2", link: "b"), TarMember(name: "b", type: "2", link: "a"),
          TarMember(name: "a/f"),
        ]
      ])
    }
    XCTAssertTrue(text.contains("not a directory"), text)
  }

  func testAHardLinkToNothingAndOneToADirectoryAreErrors() throws {
    XCTAssertTrue(
      failure { _ = try layered([[TarMember(name: "a", type: "1", link: "b")]]) }.contains("which is not there"))
    XCTAssertTrue(
      failure { _ = try layered([[TarMember(name: "b", type: "5"), TarMember(name: "a", type: "1", link: "b")]]) }
        .contains("which is a directory"))
  }

  func testVeryDeepPathsEndInAnErrorNotInAnExhaustedStack() throws {
    var members: [TarMember] = []
    for index in 0..<60 {
      let parent = index == 0 ? "" : "l\(index - 1)/"
      let deep = String(repeating: "d/", count: 40)
      members.append(TarMember(name: "\(parent)\(deep)", type: "5"))
      members.append(TarMember(name: "l\(index)", type: "2", link: (index == 0 ? "" : "l\(index - 1)/") + deep))
    }
    _ = failure { _ = try layered([members]) }
  }

  func testSparseFilesAreRefusedNotMisread() throws {
    let scratch = try Scratch()
    try shell("mkdir $1/t && truncate -s 1M $1/t/s && echo x >> $1/t/s && tar -C $1/t -S -cf $1/a.tar s", scratch.path)
    XCTAssertTrue(failure { _ = try tree(scratch.path + "/a.tar") }.contains("sparse"))
  }

  func testTruncatedArchivesAreErrorsAndNeverTrap() throws {
    let scratch = try Scratch()
    let whole = tar([TarMember(name: "a", body: [UInt8](repeating: 7, count: 600)), TarMember(name: "b", body: [1])])
    for count in stride(from: 1, to: 2560, by: 7) where count % 512 != 0 && count < 512 + 1536 {
      let file = try scratch.write("a.tar", Array(whole.prefix(count)))
      // Within the padding of a member nothing is lost.
      if (1112..<1536).contains(count) || count == 2048 { continue }
      XCTAssertThrowsError(try tree(file), "cut to \(count)")
    }
    for end in ["gz", "xz"] {
      let file = try scratch.write("b.tar", whole)
      try shell(end == "gz" ? "gzip -f -k $1" : "xz -f -k $1", file)
      let bytes = try FileSlice(path: "\(file).\(end)").all(limit: 1 << 20)
      for count in stride(from: 20, to: bytes.count - 1, by: 5) {
        let cut = try scratch.write("cut", Array(bytes.prefix(count)))
        XCTAssertThrowsError(try tree(cut), "\(end) cut to \(count)")
      }
      var damaged = bytes
      damaged[bytes.count - (end == "gz" ? 6 : 20)] ^= 1
      XCTAssertTrue(failure { _ = try tree(try scratch.write("bad", damaged)) }.contains("damaged"))
    }
  }

  func testRandomBytesNeverTrap() throws {
    var generator = SplitMix(seed: 2)
    let scratch = try Scratch()
    let pax = Array("12 path=abc\n30 linkpath=xxxxxxxxxxxxxxxx\n".utf8)
    let good = tar([
      TarMember(name: "p", type: "x", body: pax), TarMember(name: "a", body: Array("abc".utf8)),
      TarMember(name: "l", type: "2", link: "a"), TarMember(name: "d/", type: "5"),
      TarMember(name: "h", type: "1", link: "a"),
    ])
    for round in 0..<400 {
      var bytes = good
      for _ in 0..<3 {
        let at = Int.random(in: 0..<bytes.count, using: &generator)
        bytes[at] = UInt8.random(in: .min ... .max, using: &generator)
      }
      // Every other round with checksums put right, so that the fields behind them are reached.
      if round % 2 == 0 {
        for start in stride(from: 0, to: bytes.count - 1024, by: 512) where bytes[start + 257] == UInt8(ascii: "u") {
          let sum = bytes[start..<start + 512].enumerated().reduce(0) {
            $0 + ((148..<156).contains($1.offset) ? 32 : Int($1.element))
          }
          let digits = String(sum, radix: 8)
          let field = Array((String(repeating: "0", count: 6 - digits.count) + digits).utf8) + [0, 32]
          bytes.replaceSubrange(start + 148..<start + 156, with: field)
        }
      }
      _ = try? tree(try scratch.write("r.tar", bytes))
    }
    for magic in [[0x1f, 0x8b], [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0], [0x28, 0xb5, 0x2f, 0xfd], []] as [[UInt8]] {
      for _ in 0..<30 { _ = try? tree(try scratch.write("r", magic + generator.bytes(700))) }
    }
  }
}
