import XCTest

@testable import Imaging

/// Layers put together wrongly bring deleted secrets back, or lose files.
final class LayerTests: XCTestCase {
  private func file(_ name: String, _ text: String = "x") -> TarMember { TarMember(name: name, body: Array(text.utf8)) }
  private func directory(_ name: String, mode: Int = 0o755) -> TarMember {
    TarMember(name: name + "/", type: "5", mode: mode)
  }

  func testAWhiteoutRemovesAFileOfALowerLayer() throws {
    let tree = try layered([[file("etc/secret"), file("etc/kept")], [file("etc/.wh.secret", "")]])
    XCTAssertEqual(tree.paths, ["etc", "etc/kept"])
  }

  func testAWhiteoutRemovesAWholeDirectory() throws {
    XCTAssertEqual(try layered([[file("a/b/c"), file("d")], [file(".wh.a", "")]]).paths, ["d"])
  }

  func testAnOpaqueDirectoryHidesLowerLayersButNotItsOwnWhereverTheMarkerStands() throws {
    for markerFirst in [true, false] {
      let marker = file("a/.wh..wh..opq", "")
      let own = [directory("a", mode: 0o700), file("a/new"), file("a/sub/new")]
      let tree = try layered([
        [file("a/old"), file("a/sub/old"), file("a/other/old")], markerFirst ? [marker] + own : own + [marker],
      ])
      XCTAssertEqual(tree.paths, ["a", "a/new", "a/sub", "a/sub/new"], "marker first: \(markerFirst)")
      XCTAssertEqual(tree.lookup("a")?.permissions, 0o700)
    }
  }

  func testAWhiteoutDoesNotTouchWhatItsOwnLayerBrings() throws {
    XCTAssertEqual(try layered([[file("a", "old")], [file("a", "new"), file(".wh.a", "")]]).text(at: "a"), "new")
    XCTAssertEqual(try layered([[file("d/old")], [file(".wh.d", ""), file("d/new")]]).paths, ["d", "d/new"])
    XCTAssertEqual(try layered([[file("d/old")], [file("d/new"), file(".wh.d", "")]]).paths, ["d", "d/new"])
  }

  func testAWhiteoutOfNothingAndMarkersOfAufsAreNoError() throws {
    XCTAssertEqual(
      try layered([[file("a")], [file(".wh.zzz", ""), file("no/such/.wh.b", ""), file(".wh..wh.plnk", "")]]).paths,
      ["a"])
  }

  func testADirectoryMemberKeepsWhatIsBelowAndTakesTheNewMode() throws {
    let tree = try layered([[directory("a"), file("a/b")], [TarMember(name: "a", type: "5", mode: 0o711, owner: 5)]])
    XCTAssertEqual(tree.paths, ["a", "a/b"])
    XCTAssertEqual(tree.lookup("a")?.permissions, 0o711)
    XCTAssertEqual(tree.lookup("a")?.owner, 5)
  }

  func testKindsReplaceOneAnother() throws {
    XCTAssertEqual(try layered([[file("a/b")], [file("a", "flat")]]).text(at: "a"), "flat")
    XCTAssertEqual(try layered([[file("a")], [directory("a"), file("a/b")]]).paths, ["a", "a/b"])
    XCTAssertEqual(
      try layered([[file("real/x"), TarMember(name: "a", type: "2", link: "real")], [directory("a"), file("a/b")]])
        .paths,
      ["a", "a/b", "real", "real/x"])
  }

  func testAFileBelowALinkedDirectoryGoesWhereTheLinkLeads() throws {
    let tree = try layered([
      [directory("usr/bin"), TarMember(name: "bin", type: "2", link: "usr/bin")], [file("bin/tool")],
    ])
    XCTAssertEqual(tree.paths, ["bin", "usr", "usr/bin", "usr/bin/tool"])
  }

  func testAHardLinkIntoALowerLayerIsOneFileUntilItIsReplaced() throws {
    let tree = try layered([[file("a", "1")], [TarMember(name: "b", type: "1", link: "a")], [file("a", "2")]])
    XCTAssertEqual(tree.text(at: "a"), "2")
    XCTAssertEqual(tree.text(at: "b"), "1")
  }

  func testAFileBelowAFileIsAnErrorThatNamesIt() throws {
    XCTAssertTrue(
      failure { _ = try layered([[file("a")], [file("a/b")]]) }.contains("/a/b: one of its parent directories"))
  }
}
