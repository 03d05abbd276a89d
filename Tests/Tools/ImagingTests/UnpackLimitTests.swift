import Foundation
import XCTest

@testable import Imaging

/// A file of some kilobytes that unpacks to gigabytes must not fill the disk of who builds an image from it.
final class UnpackLimitTests: XCTestCase {
  private func archive(_ scratch: Scratch, _ size: Int) throws -> String {
    try scratch.write("a.tar", tar([TarMember(name: "zeros", body: [UInt8](repeating: 0, count: size))]))
  }

  private func read(_ path: String, _ limit: Int) throws {
    _ = try ImageArchive.read(path, architecture: "amd64", unpackedLimit: limit, warn: { _ in })
  }

  func testABombIsRefusedByName() throws {
    let scratch = try Scratch()
    let plain = try archive(scratch, 4 << 20)
    for (tool, ending) in [("gzip", ".gz"), ("xz", ".xz"), ("zstd", ".zst")] {
      _ = try shell("\(tool) -k -f -q \(plain)")
      let text = failure { try read(plain + ending, 1 << 20) }
      XCTAssertTrue(text.contains("a.tar\(ending): its \(tool) data unpacks to more than the 1048576 bytes"), text)
      XCTAssertTrue(text.contains("--unpacked-limit"), text)
      XCTAssertNoThrow(try read(plain + ending, 5 << 20), tool)
    }
    XCTAssertNoThrow(try read(plain, 1), "what is not compressed is as long as it is")
  }

  /// To the byte, and counted over all layers together: many small ones are a large one.
  func testTheLimitIsOfAll() throws {
    let scratch = try Scratch()
    let plain = try archive(scratch, 1 << 20)
    let size = try FileSlice(path: plain).count
    _ = try shell("gzip -k -f \(plain)")
    let source = try FileSlice(path: plain + ".gz")
    var exact = UnpackLimit.image(size)
    XCTAssertNoThrow(try source.decompressed(&exact))
    XCTAssertTrue(failure { _ = try source.decompressed(&exact) }.contains("more than the \(size) bytes"))
    var less = UnpackLimit.image(size - 1)
    XCTAssertTrue(failure { _ = try source.decompressed(&less) }.contains("unpacks to more than"))
  }
}
