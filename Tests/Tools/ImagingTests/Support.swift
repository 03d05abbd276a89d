import CLinux
import Foundation
import LinuxSystem
import XCTest

@testable import Imaging

/// A directory of a test's own, removed at its end.
final class Scratch {
  let path: String
  init() throws {
    path = NSTemporaryDirectory() + "tombolo-imaging-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }
  // Not removeTree: it knows names in UTF-8 only, and one test makes another.
  deinit { _ = try? shell("rm -rf \"$1\"", path) }

  @discardableResult
  func write(_ name: String, _ bytes: [UInt8], mode: UInt32 = 0o644) throws -> String {
    let file = path + "/" + name
    try makeDirectories(String(file[..<(file.lastIndex(of: "/") ?? file.startIndex)]))
    try writeFile(file, bytes, mode: mode)
    _ = chmod(file, mode)
    return file
  }
  @discardableResult
  func write(_ name: String, _ text: String, mode: UInt32 = 0o644) throws -> String {
    try write(name, Array(text.utf8), mode: mode)
  }
  func slice(_ name: String, _ bytes: [UInt8]) throws -> FileSlice { try FileSlice(path: try write(name, bytes)) }
}

/// Runs a program of the machine and gives its standard output; fails the test when it fails.
@discardableResult
func shell(_ command: String, _ arguments: String..., input: [UInt8] = []) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: "/bin/sh")
  process.arguments = ["-c", command, "sh"] + arguments
  let out = Pipe()
  process.standardOutput = out
  process.standardError = out
  try process.run()
  let data = out.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  let text = String(decoding: data, as: UTF8.self)
  if process.terminationStatus != 0 { throw ShellError(command: command, output: text) }
  return text
}

struct ShellError: Error {
  var command: String
  var output: String
}

/// A member of a tar archive, written byte by byte so that tests can write what no tar program would.
struct TarMember {
  var name: String
  var type: Character = "0"
  var body: [UInt8] = []
  var link = ""
  var mode = 0o644
  var owner = 0

  var bytes: [UInt8] {
    var header = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int) { for (i, byte) in text.utf8.enumerated() { header[offset + i] = byte } }
    func octal(_ value: Int, _ digits: Int) -> String {
      let text = String(value, radix: 8)
      return String(repeating: "0", count: max(0, digits - text.count)) + text
    }
    put(name, 0)
    put(octal(mode, 7), 100)
    put(octal(owner, 7), 108)
    put(octal(owner, 7), 116)
    put(octal(body.count, 11), 124)
    put(octal(0, 11), 136)
    header[156] = type.asciiValue ?? 0
    put(link, 157)
    put("ustar\u{0}00", 257)
    put("        ", 148)
    put(octal(header.reduce(0) { $0 + Int($1) }, 6) + "\u{0} ", 148)
    return header + body + [UInt8](repeating: 0, count: (512 - body.count % 512) % 512)
  }
}

func tar(_ members: [TarMember]) -> [UInt8] { members.flatMap(\.bytes) + [UInt8](repeating: 0, count: 1024) }

extension FileTree {
  func text(at path: String) -> String? {
    guard case .file(let content)? = lookup(path)?.kind, let bytes = try? content.all(limit: 1 << 20) else {
      return nil
    }
    return String(decoding: bytes, as: UTF8.self)
  }
  var paths: [String] { entries().map { String(decoding: $0.path, as: UTF8.self) } }
}

/// Layers one above the other, as an image has them.
func layered(_ layers: [[TarMember]]) throws -> FileTree {
  let scratch = try Scratch()
  let tree = FileTree()
  var applier = LayerApplier(tree: tree, whiteouts: true)
  for (index, layer) in layers.enumerated() { try applier.apply(try scratch.slice("layer\(index)", tar(layer))) }
  return tree
}

/// The least that passes for a static x86-64 program: an ELF header without program headers.
let staticProgram: [UInt8] = {
  var bytes: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 57)
  bytes[16] = 2
  bytes[18] = 0x3e
  bytes[32] = 64
  bytes[54] = 56
  return bytes
}()

/// The least that passes for a bzImage, with a version.
func kernelImage(version: String = "6.1.0-test", size: Int = 20_000) -> [UInt8] {
  var bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* 31) }
  bytes.replaceSubrange(0x202..<0x206, with: Array("HdrS".utf8))
  bytes.replaceSubrange(0x20e..<0x210, with: [0x00, 0x10])
  bytes.replaceSubrange(0x1200..<0x1200 + version.utf8.count + 8, with: Array((version + " (x) #1 ").utf8))
  return bytes
}

/// A relocatable ELF file with a `.modinfo` section and nothing else.
func moduleFile(depends: String, softdep: String = "", alias: String = "x") -> [UInt8] {
  let information = Array(
    "license=GPL\0depends=\(depends)\0\(softdep.isEmpty ? "" : "softdep=\(softdep)\0")alias=\(alias)\0".utf8)
  let names = Array("\0.modinfo\0.shstrtab\0".utf8)
  var bytes = [UInt8](repeating: 0, count: 64)
  bytes.replaceSubrange(0..<7, with: [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  let table = 64 + information.count + names.count
  func little(_ value: Int, _ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  }
  bytes.replaceSubrange(40..<48, with: little(table, 8))
  bytes.replaceSubrange(58..<64, with: little(64, 2) + little(3, 2) + little(2, 2))
  func section(_ name: Int, _ offset: Int, _ size: Int) -> [UInt8] {
    little(name, 4) + little(1, 4) + little(0, 16) + little(offset, 8) + little(size, 8) + little(0, 24)
  }
  return bytes + information + names + [UInt8](repeating: 0, count: 64) + section(1, 64, information.count)
    + section(10, 64 + information.count, names.count)
}

extension SplitMix {
  mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }
}

/// What a body throws; fails the test when it throws nothing.
func failure(_ file: StaticString = #filePath, _ line: UInt = #line, _ body: () throws -> Void) -> String {
  do {
    try body()
    XCTFail("nothing was thrown", file: file, line: line)
    return ""
  } catch {
    return "\(error)"
  }
}
