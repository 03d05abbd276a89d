import Inet
import Packets
import Testing

/// What may come back to a port that nobody has published.
@Suite struct DatagramFlowsTests {
  private func note(_ flows: inout DatagramFlows, _ packet: [UInt8], _ now: UInt32) {
    TestFrame(packet: packet).bytes.withUnsafeBytes { flows.note(sent: $0, now: now) }
  }

  private func isAnswer(_ flows: inout DatagramFlows, _ packet: [UInt8], _ now: UInt32) -> Bool {
    TestFrame(packet: packet).bytes.withUnsafeBytes { flows.isAnswer($0, now: now) }
  }

  @Test(arguments: [false, true]) func answers(v6: Bool) {
    var flows = DatagramFlows()
    note(&flows, datagram(v6: v6, from: 5000, to: 53, sent: true), 1000)
    func check(_ packet: [UInt8], _ now: UInt32, _ expected: Bool, at place: SourceLocation = #_sourceLocation) {
      let found = isAnswer(&flows, packet, now)
      #expect(found == expected, sourceLocation: place)
    }
    check(datagram(v6: v6, from: 53, to: 5000), 1010, true)
    check(datagram(v6: v6, from: 53, to: 5001), 1010, false)
    check(datagram(v6: v6, from: 54, to: 5000), 1010, false)
    check(datagram(v6: v6, from: 53, to: 5000, peer: v6 ? "fd08::3" : "10.8.0.3"), 1010, false)
    // Each answer makes it live longer.
    check(datagram(v6: v6, from: 53, to: 5000), 1010 + DatagramFlows.lifetime, true)
    check(datagram(v6: v6, from: 53, to: 5000), 1011 + 2 * DatagramFlows.lifetime, false)
    check(segment(v6: v6, port: 53, to: 5000, data: [], reversed: true), 1010, false)
  }

  /// An enclave with ten thousand flows has them all; one that floods the table has at least its last ones.
  @Test func manyFlows() {
    var flows = DatagramFlows()
    for port in 0..<10_000 { note(&flows, datagram(v6: false, from: 1024 + port, to: 53, sent: true), 5) }
    var known = 0
    for port in 0..<10_000 where isAnswer(&flows, datagram(v6: false, from: 53, to: 1024 + port), 6) { known += 1 }
    #expect(known >= 9_990)
    var small = DatagramFlows(count: 64)
    for port in 0..<60_000 {
      note(&small, datagram(v6: true, from: 1024 + port, to: 53, sent: true), UInt32(port))
      let found = isAnswer(&small, datagram(v6: true, from: 53, to: 1024 + port), UInt32(port))
      #expect(found)
    }
  }

  @Test func randomPackets() {
    var flows = DatagramFlows(count: 64)
    for _ in 0..<50_000 {
      var bytes = TestFrame(packet: datagram(v6: Bool.random(), from: 53, to: 5000)).bytes
      for _ in 0..<4 { bytes[Int.random(in: 10..<bytes.count)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0..<bytes.count))
      bytes.withUnsafeBytes {
        flows.note(sent: $0, now: 1)
        _ = flows.isAnswer($0, now: 1)
      }
    }
  }
}

/// Which of the host's packets an enclave with the host's address gets.
@Suite struct SharedCaptureTests {
  private let capture = SharedCapture(
    address4: IPv4Address(hostAddress), address6: IPv6Address(hostAddress6), ports: share, published: PortSet([80]),
    publishedDatagrams: PortSet([53]))

  private func decide(_ packet: [UInt8]) -> SharedCapture.Decision {
    TestFrame(packet: packet).bytes.withUnsafeBytes { capture.decide($0) { _ in false } }
  }

  @Test(arguments: [false, true]) func decisions(v6: Bool) {
    func arriving(_ port: UInt16, _ flags: UInt8) -> [UInt8] {
      segment(v6: v6, port: 9, to: port, flags: flags, data: [], reversed: true)
    }
    #expect(decide(arriving(80, 0x02)) == .take)
    #expect(decide(arriving(5000, 0x02)) == .refuse)
    #expect(decide(arriving(5000, 0x12)) == .take)
    #expect(decide(arriving(5000, 0x10)) == .take)
    // Datagrams: to a published port, to one where only connections are, and as an answer.
    #expect(decide(datagram(v6: v6, from: 9, to: 53)) == .take)
    #expect(decide(datagram(v6: v6, from: 9, to: 80)) == .leave)
    #expect(
      TestFrame(packet: datagram(v6: v6, from: 9, to: 80)).bytes.withUnsafeBytes { capture.decide($0) { _ in true } }
        == .take)
    func error(_ inner: [UInt8], type: UInt8? = nil) -> [UInt8] {
      let payload = [type ?? (v6 ? 2 : 3), 4, 0, 0, 0, 0, 5, 0] + inner.prefix(v6 ? 48 : 28)
      return v6
        ? TestFrame.v6("fd99::1", hostAddress6, transport: 58, payload: payload)
        : TestFrame.v4("10.9.9.1", hostAddress, transport: 1, payload: payload)
    }
    #expect(decide(error(segment(v6: v6, data: []))) == .take)
    // About the host's own connection, about somebody else's, and about nothing.
    #expect(decide(error(segment(v6: v6, port: 62000, data: []))) == .leave)
    #expect(decide(error(segment(v6: v6, data: [], reversed: true))) == .leave)
    #expect(decide(error([])) == .leave)
    #expect(
      decide(
        error(
          v6
            ? TestFrame.v6(hostAddress6, peerAddress6, transport: 58)
            : TestFrame.v4(hostAddress, peerAddress, transport: 1))) == .leave)
  }

  /// RFC 9293 section 3.10.7.1: a client tells a closed port from a black hole by it.
  @Test(arguments: [false, true]) func reset(v6: Bool) throws {
    let syn = segment(v6: v6, port: 9, to: 5000, flags: 0x02, options: [2, 4, 5, 0xb4], data: [7, 7], reversed: true)
    var packet = [UInt8](repeating: 0xee, count: SharedCapture.resetLimit)
    let count = TestFrame(packet: syn).bytes.withUnsafeBytes { frame in
      packet.withUnsafeMutableBytes { $0.baseAddress.map { SharedCapture.reset(frame, $0) } }
    }
    let length = try #require(count)
    let reset = Array(packet[..<length])
    let transport = v6 ? 40 : 20
    #expect(length == transport + 20)
    let expected = segment(v6: v6, port: 5000, to: 9, flags: 0x14, data: [])
    #expect(reset[(v6 ? 8 : 12)..<transport] == expected[(v6 ? 8 : 12)..<transport])
    #expect(Array(reset[transport..<transport + 4]) == TestFrame.big(5000) + TestFrame.big(9))
    // Sequence number 0; it acknowledges the SYN and its two bytes.
    #expect(Array(reset[transport + 4..<transport + 14]) == [0, 0, 0, 0, 0, 0, 1, 3, 0x50, 0x14])
    #expect(isChecked(reset, 6))
    if !v6 { #expect(words(Array(reset[..<20])) == 0xffff) }
  }

  /// A program's connect to where the host has no route fails at once, if its kernel takes this.
  @Test(arguments: [false, true]) func answerToWhatHasNoWay(v6: Bool) throws {
    let codes: [UInt8] = v6 ? [0, 3, 1, 4] : [0, 1, 13, 3]
    for (reason, code) in zip(UnreachableAnswer.Reason.allCases, codes) {
      for length in [0, 5, 3000] {
        let sent = segment(v6: v6, flags: 0x02, data: [UInt8](repeating: 7, count: length))
        let frame = TestFrame(packet: sent).bytes.withUnsafeBytes { UnreachableAnswer.make($0, reason) }
        let guarding = PacketGuard(
          .enclave, address4: IPv4Address(hostAddress), address6: IPv6Address(hostAddress6), ports: [80])
        #expect(guarding.defect(in: frame) == nil)
        #expect(frame.withUnsafeBytes { capture.decide($0) { _ in false } } == .take)
        let answer = Array(frame[PacketGuard.offloadHeaderLength...])
        let transport = v6 ? 40 : 20
        #expect(Array(answer[transport...(transport + 1)]) == [v6 ? 1 : 3, code])
        #expect(Array(answer[(transport + 8)...]) == Array(sent.prefix(128)))
        if v6 {
          #expect(isChecked(answer, 58))
        } else {
          #expect(words(Array(answer[..<20])) == 0xffff && words(Array(answer[20...])) == 0xffff)
        }
      }
    }
    for count in 0..<60 {
      let cut = Array(TestFrame(packet: segment(v6: v6, data: [])).bytes.prefix(count))
      #expect(cut.withUnsafeBytes { UnreachableAnswer.make($0, .host) }.count <= 10 + 48 + 60)
    }
  }

  @Test func randomPackets() {
    var room = [UInt8](repeating: 0, count: SharedCapture.resetLimit)
    for _ in 0..<50_000 {
      var bytes = TestFrame(packet: segment(v6: Bool.random(), flags: 2, data: [1], reversed: true)).bytes
      for _ in 0..<6 { bytes[Int.random(in: 10..<bytes.count)] = UInt8.random(in: 0...255) }
      bytes.removeLast(Int.random(in: 0..<bytes.count))
      bytes.withUnsafeBytes { frame in
        if capture.decide(frame, isAnswer: { _ in true }) == .refuse {
          let length = room.withUnsafeMutableBytes { $0.baseAddress.map { SharedCapture.reset(frame, $0) } }
          #expect(length == 40 || length == 60)
        }
      }
    }
  }
}

/// The enclave speaks in the host's name; these are the limits.
@Suite struct SharedGuardTests {
  private let guarding = PacketGuard(
    .host, address4: IPv4Address(hostAddress), address6: IPv6Address(hostAddress6), shared: share)

  private func defect(_ packet: [UInt8]) -> PacketDefect? { guarding.defect(in: TestFrame(packet: packet).bytes) }

  @Test func ports() {
    for v6 in [false, true] {
      #expect(defect(segment(v6: v6, port: 1024, data: [])) == nil)
      #expect(defect(segment(v6: v6, port: 61439, data: [])) == nil)
      for port: UInt16 in [0, 22, 1023, 61440, 65535] {
        #expect(defect(segment(v6: v6, port: port, data: [])) == .foreignPort)
      }
    }
    #expect(defect(TestFrame.v4(hostAddress, peerAddress, transport: 1)) == .foreignPort)
    #expect(defect(TestFrame.v6(hostAddress6, peerAddress6, transport: 58)) == .foreignPort)
    #expect(defect(TestFrame.v4(peerAddress, peerAddress, transport: 6)) == .badSource)
    // Behind a fragment or an extension header anything could be.
    var fragment = segment(v6: false, port: 5000, data: [])
    fragment[6] = 0x20
    #expect(defect(fragment) == .foreignPort)
    fragment[6] = 0
    fragment[7] = 9
    #expect(defect(fragment) == .foreignPort)
    var routed = segment(v6: false, port: 5000, data: [])
    routed[0] = 0x46
    routed.insert(contentsOf: [131, 3, 4, 0], at: 20)
    routed[3] += 4
    #expect(defect(routed) == .foreignPort)
    let hidden = [UInt8](segment(v6: true, port: 5000, data: [])[40...])
    for header: UInt8 in [0, 43, 44, 60] {
      #expect(
        defect(TestFrame.v6(hostAddress6, peerAddress6, transport: header, payload: [6, 0, 0, 0, 0, 0, 0, 0] + hidden))
          == .foreignPort)
    }
  }

  @Test(arguments: [
    "0.0.0.0", "127.0.0.1", "169.254.169.254", "192.0.0.8", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.19.255.255",
    "198.51.100.7", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", hostAddress,
  ])
  func reserved(destination: String) {
    #expect(
      defect(
        TestFrame.v4(
          hostAddress, destination, transport: 17, payload: TestFrame.big(5000) + [UInt8](repeating: 0, count: 6)))
        == .badDestination)
  }

  @Test(arguments: ["1.1.1.1", "10.0.0.1", "169.253.0.1", "192.0.1.1", "198.17.255.255", "198.20.0.1", "203.0.112.1"])
  func others(destination: String) {
    #expect(
      defect(
        TestFrame.v4(
          hostAddress, destination, transport: 17, payload: TestFrame.big(5000) + [UInt8](repeating: 0, count: 6)))
        == nil)
  }
}
