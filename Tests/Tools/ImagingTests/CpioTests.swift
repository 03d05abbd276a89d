import CLinux
import Foundation
import XCTest

@testable import Imaging

/// A wrong byte here is a kernel that finds no init.
final class CpioTests: XCTestCase {
  private func archive(_ tree: FileTree, time: UInt32 = 0) throws -> [UInt8] {
    var bytes: [UInt8] = []
    let archive = try CpioArchive(tree, time: time)
    try archive.write { bytes += $0 }
    XCTAssertEqual(bytes.count, archive.byteCount)
    return bytes
  }

  private func members(_ bytes: [UInt8]) throws -> [CpioMember] {
    let scratch = try Scratch()
    var reader = CpioReader(try scratch.slice("a.cpio", bytes))
    var members: [CpioMember] = []
    while let member = try reader.next() { members.append(member) }
    return members
  }

  func testGoldenBytesOfASmallArchive() throws {
    let tree = FileTree()
    try tree.insert("d", FileNode(.directory, permissions: 0o755, owner: 1000, group: 100))
    try tree.insert("d/f", FileNode(.file(.bytes(Array("hello".utf8))), permissions: 0o4711))
    try tree.insert("null", FileNode(.characterDevice(major: 1, minor: 3), permissions: 0o666))
    try tree.insert("s", FileNode(.symbolicLink(Array("d/f".utf8)), permissions: 0o777))
    let expected =
      "070701" + "00000001" + "000041ED" + "000003E8" + "00000064" + "00000002" + "00000010" + "00000000" + "00000000"
      + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "d\0"
      + "070701" + "00000002" + "000089C9" + "00000000" + "00000000" + "00000001" + "00000010" + "00000005" + "00000000"
      + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "d/f\0\0\0" + "hello\0\0\0"
      + "070701" + "00000003" + "000021B6" + "00000000" + "00000000" + "00000001" + "00000010" + "00000000" + "00000000"
      + "00000000" + "00000001" + "00000003" + "00000005" + "00000000" + "null\0\0"
      + "070701" + "00000004" + "0000A1FF" + "00000000" + "00000000" + "00000001" + "00000010" + "00000003" + "00000000"
      + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "s\0" + "d/f\0"
      + "070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000"
      + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\0"
    let bytes = try archive(tree, time: 16)
    // d/f: mode 0100000 | 04711 = 0x89C9
    let text = Array(expected.utf8)
    XCTAssertEqual(String(decoding: bytes.prefix(text.count), as: UTF8.self), expected)
    XCTAssertTrue(bytes.dropFirst(text.count).allSatisfy { $0 == 0 })
    XCTAssertEqual(bytes.count % 512, 0)
  }

  func testGNUCpioAndBsdtarReadWhatWasWritten() throws {
    let scratch = try Scratch()
    let tree = FileTree()
    let shared = FileNode(.file(.bytes(Array("shared text\n".utf8))), permissions: 0o640)
    try tree.insert("usr/bin/one", shared)
    try tree.insert("usr/bin/two", shared)
    try tree.insert("etc/empty", FileNode(.file(.bytes([])), permissions: 0o600))
    try tree.insert("bin", FileNode(.symbolicLink(Array("usr/bin".utf8)), permissions: 0o777))
    try tree.insert("dev/pipe", FileNode(.fifo, permissions: 0o600))
    let file = try scratch.write("a.cpio", try archive(tree))
    let expected = ["bin", "dev", "dev/pipe", "etc", "etc/empty", "usr", "usr/bin", "usr/bin/one", "usr/bin/two"]
    XCTAssertEqual(try shell("cpio -t --quiet < $1", file).split(separator: "\n").map(String.init), expected)
    XCTAssertEqual(
      try shell("bsdtar -tf $1", file).split(separator: "\n").map {
        String($0.trimmingPrefix("./")).trimmingSuffix("/")
      }, expected)
    XCTAssertEqual(
      try members(try archive(tree)).filter { $0.links == 2 && $0.mode & 0o170000 == 0o100000 }.map(\.content.count),
      [0, 12],
      "a file with two names takes its room once, with the last of them")
    try shell("mkdir $1/x && cd $1/x && cpio -i --quiet -d < $2", scratch.path, file)
    XCTAssertEqual(try shell("cat $1/x/bin/two", scratch.path), "shared text\n")
    XCTAssertEqual(
      try shell("stat -c '%i %h %a %s' $1/x/usr/bin/one $1/x/usr/bin/two | uniq | wc -l", scratch.path).trimmed, "1",
      "hard links are one file")
    XCTAssertEqual(try shell("stat -c '%a %h %s' $1/x/usr/bin/one", scratch.path).trimmed, "640 2 12")
  }

  func testReaderGivesBackWhatWasWrittenAcrossSeveralArchivesInARow() throws {
    let first = FileTree()
    try first.insert("init", FileNode(.file(.bytes(Array("x".utf8))), permissions: 0o755))
    let second = FileTree()
    try second.insert("rootfs/a", FileNode(.file(.bytes([1, 2, 3])), permissions: 0o644, owner: 7, group: 8))
    let read = try members(try archive(first) + (try archive(second)))
    XCTAssertEqual(read.map { String(decoding: $0.path, as: UTF8.self) }, ["init", "rootfs", "rootfs/a"])
    XCTAssertEqual(read.map(\.mode), [0o100755, 0o040755, 0o100644])
    XCTAssertEqual(read[2].owner, 7)
    XCTAssertEqual(read[2].group, 8)
    XCTAssertEqual(try read[2].content.all(limit: 10), [1, 2, 3])
  }

  func testArchivesOfGNUCpioAreRead() throws {
    let scratch = try Scratch()
    try scratch.write("t/a b", "one")
    try shell("cd $1/t && ln 'a b' c && find . | LC_ALL=C sort | cpio -o --quiet -H newc > ../g.cpio", scratch.path)
    var reader = CpioReader(try FileSlice(path: scratch.path + "/g.cpio"))
    var names: [String] = []
    while let member = try reader.next() { names.append(String(decoding: member.path, as: UTF8.self)) }
    XCTAssertEqual(names.sorted(), [".", "a b", "c"])
  }

  func testOrderIsOfBytesAndParentsStandFirst() throws {
    let tree = FileTree()
    for path in ["b", "a/b/c", "a-b", "a/a", "Z", "é"] {
      try tree.insert(path, FileNode(.file(.bytes([])), permissions: 0o644))
    }
    XCTAssertEqual(tree.paths, ["Z", "a", "a-b", "a/a", "a/b", "a/b/c", "b", "é"])
  }

  func testAFileOf4GiBIsRefusedNotCutShort() {
    let tree = FileTree()
    XCTAssertNoThrow(try tree.insert("big", FileNode(.file(.path([], count: 1 << 32)), permissions: 0o644)))
    XCTAssertTrue(failure { _ = try CpioArchive(tree) }.contains("/big: 4294967296 bytes"))
  }

  func testTruncatedAnywhereGivesAnErrorOrTheWholeNeverATrap() throws {
    let tree = FileTree()
    try tree.insert("a/b", FileNode(.file(.bytes(Array("some text".utf8))), permissions: 0o644))
    let bytes = try archive(tree)
    let end = bytes.lastIndex { $0 != 0 } ?? 0
    for count in 1...end { XCTAssertThrowsError(try members(Array(bytes.prefix(count))), "cut to \(count)") }
    XCTAssertEqual(try members(bytes).count, 2)
  }

  func testRandomBytesNeverTrap() throws {
    var generator = SplitMix(seed: 1)
    let tree = FileTree()
    try tree.insert("a/b", FileNode(.file(.bytes(Array("some text".utf8))), permissions: 0o644))
    let good = try archive(tree)
    for _ in 0..<400 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...6, using: &generator) {
        bytes[Int.random(in: 0..<420, using: &generator)] = UInt8.random(in: .min ... .max, using: &generator)
      }
      _ = try? members(bytes)
      _ = try? members(Array("070701".utf8) + generator.bytes(600))
    }
  }
}

extension String {
  var trimmed: String { trimmingCharacters(in: .whitespacesAndNewlines) }
  func trimmingSuffix(_ suffix: String) -> String { hasSuffix(suffix) ? String(dropLast(suffix.count)) : self }
}
