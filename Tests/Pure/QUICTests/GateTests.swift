import Inet
import Testing

@testable import QUIC

/// Which datagrams go on, as a client's and an attacker's packets come.
struct GateTests {
  static let server = IPEndpoint(.v4(IPv4Address(rawValue: 0x0a08_0002)), 443)

  /// A ClientHello with a name, and one that is as long as post-quantum key shares make it.
  static func hello(_ name: String?, padding: Int = 0) -> [UInt8] {
    func vector(_ bytes: [UInt8]) -> [UInt8] { [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)] + bytes }
    var extensions: [UInt8] = [0, 43] + vector([2, 3, 4])
    if padding > 0 { extensions += [0x6a, 0x6a] + vector(Array(repeating: 7, count: padding)) }
    if let name { extensions += [0, 0] + vector(vector([0] + vector(Array(name.utf8)))) }
    let body: [UInt8] = [3, 3] + Array(repeating: 1, count: 32) + [0, 0, 2, 0x13, 1, 1, 0] + vector(extensions)
    return [1, 0] + vector(body)
  }

  /// A gate that allows one name; asks and answers as words.
  struct World {
    var gate: QUICGate
    var now: UInt32 = 100
    var asked: [String] = []
    var frames = 0

    init(_ bounds: QUICGate.Bounds = .init()) { gate = QUICGate(bounds) }

    mutating func send(_ datagram: [UInt8], each size: Int? = nil, to server: IPEndpoint = GateTests.server) -> String {
      frames += 1
      let frame = [UInt8(frames & 0xff)]
      var names: [String] = []
      let verdict = datagram.withUnsafeBytes { bytes in
        frame.withUnsafeBytes { frame in
          gate.judge(bytes, each: size, frame: frame, to: server, now: now) { name in
            names.append(name?.description ?? "none")
            return name?.description == "ok.test" ? nil : "\(name?.description ?? "none") is not allowed"
          }
        }
      }
      asked += names
      switch verdict {
      case .pass(let held): return held.isEmpty ? "pass" : "pass \(held.map { $0[0] })"
      case .hold: return "hold"
      case .drop: return "drop"
      case .deny(let reason): return reason
      }
    }
  }

  static let id: [UInt8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]
  static let short: [UInt8] = [0x40] + Array(repeating: 9, count: 40)

  /// RFC 9001 appendix A.2 and RFC 9369 appendix A.2: the very packets of the RFCs, whose ClientHello names example.com.
  @Test(arguments: [
    (
      QUICVersion.v1, "c000000001088394c8f03e5157080000449e7b9aec34",
      "d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27cd449f63300099f399"
    ),
    (
      QUICVersion.v2, "d76b3343cf088394c8f03e5157080000449ea0c95e82",
      "ffe67b6abcdb4298b485dd04de806071bf03dceebfa162e75d6c96058bdbfb127cdfcbf903388e99ad04"
    ),
  ])
  func theRFCsPackets(_ version: QUICVersion, _ header: String, _ beginning: String) throws {
    let crypto = bytes(
      """
      060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010000e
      00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000003300260024001d
      00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603020308040805
      0806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e
      51570806048000ffff
      """)
    // With the number 2 in four bytes, padded to 1162 bytes.
    var keys = InitialKeys(version, destinationID: Self.id)
    var payload = crypto + Array(repeating: 0, count: 1162 - crypto.count)
    var plain = bytes(header)
    // The header in the RFC is protected; its first byte and its number are the packet's own.
    plain[0] = version == .v1 ? 0xc3 : 0xd3
    plain.replaceSubrange(plain.count - 4..<plain.count, with: [0, 0, 0, 2])
    keys.packet.crypt(&payload, keys.nonce(2))
    let tag = payload.withUnsafeBytes { keys.packet.tag(keys.nonce(2), associated: plain, ciphertext: $0) }
    #expect(hex(payload.prefix(beginning.count / 2)) == beginning)
    var packet = bytes(header)
    let mask = payload.withUnsafeBytes { keys.header.encrypt(Block($0[0..<16])) }
    // The protected first byte and number are what the RFC prints.
    #expect(plain[0] ^ mask[0] & 0x0f == packet[0])
    for index in 0..<4 { #expect(plain[plain.count - 4 + index] ^ mask[index + 1] == packet[packet.count - 4 + index]) }
    packet += payload + (0..<16).map { tag[$0] }
    #expect(packet.count == 1200)
    var world = World()
    #expect(world.send(packet) == "example.com is not allowed")
    keys = InitialKeys(version, destinationID: [1])
    // A bit that was changed on the way is another packet, for which nobody asks.
    packet[600] ^= 1
    #expect(world.send(packet) == "a QUIC Initial that its server could not open")
    #expect(world.asked == ["example.com"])
  }

  @Test(arguments: QUICVersion.allCases)
  func anAllowedNameOpensTheWay(_ version: QUICVersion) {
    var world = World()
    #expect(world.send(Self.short) == "it belongs to no QUIC connection that began with a name")
    var client = InitialClient(Self.id, version: version)
    #expect(world.send(client.packet(InitialClient.crypto(Self.hello("ok.test")))) == "pass")
    #expect(world.send(Self.short) == "pass")
    #expect(world.send(Self.short, to: IPEndpoint(Self.server.address, 444)) != "pass")
    // Behind the server's answer: its connection id, the same keys; an ACK and a packet of the handshake in one datagram.
    client.destination = [5, 5, 5, 5]
    let ack = client.packet([2, 0, 0, 0, 0])
    #expect(world.send(ack + client.header(kind: 2, length: 50) + Array(repeating: 3, count: 50)) == "pass")
    // Where the server has chosen version 2 (RFC 9368), the keys follow from the same id.
    client.version = .v2
    #expect(world.send(client.packet([2, 1, 0, 0, 0])) == "pass")
    #expect(world.asked == ["ok.test"])
  }

  @Test func anotherNameDoesNot() {
    var world = World()
    var client = InitialClient(Self.id)
    let packet = client.packet(InitialClient.crypto(Self.hello("no.test")))
    #expect(world.send(packet) == "no.test is not allowed")
    #expect(world.send(packet) == "no.test is not allowed")
    #expect(world.send(Self.short) != "pass")
    var nameless = InitialClient([1, 2, 3, 4, 5, 6, 7, 8])
    #expect(world.send(nameless.packet(InitialClient.crypto(Self.hello(nil)))) == "none is not allowed")
  }

  /// A hello of 2 KB in two datagrams, its frames in any order, cut anywhere: nothing goes on before the name is known.
  @Test func aNameInSeveralPackets() {
    let hello = Self.hello("ok.test", padding: 1900)
    for cut in [1, 4, 900, hello.count - 20, hello.count - 1] {
      for turned in [false, true] {
        var world = World()
        var client = InitialClient(Self.id)
        let parts = [
          InitialClient.crypto(hello[..<cut]), InitialClient.crypto(hello[cut...], at: cut),
        ]
        let first = client.packet([1, 0, 0] + parts[turned ? 1 : 0])
        let second = client.packet(parts[turned ? 0 : 1] + [0])
        #expect(world.send(first) == "hold")
        #expect(world.send(first) == "drop", "it is held already")
        #expect(world.send(client.header(kind: 1, length: 60) + Array(repeating: 1, count: 60)) == "hold", "0-RTT")
        #expect(world.send(second) == "pass [1, 3]")
        #expect(world.asked == ["ok.test"])
      }
    }
    // In one datagram, and in one frame of the kernel's.
    var world = World()
    var client = InitialClient(Self.id)
    let both = [
      client.packet(InitialClient.crypto(hello[..<1000])),
      client.packet(InitialClient.crypto(hello[1000...], at: 1000)),
    ]
    #expect(world.send(both[0] + both[1]) == "pass")
    world = World()
    let padded = both[0] + Array(repeating: 0, count: max(0, both[1].count - both[0].count))
    #expect(world.send(padded + both[1], each: padded.count) == "pass")
  }

  /// The server may get the packets in another order, or only some of them: what came at a place stays so.
  @Test func bytesThatComeAgainAsOthers() {
    var world = World()
    var client = InitialClient(Self.id)
    #expect(world.send(client.packet(InitialClient.crypto(Self.hello("ok.test")))) == "pass")
    #expect(
      world.send(client.packet(InitialClient.crypto(Self.hello("no.test"))))
        == "a QUIC handshake that says two things at the same place")
    #expect(world.send(client.packet([1])) == "a QUIC handshake that says two things at the same place")
    // Another connection from the same port is judged for itself.
    var other = InitialClient([9, 9, 9, 9, 9, 9, 9, 9])
    #expect(world.send(other.packet(InitialClient.crypto(Self.hello("no.test")))) == "no.test is not allowed")
    // And so is what comes with the id of a Retry.
    var retried = InitialClient([7, 7, 7, 7])
    #expect(world.send(retried.packet(InitialClient.crypto(Self.hello("ok.test")), token: [1, 2])) == "pass")
    #expect(world.asked == ["ok.test", "no.test", "ok.test"])
  }

  /// Behind a HelloRetryRequest a second hello follows the first.
  @Test func aSecondHello() {
    for (name, verdict) in [("ok.test", "pass"), ("no.test", "a second ClientHello with another name")] {
      var world = World()
      var client = InitialClient(Self.id)
      let first = Self.hello("ok.test")
      #expect(world.send(client.packet(InitialClient.crypto(first))) == "pass")
      client.destination = [4, 4]
      let second = Self.hello(name, padding: 40)
      #expect(world.send(client.packet(InitialClient.crypto(second[..<30], at: first.count))) == "hold")
      #expect(world.send(client.packet(InitialClient.crypto(second[30...], at: first.count + 30))).hasPrefix(verdict))
    }
  }

  /// GCM does not commit to its key: somebody can make a packet that opens with two. Here both keys are the same one: an
  /// id that two connections have at two servers.
  @Test func aPacketThatTwoServersWouldRead() {
    var world = World()
    var client = InitialClient(Self.id)
    #expect(world.send(client.packet(InitialClient.crypto(Self.hello("ok.test")))) == "pass")
    let elsewhere = IPEndpoint(.v4(IPv4Address(rawValue: 0x0a08_0003)), 443)
    #expect(
      world.send(client.packet(InitialClient.crypto(Self.hello("ok.test"))), to: elsewhere)
        == "a QUIC packet that two servers would read differently")
    client.destination = [4, 4]
    #expect(world.send(client.packet([1]), to: elsewhere) == "a QUIC packet that two servers would read differently")
  }

  @Test func whatIsNotQUIC() {
    var world = World()
    var client = InitialClient(Self.id)
    let good = client.packet(InitialClient.crypto(Self.hello("ok.test")))
    var unknown = good
    unknown.replaceSubrange(1..<5, with: [0xba, 0xba, 0xba, 0xba])
    var negotiation = good
    negotiation.replaceSubrange(1..<5, with: [0, 0, 0, 0])
    var other = InitialClient([3, 3, 3, 3])
    let coalesced = good + other.packet(InitialClient.crypto(Self.hello("no.test")))
    let cases: [([UInt8], String)] = [
      ([], "a datagram without a byte is not QUIC"),
      (unknown, "a QUIC packet of version 0xbabababa, expected 1 or 2"),
      (negotiation, "a QUIC packet of version 0x0, expected 1 or 2"),
      (Array(good.dropLast()), "a QUIC packet that ends too early"),
      (client.header(kind: 3, length: 0), "a QUIC packet that only servers send"),
      (coalesced, "a datagram for two QUIC connections"),
      ([0xc0, 0, 0, 0, 1, 21] + Array(repeating: 1, count: 60), "a QUIC packet without two connection ids"),
      (client.packet([0x08, 1, 2]), "a QUIC Initial with frames that it cannot have"),
    ]
    for (datagram, reason) in cases { #expect(world.send(datagram) == reason) }
    var late = InitialClient([6, 6, 6, 6])
    #expect(
      world.send(late.packet(InitialClient.crypto([1], at: 16_384))) == "a QUIC handshake of more than 16384 bytes")
    var server = InitialClient([8, 8, 8, 8])
    #expect(
      world.send(server.packet(InitialClient.crypto([2, 0, 0, 0]))).hasPrefix("a ClientHello that is a handshake"))
    #expect(world.asked == [])
  }

  /// However many connections are begun, memory and time are bounded; those that servers know of are not forgotten for it.
  @Test func bounds() {
    var bounds = QUICGate.Bounds()
    bounds.connections = 8
    bounds.heldCount = 2
    var world = World(bounds)
    for number in 0..<100 {
      var client = InitialClient([UInt8(number), 1, 1, 1])
      #expect(world.send(client.packet(InitialClient.crypto([1, 0]))) == "hold")
      #expect(world.send(client.packet(InitialClient.crypto([0], at: 2))) == "hold")
      #expect(world.send(client.packet(InitialClient.crypto([9], at: 3))) == "drop")
      #expect(world.gate.connections.count <= 8)
    }
    for number in 0..<8 {
      var client = InitialClient([UInt8(number), 2, 2, 2])
      #expect(world.send(client.packet(InitialClient.crypto(Self.hello("ok.test")))) == "pass")
    }
    var client = InitialClient([3, 3, 3])
    let packet = client.packet(InitialClient.crypto(Self.hello("ok.test")))
    #expect(world.send(packet) == "too many QUIC handshakes at once")
    world.now += QUICGate.handshakeLifetime + 1
    #expect(world.send(packet) == "pass")
  }

  /// Anything gives a verdict; what was changed is never a reason to let something pass that would not.
  @Test func randomBytes() {
    var client = InitialClient(Self.id)
    let good = client.packet(InitialClient.crypto(Self.hello("no.test")))
    for _ in 0..<3_000 {
      var world = World()
      var datagram = Array(good[..<Int.random(in: 0...good.count)])
      for _ in 0..<Int.random(in: 0...4) where !datagram.isEmpty {
        datagram[Int.random(in: 0..<datagram.count)] = UInt8.random(in: 0...255)
      }
      #expect(!world.send(datagram).hasPrefix("pass"))
    }
  }
}
