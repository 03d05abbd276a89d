import CLinux
import EventLoop
import Foundation
import LinuxSystem
import Roles
import SecurityModule
import Testing

@testable import Attesting

/// Whoever opens the file has one whole document, of before or of after; a module that fails costs nobody the last one.
struct DocumentFileTests {
  /// A module whose documents differ in length, and that can be told to fail.
  private final class Module: ModuleDevice {
    let inner = ModuleInMemory()
    var fails = false
    var count = 0

    func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] {
      if fails { throw .unreachable("ioctl") }
      count += 1
      let data = [UInt8](repeating: 7, count: count % 2 == 0 ? 500 : 1)
      return try inner.perform(
        ModuleRequest.attestation(.init(userData: data, publicKey: [1, 2, 3])).bytes)
    }
  }

  private func inDirectory(_ body: (String, [FileReference]) throws -> Void) throws {
    let directory = FileManager.default.temporaryDirectory.path + "/document-\(UUID().uuidString)"
    try makeDirectories(directory)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let files = try [AttestationPlan.documentName, AttestationPlan.spareName].map {
      FileReference(try openFile("\(directory)/\($0)", O_WRONLY | O_CREAT | O_EXCL, mode: 0o444))
    }
    try body(directory, files)
  }

  @Test func eachIsWhole() throws {
    try inDirectory { directory, files in
      var said: [String] = []
      let module = Module()
      func make() throws -> DocumentFile {
        try DocumentFile(
          loop: EventLoop(), module: module, publicKey: [1, 2, 3], files: files, in: directory,
          report: { said.append($0) })
      }
      func read() throws -> [UInt8] { try readFile("\(directory)/\(AttestationPlan.documentName)") }
      let file = try make()
      let first = try read()
      #expect(first.count > 300)
      // Who has it open keeps it.
      let open = try openFile("\(directory)/\(AttestationPlan.documentName)", O_RDONLY)
      file.timerFired(0)
      let second = try read()
      #expect(second.count == first.count + 501)
      #expect(try readToEnd(open.rawValue) == first)
      file.timerFired(0)
      #expect(try read().count == first.count)
      module.fails = true
      file.timerFired(0)
      file.timerFired(0)
      #expect(try read().count == first.count)
      module.fails = false
      file.timerFired(0)
      #expect(try read().count == second.count)
      #expect(said.count == 3 && said[0].contains("tried again in 1 s") && said[1].contains("in 2 s"))
      #expect(said.last == "attestation.document has been renewed")
      // Another life of the service goes on with the two as they are.
      let next = try make()
      #expect(try read().count == first.count)
      next.timerFired(0)
      #expect(try read().count == second.count)
      // Somebody has removed them: that is said, and no other file is written.
      removeFile("\(directory)/\(AttestationPlan.spareName)")
      next.timerFired(0)
      #expect(try read().count == second.count && said.last?.contains("somebody has moved") == true)
    }
  }

  @Test func withoutADocument() throws {
    try inDirectory { directory, files in
      let module = Module()
      module.fails = true
      #expect(throws: ModuleFailure.self) {
        try DocumentFile(
          loop: EventLoop(), module: module, publicKey: nil, files: files, in: directory, report: { _ in })
      }
    }
  }
}
