import Inet
import Testing
import Wire

func hex(_ text: String) -> [UInt8] { text.split(separator: " ").compactMap { UInt8($0, radix: 16) } }

/// The test vectors of docs/protocol.md: an enclave and a host of different versions of this program must understand
/// each other, so these bytes never change within protocol version 2.
struct VectorTests {
  static let connect4 = ConnectRequest(.endpoint(IPEndpoint(.v4(IPv4Address(93, 184, 216, 34)), 443)))
  static let connect6 = ConnectRequest(
    .endpoint(IPEndpoint(.v6(IPv6Address(high: 0x2001_0db8_0000_0000, low: 1)), 80)),
    source: IPEndpoint(.v4(.loopback), 40000))

  /// 00 01 02 … 1f
  static let token = Token(0..<32) ?? .none

  @Test func hellos() throws {
    func bytes(_ hello: Hello) -> [UInt8] { hello.proven(by: Self.token).encoded() }
    let token = Self.token.bytes
    #expect(
      bytes(Self.connect4.hello)
        == hex("54 4d 42 4c 02 01 00 0a") + token + hex("04 01 bb 5d b8 d8 22 00 00 00"))
    #expect(
      bytes(Self.connect6.hello) == hex("54 4d 42 4c 02 01 00 1a") + token
        + hex("06 00 50 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 04 9c 40 7f 00 00 01"))
    let named = ConnectRequest(
      Self.connect4.destination, name: DomainName(labels: [1, 0x61, 7] + Array("example".utf8)))
    #expect(
      bytes(named.hello) == hex("54 4d 42 4c 02 01 00 15") + token
        + hex("04 01 bb 5d b8 d8 22 00 00 00 0a 01 61 07 65 78 61 6d 70 6c 65"))
    #expect(
      bytes(ConnectRequest(.port(80)).hello) == hex("54 4d 42 4c 02 01 00 06") + token + hex("00 00 50 00 00 00"))
    #expect(bytes(Hello(.resolve)) == hex("54 4d 42 4c 02 02 00 00") + token)
    #expect(bytes(Hello(.logs)) == hex("54 4d 42 4c 02 04 00 00") + token)
  }

  @Test func answers() {
    #expect(Answer(.ok).encoded() == hex("54 4d 42 4c 02 00 00 00"))
    #expect(Answer(.refused).encoded() == hex("54 4d 42 4c 02 01 00 00"))
  }

  @Test func frames() {
    #expect(Frame.end == hex("01 00 00 00"))
    #expect(Frame.reset(.timedOut) == hex("02 00 00 01 02"))
    #expect(Frame.urgent(0x21) == hex("03 00 00 01 21"))
    var header = [UInt8](repeating: 0, count: 4)
    header.withUnsafeMutableBytes { Frame.writeDataHeader(0x012345, to: $0) }
    #expect(header == hex("00 01 23 45"))
  }

  @Test func records() {
    let record = LogRecord(sequence: 2, time: 3, source: .programError, body: .output([0x68, 0x69]))
    #expect(
      record.encoded()
        == hex("00 00 00 16 01 02 00 00 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 68 69"))
    let gap = LogRecord(sequence: 9, time: 0, source: .initProcess, body: .gap(records: 1, bytes: 2))
    #expect(
      gap.encoded()
        == hex(
          "00 00 00 24 02 03 00 00 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 00 "
            + "00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02"))
    #expect(LogRecord(sequence: 1, time: 0, source: .initProcess, body: .exit(137)).encoded().last == 137)
  }

  @Test func connectRoundTrips() throws {
    let named = ConnectRequest(
      Self.connect4.destination, source: IPEndpoint(.v6(.loopback), 1), name: try DomainName(text: "Api.Example.com"))
    #expect(named.description == "93.184.216.34:443 (api.example.com) for [::1]:1")
    for request in [
      Self.connect4, Self.connect6, ConnectRequest(.port(65535), source: IPEndpoint(.v6(.loopback), 1)), named,
    ] {
      let decoded = try #require(try Hello.decode(request.hello.encoded()))
      #expect(try ConnectRequest(parameters: decoded.hello.parameters) == request)
    }
  }
}

/// What a host that is not trusted may send instead: each ends its stream with a reason.
struct RefusalTests {
  @Test func helloRefusals() {
    #expect(throws: WireError.badMagic(hex("47 45 54 20"))) { try Hello.decode(hex("47 45 54 20 2f")) }
    // Found with the first wrong byte, not only when a whole header has come.
    #expect(throws: WireError.badMagic([0x54, 0x4c])) { try Hello.decode([0x54, 0x4c]) }
    #expect(throws: WireError.unsupportedVersion(1)) { try Hello.decode(hex("54 4d 42 4c 01")) }
    #expect(throws: WireError.unknownChannel(9)) {
      try Hello.decode(hex("54 4d 42 4c 02 09 00 00") + VectorTests.token.bytes)
    }
    #expect(throws: WireError.badLength(what: "parameters", found: 1025, limit: 1024)) {
      try Hello.decode(hex("54 4d 42 4c 02 01 04 01"))
    }
    #expect(throws: WireError.unknownStatus(200)) { try Answer.decode(hex("54 4d 42 4c 02 c8 00 00")) }
  }

  @Test func everyPrefixOfAHelloAsksForMore() throws {
    let bytes = VectorTests.connect6.hello.encoded()
    for length in 0..<bytes.count { #expect(try Hello.decode(Array(bytes[..<length])) == nil) }
  }

  @Test func connectRefusals() {
    #expect(throws: WireError.truncated) { try ConnectRequest(parameters: [4, 0, 80, 1, 2]) }
    #expect(throws: WireError.trailingBytes(1)) { try ConnectRequest(parameters: [0, 0, 80, 0, 0, 0, 2, 1, 97, 9]) }
    #expect(throws: WireError.truncated) { try ConnectRequest(parameters: [0, 0, 80, 0, 0, 0, 9]) }
    for name: [UInt8] in [[0], [2, 2, 97], [2, 0, 0], [3, 1, 97, 0]] {
      #expect(throws: WireError.badValue(what: "name")) { try ConnectRequest(parameters: [0, 0, 80, 0, 0, 0] + name) }
    }
    #expect(throws: WireError.badValue(what: "destination port")) {
      try ConnectRequest(parameters: [0, 0, 0, 0, 0, 0])
    }
    #expect(throws: WireError.badValue(what: "address family 5")) {
      try ConnectRequest(parameters: [5, 0, 80, 0, 0, 0])
    }
  }

  @Test func frameRefusals() {
    func events(_ bytes: [UInt8]) throws -> Int {
      var decoder = FrameDecoder()
      return try count(&decoder, bytes)
    }
    #expect(throws: WireError.unknownFrame(4)) { try events([4, 0, 0, 0]) }
    #expect(throws: WireError.badLength(what: "urgent frame", found: 0, limit: 1)) { try events([3, 0, 0, 0]) }
    #expect(throws: WireError.badLength(what: "urgent frame", found: 2, limit: 1)) { try events([3, 0, 0, 2, 1, 1]) }
    #expect(throws: WireError.afterEnd) { try events(Frame.end + Frame.urgent(7)) }
    #expect(throws: WireError.badLength(what: "data frame", found: 0, limit: Frame.dataLimit)) {
      try events([0, 0, 0, 0])
    }
    #expect(throws: WireError.badLength(what: "data frame", found: 0xffffff, limit: Frame.dataLimit)) {
      try events([0, 0xff, 0xff, 0xff])
    }
    #expect(throws: WireError.badLength(what: "end frame", found: 1, limit: 0)) { try events([1, 0, 0, 1]) }
    #expect(throws: WireError.badLength(what: "reset frame", found: 0, limit: 1)) { try events([2, 0, 0, 0]) }
    #expect(throws: WireError.unknownStatus(0)) { try events([2, 0, 0, 1, 0]) }
    #expect(throws: WireError.afterEnd) { try events(Frame.end + [0, 0, 0, 1, 7]) }
    #expect(throws: WireError.afterEnd) { try events(Frame.end + Frame.end) }
  }

  @Test func recordRefusals() {
    func decode(_ bytes: [UInt8]) throws -> LogRecord? {
      var decoder = LogRecordDecoder()
      decoder.append(bytes)
      return try decoder.next()
    }
    #expect(throws: WireError.badLength(what: "log record", found: 0x7fff_ffff, limit: 65556)) {
      try decode([0x7f, 0xff, 0xff, 0xff])
    }
    #expect(throws: WireError.truncated) { try decode([0, 0, 0, 1, 1]) }
    #expect(throws: WireError.unknownSource(0)) { try decode([0, 0, 0, 20] + [UInt8](repeating: 0, count: 20)) }
  }
}

/// Drains a decoder over `bytes`; the number of payload bytes.
func count(_ decoder: inout FrameDecoder, _ bytes: [UInt8]) throws -> Int {
  var offset = 0
  var payload = 0
  try bytes.withUnsafeBytes { buffer in
    while let event = try decoder.next(in: buffer, offset: &offset) {
      if case .data(let range) = event { payload += range.count }
    }
  }
  return payload
}

struct FrameDecoderTests {
  /// However the transport cuts the stream, the program gets the same bytes.
  @Test func anyCutGivesTheSameBytes() throws {
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var stream: [UInt8] = []
      var expected: [UInt8] = []
      for _ in 0..<Int.random(in: 0...5, using: &random) {
        if Bool.random(using: &random) {
          stream += Frame.urgent(0x21)
          expected.append(0x21)
        }
        let payload = (0..<Int.random(in: 1...300, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random)
        }
        var header = [UInt8](repeating: 0, count: 4)
        header.withUnsafeMutableBytes { Frame.writeDataHeader(payload.count, to: $0) }
        stream += header + payload
        expected += payload
      }
      stream += Frame.end
      var decoder = FrameDecoder()
      var got: [UInt8] = []
      var ended = false
      var rest = stream[...]
      while !rest.isEmpty {
        let piece = Array(rest.prefix(Int.random(in: 1...64, using: &random)))
        rest = rest.dropFirst(piece.count)
        var offset = 0
        try piece.withUnsafeBytes { buffer in
          while let event = try decoder.next(in: buffer, offset: &offset) {
            switch event {
            case .data(let range): got += piece[range]
            case .end: ended = true
            case .urgent(let byte): got.append(byte)
            case .reset: Issue.record("a reset that nobody sent")
            }
          }
        }
      }
      #expect(got == expected && ended)
    }
  }

  /// A trap here would be the end of every connection of an enclave: 10 million inputs, random and cut short.
  @Test func tenMillionInputsWithoutATrap() {
    var state: UInt64 = 0x9e37_79b9_7f4a_7c15
    func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    var payload = 0
    var refused = 0
    var decoder = FrameDecoder()
    withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { buffer in
      for round in 0..<10_000_000 {
        let length = Int(next() % 33)
        var index = 0
        while index < length {
          buffer.storeBytes(of: next(), toByteOffset: index, as: UInt64.self)
          index += 8
        }
        // Half of the inputs begin like a frame, so that the decoder gets past the first byte.
        if round & 1 == 0 {
          buffer[0] = UInt8(truncatingIfNeeded: next() % 4)
          buffer[1] = 0
          buffer[2] = 0
        }
        // Every other decoder goes on where the last input left it.
        if round & 2 == 0 { decoder = FrameDecoder() }
        let bytes = UnsafeRawBufferPointer(rebasing: buffer[..<length])
        var offset = 0
        do throws(WireError) {
          while let event = try decoder.next(in: bytes, offset: &offset) {
            if case .data(let range) = event {
              precondition(range.lowerBound >= 0 && range.upperBound <= length && !range.isEmpty)
              payload += range.count
            }
          }
        } catch {
          refused += 1
          decoder = FrameDecoder()
        }
      }
    }
    #expect(payload > 1_000_000)
    #expect(refused > 1_000_000)
  }
}

struct RandomInputTests {
  @Test func handshakesAndRecordsAreTotal() {
    for _ in 0..<300_000 {
      var bytes = (0..<Int.random(in: 0...64)).map { _ in UInt8.random(in: 0...255) }
      if Bool.random() { bytes = Hello.magic + [2, UInt8.random(in: 0...7), 0] + bytes }
      _ = try? Hello.decode(bytes)
      _ = try? Answer.decode(bytes)
      _ = try? ConnectRequest(parameters: bytes)
      _ = try? StartReport(parameters: bytes)
      var decoder = LogRecordDecoder()
      decoder.append([0, 0, 0, UInt8(min(bytes.count, 255))] + bytes)
      while let record = try? decoder.next() {
        var again = LogRecordDecoder()
        again.append(record.encoded())
        #expect((try? again.next()) == record)
      }
    }
  }
}

/// Raw mode's handshake: the vectors of docs/protocol.md.
struct PacketsHandshakeTests {
  static let request = PacketsRequest(
    queue: 1, queues: 2, mtu: 1500, features: 0x6f, address4: IPPrefix("10.118.0.2/30"),
    address6: IPPrefix("fd74:6f6d:626f::2/64"))

  @Test func vectors() throws {
    let bytes: [UInt8] = [
      0x54, 0x4d, 0x42, 0x4c, 2, 3, 0, 0x20, 1, 2, 5, 0xdc, 0, 0, 0, 0x6f, 4, 10, 0x76, 0, 2, 30, 6, 0xfd, 0x74, 0x6f,
      0x6d, 0x62, 0x6f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 64,
    ]
    func withToken(_ bytes: [UInt8]) -> [UInt8] { bytes[..<8] + VectorTests.token.bytes + bytes[8...] }
    #expect(Self.request.hello.proven(by: VectorTests.token).encoded() == withToken(bytes))
    #expect(try PacketsRequest(parameters: Array(bytes.dropFirst(8))) == Self.request)
    let answer = Answer(.ok, parameters: PacketsAnswer(features: 0x6f).parameters)
    #expect(answer.encoded() == [0x54, 0x4d, 0x42, 0x4c, 2, 0, 0, 4, 0, 0, 0, 0x6f])
    #expect(try PacketsAnswer(parameters: answer.parameters) == PacketsAnswer(features: 0x6f))
    // The offer of memory is a bit of the features, which a host that does not know it leaves alone.
    var offer = Self.request
    offer.offersMemory = true
    var offered = bytes
    offered[12] = 0x80
    #expect(offer.hello.proven(by: VectorTests.token).encoded() == withToken(offered))
    #expect(try PacketsRequest(parameters: Array(offered.dropFirst(8))) == offer)
    let taken = PacketsAnswer(features: 0x6f, takesMemory: true)
    #expect(taken.parameters == [0x80, 0, 0, 0x6f])
    #expect(try PacketsAnswer(parameters: taken.parameters) == taken)
  }

  /// Whatever an enclave says, its host answers or refuses.
  @Test func hostileHellos() {
    let good = Self.request.hello.parameters
    for count in 0..<good.count {
      #expect(throws: WireError.self) { try PacketsRequest(parameters: Array(good.prefix(count))) }
    }
    for (index, value) in [(0, 2), (1, 0), (1, 65), (2, 4), (8, 5), (13, 33), (14, 4), (31, 129)] as [(Int, UInt8)] {
      var bad = good
      bad[index] = value
      #expect(throws: WireError.self) { try PacketsRequest(parameters: bad) }
    }
    #expect(throws: WireError.self) { try PacketsRequest(parameters: good + [0]) }
    #expect(throws: WireError.self) { try PacketsRequest(parameters: Array(good.prefix(8)) + [0, 0]) }
  }
}

/// The question for addresses: the vectors of docs/protocol.md.
struct AddressesHandshakeTests {
  static let answer = AddressAnswer(
    address4: IPPrefix("10.118.0.6/30"), address6: IPPrefix("fd74:6f6d:626f:1::2/64"), mtu: 0)

  @Test func vectors() throws {
    let request = AddressRequest(wants4: true, wants6: true, mtu: 1500)
    #expect(
      request.hello.proven(by: VectorTests.token).encoded()
        == hex("54 4d 42 4c 02 05 00 04") + VectorTests.token.bytes + hex("01 03 05 dc"))
    #expect(try AddressRequest(parameters: hex("01 03 05 dc")) == request)
    #expect(
      Answer(.ok, parameters: Self.answer.parameters).encoded()
        == hex("54 4d 42 4c 02 00 00 18 00 00 0a 76 00 06 1e fd 74 6f 6d 62 6f 00 01 00 00 00 00 00 00 00 02 40"))
    #expect(try AddressAnswer(parameters: Self.answer.parameters) == Self.answer)
    let none = AddressAnswer(address4: nil, address6: nil, mtu: 1280)
    #expect(try AddressAnswer(parameters: none.parameters) == none)
  }

  /// Neither side trusts the other: nothing is read beyond the fixed places.
  @Test func hostileBytes() throws {
    let good = Self.answer.parameters
    for count in 0..<good.count {
      #expect(throws: WireError.self) { try AddressAnswer(parameters: Array(good.prefix(count))) }
    }
    #expect(throws: WireError.self) { try AddressAnswer(parameters: good + [0]) }
    for (index, value) in [(6, 33), (6, 255), (23, 129)] as [(Int, UInt8)] {
      var bad = good
      bad[index] = value
      #expect(throws: WireError.self) { try AddressAnswer(parameters: bad) }
    }
    for bad in ["", "01", "01 03 05", "01 03 05 dc 00", "01 00 05 dc", "01 04 05 dc", "01 03 04 ff"] {
      #expect(throws: WireError.self) { try AddressRequest(parameters: hex(bad)) }
    }
    #expect(try AddressRequest(parameters: hex("02")) == nil)
  }
}

struct ListeningPortsTests {
  @Test func vectors() throws {
    #expect(
      ListeningPorts.hello.encoded() == [0x54, 0x4d, 0x42, 0x4c, Hello.version, 7, 0, 0] + Token.none.bytes)
    #expect(ListeningPorts.encode([443, 80]) == [0, 80, 1, 0xbb])
    #expect(try ListeningPorts.decode([]) == [])
  }

  @Test func refused() {
    #expect(throws: WireError.truncated) { try ListeningPorts.decode([0, 80, 1]) }
    for bytes: [UInt8] in [[0, 0], [0, 80, 0, 80], [0, 81, 0, 80]] {
      #expect(throws: WireError.badValue(what: "order of listening ports")) { try ListeningPorts.decode(bytes) }
    }
  }

  @Test func roundTrips() throws {
    for _ in 0..<200 {
      let ports = Set((0..<Int.random(in: 0...100)).map { _ in UInt16.random(in: 1...65535) })
      #expect(try ListeningPorts.decode(ListeningPorts.encode(ports)) == ports)
      let noise = (0..<Int.random(in: 0...20)).map { _ in UInt8.random(in: 0...255) }
      if let read = try? ListeningPorts.decode(noise) { #expect(ListeningPorts.encode(read) == noise) }
    }
    let all = ListeningPorts.encode(Set(1...65535))
    #expect(all.count <= 65535 && (try? ListeningPorts.decode(all))?.count == ListeningPorts.limit)
  }
}
