import Inet
import TLS
import Testing

/// Which name a client asks its server for, however its bytes come.
struct ClientHelloTests {
  static func extensionBytes(_ type: UInt16, _ data: [UInt8]) -> [UInt8] {
    [UInt8(type >> 8), UInt8(type & 0xff), UInt8(data.count >> 8), UInt8(data.count & 0xff)] + data
  }

  static func nameExtension(_ name: [UInt8], kind: UInt8 = 0) -> [UInt8] {
    let entry = [kind, UInt8(name.count >> 8), UInt8(name.count & 0xff)] + name
    return extensionBytes(0, [UInt8(entry.count >> 8), UInt8(entry.count & 0xff)] + entry)
  }

  /// A handshake message.
  static func message(_ extensions: [UInt8]?, type: UInt8 = 1) -> [UInt8] {
    var body: [UInt8] = [3, 3] + Array(repeating: 7, count: 32) + [32] + Array(repeating: 9, count: 32)
    body += [0, 4, 0x13, 1, 0x13, 2, 1, 0]
    if let extensions { body += [UInt8(extensions.count >> 8), UInt8(extensions.count & 0xff)] + extensions }
    return [type, UInt8(body.count >> 16), UInt8(body.count >> 8 & 0xff), UInt8(body.count & 0xff)] + body
  }

  static func records(_ message: [UInt8], each size: Int) -> [UInt8] {
    stride(from: 0, to: message.count, by: size).flatMap { start -> [UInt8] in
      let part = message[start..<min(start + size, message.count)]
      return [22, 3, 1, UInt8(part.count >> 8), UInt8(part.count & 0xff)] + part
    }
  }

  private func read(_ bytes: [UInt8]) -> ClientHello.Reading { bytes.withUnsafeBytes { ClientHello.read($0) } }

  private func name(_ bytes: [UInt8]) -> String? {
    if case .hello(let hello) = read(bytes) { hello.serverName?.description ?? "none" } else { nil }
  }

  static let plain = message(extensionBytes(43, [2, 3, 4]) + nameExtension(Array("Api.Example.COM".utf8)))

  /// In one segment, one byte at a time, over three records, over records of one byte: the same name, and never before all of
  /// it has come.
  @Test func theNameIsFoundHoweverItComes() {
    for size in [16384, 100, (Self.plain.count + 2) / 3, 1] {
      let bytes = Self.records(Self.plain, each: size)
      for count in 0..<bytes.count { #expect(read(Array(bytes[..<count])) == .incomplete, "\(size), \(count)") }
      #expect(name(bytes) == "api.example.com")
      // What follows is not looked at: early data, a second record.
      #expect(name(bytes + [23, 3, 3, 0, 1, 0]) == "api.example.com")
      #expect(name(bytes + Array(repeating: 0, count: 9)) == "api.example.com")
    }
  }

  /// X25519MLKEM768 makes a key share of 1216 bytes, and another group's beside it.
  @Test func aPostQuantumHelloOf2KB() {
    let share = Self.extensionBytes(51, Array(repeating: 0x5a, count: 1900))
    let big = Self.records(Self.message(share + Self.nameExtension(Array("pq.example".utf8))), each: 16384)
    #expect(big.count > 2000)
    #expect(name(big) == "pq.example")
    #expect(read(Array(big[..<1448])) == .incomplete)
  }

  @Test func aClientWithoutAName() {
    #expect(name(Self.records(Self.message([]), each: 16384)) == "none")
    #expect(name(Self.records(Self.message(nil), each: 16384)) == "none")
    #expect(name(Self.records(Self.message(Self.extensionBytes(16, [0, 3, 2, 104, 50])), each: 99)) == "none")
  }

  @Test(arguments: ["GET / HTTP/1.1\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\u{0}", "\u{80}\u{2e}\u{1}\u{3}", " "])
  func whatIsNoTLS(_ text: String) { #expect(read(Array(text.utf8)) == .notTLS) }

  /// What a server might read in another way than we do is neither a name nor the lack of one.
  @Test func whatIsNotWellFormed() {
    let long = Array(repeating: UInt8(ascii: "a"), count: 300)
    let cases: [(String, [UInt8])] = [
      ("two names", Self.message(Self.nameExtension(Array("a.test".utf8)) + Self.nameExtension(Array("b.test".utf8)))),
      ("no name", Self.message(Self.nameExtension([]))),
      ("an address", Self.message(Self.nameExtension(Array("10.0.0.1".utf8)))),
      ("another kind", Self.message(Self.nameExtension(Array("a.test".utf8), kind: 1))),
      ("NUL", Self.message(Self.nameExtension(Array("a.test\u{0}.b.test".utf8)))),
      ("too long", Self.message(Self.nameExtension(long))),
      ("not UTF-8", Self.message(Self.nameExtension([0xff, 0xfe]))),
      ("an empty extension", Self.message(Self.extensionBytes(0, []))),
      ("cut extensions", Self.message([0, 0, 0, 9, 1])),
      ("a ServerHello", Self.message([], type: 2)),
      ("no body", [1, 0, 0, 0]), ("a huge one", [1, 0xff, 0xff, 0xff]),
    ]
    for (what, message) in cases {
      guard case .malformed = read(Self.records(message, each: 16384)) else {
        Issue.record("\(what): \(read(Self.records(message, each: 16384)))")
        continue
      }
    }
    for bytes: [UInt8] in [
      [22, 2, 0, 0, 5], [22, 3, 1, 0, 0], [22, 3, 1, 0xff, 0xff], [22, 3, 1, 0, 1, 1, 23, 3, 3, 0, 1, 0],
    ] {
      guard case .malformed = read(bytes) else {
        Issue.record("\(bytes)")
        continue
      }
    }
  }

  /// Anything gives a value; whatever was cut out of a good one as well.
  @Test func randomBytes() {
    let good = Self.records(Self.plain, each: 37)
    for _ in 0..<200_000 {
      var bytes = Array(good[..<Int.random(in: 0...good.count)])
      for _ in 0..<Int.random(in: 0...4) where !bytes.isEmpty {
        bytes[Int.random(in: 0..<bytes.count)] = UInt8.random(in: 0...255)
      }
      _ = read(bytes)
    }
  }
}
