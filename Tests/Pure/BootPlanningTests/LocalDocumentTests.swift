import BootPlanning
import EnclaveConfig
import Testing

struct LocalDocumentTests {
  @Test func roundTrips() {
    let pieces: [RootPiece] = [
      .overlay("/a b\n"), .directory("/d", mode: 0o1700), .link("/l", to: "x/y"), .file("/f", copied: false),
      .file("/c", copied: true), .tree("/t"), .leaf("/b"), .empty("/e"),
    ]
    for rootfs in [nil, "/r\n17"] {
      var content = LocalDocument.Content(
        local: LocalEnclave(
          rootfs: rootfs, stage: "/s", transport: "/t", pieces: pieces, hasUserNamespace: true, nameServer: "::1",
          search: rootfs == nil ? [] : ["a.example", "b"], resolverOptions: ["ndots:1"]),
        configuration: rootfs.map { (name: $0, text: "a = 1\n") }, overrides: "[program]\n", passesInput: true,
        defaultDirectory: "/ü")
      content.local.userCount = rootfs == nil ? nil : 65_537
      content.local.hidden = rootfs == nil ? [] : ["/root/.ssh", "/var"]
      #expect(LocalDocument.decode(LocalDocument.encode(content)) == content)
    }
  }

  @Test func damagedBytesGiveNothing() {
    let content = LocalDocument.Content(
      local: StartPlanTests.local, configuration: nil, overrides: "", passesInput: false, defaultDirectory: nil)
    let bytes = LocalDocument.encode(content)
    for length in 1..<bytes.count {
      let decoded = LocalDocument.decode(Array(bytes[..<length]))
      #expect(decoded == nil || decoded != content)
    }
    for _ in 0..<50_000 { _ = LocalDocument.decode((0..<40).map { _ in UInt8.random(in: 0...255) }) }
  }
}
