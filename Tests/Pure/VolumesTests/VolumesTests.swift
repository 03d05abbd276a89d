import DNS
import EnclaveConfig
import Inet
import Testing

@testable import Volumes

/// What PID 1 hands to the process of a mount, what that tells the kernel, and what it believes of a server's answer.
struct VolumesTests {
  private func mount(_ text: String) throws -> MountSettings {
    try #require(try Configuration(toml: "[[mount]]\n" + text, file: "f").mounts.first)
  }

  @Test func theDocumentIsReadAsItWasWritten() throws {
    for text in [
      "type = \"nfs\"\nsource = \"nfs.test:/vol/a b\"\ntarget = \"/data\"".replacing(" b", with: ""),
      "type = \"nfs4\"\nsource = \"[fd09::2]:/\"\ntarget = \"/data\"\noptions = [\"vers=4.1\", \"port=20490\", \"ro\"]",
      "type = \"nfs\"\nsource = \"10.9.0.2:/vol\"\ntarget = \"/data\"\nunmount_timeout = \"1500ms\"",
      "type = \"tmpfs\"\ntarget = \"/t\"\noptions = [\"size=1m\", \"mode=1777\"]",
      "type = \"bind\"\nsource = \"/a\"\ntarget = \"/b\"\noptions = [\"ro\"]",
      "type = \"overlay\"\ntarget = \"/o\"\noptions = [\"lowerdir=/a:/b\", \"upperdir=/c\", \"workdir=/d\"]",
    ] {
      let work = MountWork(try mount(text))
      #expect(try MountWork(document: work.document) == work, "\(text)")
    }
    let slow = MountWork(try mount("type = \"tmpfs\"\ntarget = \"/t\"\nunmount_timeout = \"1500ms\""))
    #expect(slow.unmountMilliseconds == 1500)
  }

  @Test func brokenDocumentsAreErrors() throws {
    let document = MountWork(try mount("type = \"nfs\"\nsource = \"nfs.test:/vol\"\ntarget = \"/data\"")).document
    for length in 0..<document.count {
      #expect(throws: (any Error).self) { try MountWork(document: Array(document[..<length])) }
    }
    for index in document.indices {
      var changed = document
      changed[index] ^= 0x55
      _ = try? MountWork(document: changed)
    }
  }

  /// In the words of fs/nfs/fs_context.c; the address is the one that was found.
  @Test func whatTheKernelIsTold() throws {
    let work = MountWork(
      try mount(
        "type = \"nfs\"\nsource = \"nfs.test:/vol\"\ntarget = \"/d\"\noptions = [\"ro\", \"timeo=50\", \"softerr\"]"))
    let server = try #require(work.server)
    #expect(work.source == "nfs.test:/vol" && work.type == "nfs4" && work.flags == 1 | 2 | 4)
    #expect(
      work.data(for: server, at: try #require(IPAddress("10.9.0.2")), version: "4.2")
        == "vers=4.2,addr=10.9.0.2,port=2049,timeo=50,softerr,noresvport")
    #expect(server.versions == ["4.2", "4.1"])
    let six = MountWork(
      try mount("type = \"nfs\"\nsource = \"[fd09::2]:/vol\"\ntarget = \"/d\"\noptions = [\"resvport\"]"))
    #expect(six.source == "[fd09::2]:/vol" && six.data == ["resvport"])
  }

  /// RFC 5531: the bytes of `rpcinfo -T tcp SERVER 100003 4`.
  @Test func aServersSignOfLife() {
    #expect(
      NullCall.call(id: 0x0102_0304) == [
        0x80, 0, 0, 40, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0x86, 0xa3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      ])
    let served: [UInt8] = [0x80, 0, 0, 24, 0, 0, 0, 9, 0, 0, 0, 1] + [UInt8](repeating: 0, count: 16)
    #expect(NullCall.reply(served, to: 9) == .served)
    for length in 0..<served.count { #expect(NullCall.reply(Array(served[..<length]), to: 9) == .incomplete) }
    #expect(NullCall.reply(served, to: 8) == .other("it does not speak RPC"))
    #expect(NullCall.reply(Array("HTTP/1.1 400 Bad Request".utf8), to: 9) == .other("it does not speak RPC"))
    var old = served
    old[27] = 2
    #expect(NullCall.reply(old, to: 9) == .other("it has no NFS of version 4"))
    var random = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      let bytes = (0..<Int.random(in: 0...40)).map { _ in UInt8.random(in: 0...255, using: &random) }
      #expect(NullCall.reply(bytes, to: 9) != .served)
      _ = NullCall.reply(Array(served.prefix(Int.random(in: 0...28))) + bytes, to: 9)
    }
  }

  @Test func addressesAreThoseOfTheNameAskedFor() throws {
    let query = AddressQuery(try DomainName(text: "nfs.test"), ipv6: false, id: 7)
    #expect(DNSMessage(query.bytes)?.question?.description == "nfs.test A")
    var answer = query.bytes
    answer[2] = 0x81
    answer[7] = 1
    answer += [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 9, 0, 2]
    let found = try #require(query.addresses(answer))
    #expect(found.addresses == [IPAddress("10.9.0.2")] && found.seconds == 60 && found.code == 0)
    #expect(AddressQuery(query.name, ipv6: false, id: 8).addresses(answer) == nil)
    #expect(query.addresses(query.bytes) == nil)
    for length in 0..<answer.count { #expect(query.addresses(Array(answer[..<length]))?.addresses ?? [] == []) }
  }

  @Test func whichFailuresAreTriedAgain() {
    for errno in [104, 110, 111, 113, 5, 116, 11] as [Int32] {
      #expect(!MountFailure.mount(errno, "t", isNetwork: true).isFinal, "\(errno)")
      #expect(MountFailure.mount(errno, "t", isNetwork: false).isFinal, "\(errno)")
    }
    for errno in [1, 2, 13, 19, 20, 22, 93] as [Int32] {
      #expect(MountFailure.mount(errno, "t", isNetwork: true).isFinal, "\(errno)")
    }
  }
}
