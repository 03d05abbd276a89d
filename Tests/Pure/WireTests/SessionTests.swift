import Testing
import Wire

/// The session's vectors of docs/protocol.md, and what a host that is not trusted may send PID 1 instead.
struct SessionTests {
  static let token = VectorTests.token
  static let report = StartReport(
    boot: BootID(high: 0x0102_0304_0506_0708, low: 9), proxyToken: Token(repeatElement(0x70, count: 32)) ?? .none,
    hostToken: Token(repeatElement(0x68, count: 32)) ?? .none,
    configurationDigest: Array(repeating: 0xd1, count: StartReport.digestLength), version: "0.1")

  @Test func startReport() throws {
    let hello = Hello(.session, token: Self.token, parameters: Self.report.parameters)
    let bytes =
      hex("54 4d 42 4c 02 06 00 83") + Self.token.bytes + hex("01 02 03 04 05 06 07 08 00 00 00 00 00 00 00 09")
      + Array(repeating: 0x70, count: 32) + Array(repeating: 0x68, count: 32) + Array(repeating: 0xd1, count: 48)
      + hex("30 2e 31")
    #expect(hello.encoded() == bytes)
    let decoded = try #require(try Hello.decode(bytes))
    #expect(decoded.hello == hello && decoded.length == bytes.count)
    #expect(try StartReport(parameters: hello.parameters) == Self.report)
    // With a policy's digest behind a zero.
    var complete = Self.report
    complete.policyDigest = Array(repeating: 0xd2, count: 48)
    #expect(complete.parameters == Self.report.parameters + [0] + Array(repeating: 0xd2, count: 48))
    #expect(try StartReport(parameters: complete.parameters) == complete)
    #expect(Self.report.boot.description == "01020304050607080000000000000009")
    #expect(BootID(Self.report.boot.description) == Self.report.boot)
    for bad in [
      "", "0102030405060708000000000000000", "0102030405060708000000000000000G", "+1020304050607080000000000000009",
    ] {
      #expect(BootID(bad) == nil)
    }
  }

  @Test func startReportsThatAreRefused() {
    let good = Self.report.parameters
    for count in 0..<(good.count - 2) {
      #expect(throws: WireError.self) { try StartReport(parameters: Array(good.prefix(count))) }
    }
    // A version of 65 bytes, one with a control character, tokens of zeros.
    #expect(throws: WireError.self) { try StartReport(parameters: good + [UInt8](repeating: 0x30, count: 62)) }
    #expect(throws: WireError.self) { try StartReport(parameters: good + [0x1b]) }
    // Digests of a policy that are too short, too long, or behind no version.
    for count in [0, 1, 47, 49] {
      #expect(throws: WireError.self) { try StartReport(parameters: good + [0] + [UInt8](repeating: 0, count: count)) }
    }
    #expect(throws: WireError.self) {
      try StartReport(parameters: Array(good.dropLast(3)) + [0] + [UInt8](repeating: 1, count: 48))
    }
    for start in [16, 48] {
      var bad = good
      bad.replaceSubrange(start..<start + 32, with: repeatElement(0, count: 32))
      #expect(throws: WireError.self) { try StartReport(parameters: bad) }
    }
  }

  static let reports: [(EnclaveReport, [UInt8])] = [
    (.service(name: "proxy", state: .ready), hex("01 00 00 06 02 70 72 6f 78 79")),
    (.exit(137), hex("02 00 00 01 89")),
    (
      .counters(
        EnclaveCounters(
          id: 7, logBytesWaiting: 1, logRecordsDropped: 2, logBytesDropped: 3, proxyRestarts: 4, uptime: 5)),
      hex("03 00 00 2c 00 00 00 07 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03")
        + hex("00 00 00 00 00 00 00 04 00 00 00 00 00 00 00 05")
    ),
  ]
  static let orders: [(HostOrder, [UInt8])] = [
    (.stop, hex("10 00 00 00")), (.signal(15), hex("11 00 00 01 0f")), (.count(7), hex("12 00 00 04 00 00 00 07")),
  ]

  @Test func messages() throws {
    for (report, bytes) in Self.reports {
      #expect(report.encoded() == bytes)
      #expect(try EnclaveReport(type: bytes[0], payload: Array(bytes[4...])) == report)
    }
    for (order, bytes) in Self.orders {
      #expect(order.encoded() == bytes)
      #expect(try HostOrder(type: bytes[0], payload: Array(bytes[4...])) == order)
    }
  }

  /// However a stream is cut, the same messages come out; a length that is too long is found with the header.
  @Test func streams() throws {
    let stream = Self.orders.flatMap { $0.1 }
    for size in 1...stream.count {
      var decoder = SessionDecoder()
      var found: [HostOrder] = []
      for start in stride(from: 0, to: stream.count, by: size) {
        decoder.append(stream[start..<min(start + size, stream.count)])
        while decoder.hasMessage {
          let message = try #require(try decoder.next())
          found.append(try HostOrder(type: message.type, payload: message.payload))
        }
      }
      #expect(found == Self.orders.map(\.0))
    }
    for bad in ["10 01 00 00", "10 00 01 01", "ff ff ff ff"] {
      var decoder = SessionDecoder()
      decoder.append(hex(bad))
      #expect(decoder.hasMessage)
      #expect(throws: WireError.self) { try decoder.next() }
    }
    for bad in [
      "10 00 00 01 00", "11 00 00 00", "11 00 00 01 00", "11 00 00 01 41", "12 00 00 03 00 00 00", "00 00 00 00",
    ] {
      let bytes = hex(bad)
      #expect(throws: WireError.self) { try HostOrder(type: bytes[0], payload: Array(bytes[4...])) }
    }
    for bad in [
      "01 00 00 01 00", "01 00 00 02 05 61", "01 00 00 02 00 41", "01 00 00 02 00 1b", "02 00 00 00", "04 00 00 00",
    ] {
      let bytes = hex(bad)
      #expect(throws: WireError.self) { try EnclaveReport(type: bytes[0], payload: Array(bytes[4...])) }
    }
  }

  /// PID 1 reads what the host sends: 10 million messages, random, cut short, too long, each gives an order or an error and
  /// never a trap, and the decoder never holds more than it was given.
  @Test func tenMillionMessagesWithoutATrap() {
    var generator = SplitMix(seed: 7)
    var orders = 0
    var errors = 0
    for _ in 0..<2_500_000 {
      var decoder = SessionDecoder()
      // Four messages a stream; three of four headers are well-formed, so that the payloads are reached.
      var bytes: [UInt8] = []
      for _ in 0..<4 {
        let random = generator.next()
        let length = Int(random & 7)
        bytes.append(random & 8 == 0 ? UInt8(16 + (random >> 4) % 3) : UInt8(truncatingIfNeeded: random >> 8))
        bytes.append(random >> 16 & 31 == 0 ? 1 : 0)
        bytes.append(random >> 21 & 63 == 0 ? 1 : 0)
        bytes.append(random >> 27 & 3 == 0 ? UInt8(truncatingIfNeeded: random >> 32) : UInt8(length))
        for index in 0..<length { bytes.append(UInt8(truncatingIfNeeded: random >> (40 + UInt64(index)))) }
      }
      decoder.append(bytes)
      do {
        while let message = try decoder.next() {
          do {
            let order = try HostOrder(type: message.type, payload: message.payload)
            if let again = try? HostOrder(type: message.type, payload: Array(order.encoded()[4...])), again != order {
              Issue.record("\(order) is not read back as itself")
            }
            orders += 1
          } catch {
            errors += 1
            break
          }
        }
      } catch {
        errors += 1
      }
    }
    #expect(orders > 50_000 && errors > 1_000_000, "\(orders) orders, \(errors) errors")
  }

  /// Whoever guesses learns nothing from how long the answer takes, and zeros prove nothing.
  @Test func tokens() {
    #expect(Self.token.matches(Self.token))
    for index in 0..<Token.length {
      var bytes = Self.token.bytes
      bytes[index] ^= 1
      #expect(Token(bytes)?.matches(Self.token) == false)
    }
    #expect(!Token.none.matches(.none))
    #expect(Token([1, 2, 3]) == nil)
    #expect(!"\(Self.token)".contains("1"))
  }
}
