import CLinux
import Foundation
import LinuxSystem
import Testing

@testable import VhostVsock

/// The vhost-user side: what QEMU says, what something else says there, and the paths.
@Suite(.serialized) struct MonitorTests {
  /// The next QEMU finds the device as the first did; a second one at the same time is turned away.
  @Test func oneGuestAfterAnother() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    for _ in 0..<3 {
      let guest = try GuestTwin(device)
      let host = try guest.connect(80, listener)
      let second = try GuestTwin(device, start: false)
      // Its first message may even fail: the connection is closed at once.
      try? second.message(1)
      #expect(throws: TwinFailure.self) { try second.reply() }
      try host.write([1])
      #expect(try guest.expect(VsockOperation.data).payload == [1])
    }
  }

  /// A guest that reboots in the same QEMU: the queues stop, every stream ends, and they start again from zero.
  @Test func queuesStopAndStartAgain() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    for queue in 0..<2 {
      try guest.message(11, little(UInt32(queue)) + little(UInt32(0)))
      let answer = try guest.reply()
      // The base given back is where the driver would go on: everything taken was used.
      let used = (guest.memory + GuestTwin.rings[queue].used + 2).load(as: UInt16.self)
      #expect(answer == little(UInt32(queue)) + little(UInt32(used)))
    }
    #expect(try host.isAtEnd())
    #expect(try device.connectAndAsk().isAtEnd())
    for queue in 0..<2 {
      memset(guest.memory + GuestTwin.rings[queue].available, 0, 0x100 + 0x200)
      memset(guest.memory + GuestTwin.rings[queue].used, 0, 6 + 8 * 128)
      guest.next[queue] = 0
      guest.seen[queue] = 0
      try guest.startRing(queue)
    }
    for index in 0..<128 { guest.addBuffer(UInt16(index)) }
    _ = try guest.connect(80, listener)
  }

  struct Message: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var request: UInt32
    var payload: [UInt8]
    var flags: UInt32 = 1
    init(_ name: String, _ request: UInt32, _ payload: [UInt8], flags: UInt32 = 1) {
      (testDescription, self.request, self.payload, self.flags) = (name, request, payload, flags)
    }
  }

  static let malformed: [Message] = [
    Message("a version that is not 1", 1, [], flags: 2),
    Message("features that were not offered", 2, little(UInt64.max)),
    Message("features without a value", 2, [1, 2]),
    Message("a memory table of nothing", 5, []),
    Message(
      "a memory table of 9 regions", 5, little(UInt32(9)) + little(UInt32(0)) + [UInt8](repeating: 0, count: 288)),
    Message("a memory table cut short", 5, little(UInt32(2)) + little(UInt32(0)) + [UInt8](repeating: 0, count: 40)),
    Message("a memory table without descriptors", 5, GuestTwin.regions(0)),
    Message("a ring of 3", 8, little(UInt32(0)) + little(UInt32(3))),
    Message("a ring of nothing", 8, little(UInt32(0)) + little(UInt32(0))),
    Message("a ring of 65536", 8, little(UInt32(0)) + little(UInt32(65536))),
    Message("queue 3", 8, little(UInt32(3)) + little(UInt32(128))),
    Message("queue 2^31", 11, little(UInt32(1 << 31)) + little(UInt32(0))),
    Message("a base of 65536", 10, little(UInt32(0)) + little(UInt32(65536))),
    Message("ring addresses before a memory table", 9, [UInt8](repeating: 0, count: 40)),
    Message("a kick without its descriptor", 12, little(UInt64(0))),
    Message("a ring to be polled", 12, little(UInt64(0x100))),
    Message("configuration beyond its end", 24, little(UInt32(200)) + little(UInt32(100)) + little(UInt32(0))),
    Message("configuration of 4 GiB", 24, little(UInt32.max) + little(UInt32.max) + little(UInt32(0))),
    Message("a request that nobody offered", 37, []),
    Message("a large message", 3, [UInt8](repeating: 0, count: 2000)),
  ]

  @Test(arguments: malformed) func malformedMessageEndsTheDeviceWithASentence(_ message: Message) throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, start: false)
    try guest.message(message.request, message.payload, flags: message.flags)
    let error = try device.waitForEnd()
    guard case .frontEnd(let sentence) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(sentence.count > 10)
  }

  /// Memory that is not there would end the process at the first access (SIGBUS), so it is not even mapped.
  @Test(arguments: [
    (UInt64(0), UInt64(GuestTwin.half) * 2 + 1, UInt64(0), "beyond its file"),
    (0, 4096, UInt64(GuestTwin.half) * 2, "beyond its file"), (0, UInt64.max, 1, "impossible"),
    (UInt64.max, 4096, 0, "impossible"), (0, 0, 0, "impossible"), (0, UInt64(1) << 63, 0, "impossible"),
  ])
  func badRegions(_ address: UInt64, _ size: UInt64, _ offset: UInt64, _ phrase: String) throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, start: false)
    let table =
      little(UInt32(1)) + little(UInt32(0)) + little(address) + little(size) + little(UInt64(0)) + little(offset)
    try guest.message(5, table, [guest.memoryFile])
    #expect(try device.waitForEnd()?.description.contains(phrase) == true)
  }

  @Test func memoryThatIsNoFileIsRefused() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, start: false)
    try guest.message(5, Array(GuestTwin.regions(0)), [guest.kicks[0], guest.kicks[1]])
    #expect(try device.waitForEnd()?.description.contains("not a regular file") == true)
  }

  @Test func ringsOutsideMemoryAreRefused() throws {
    for (table, available, used) in [
      (GuestTwin.userBase + UInt64(2 * GuestTwin.half) - 100, GuestTwin.userBase, GuestTwin.userBase),
      (GuestTwin.userBase, UInt64.max - 10, GuestTwin.userBase), (GuestTwin.userBase, GuestTwin.userBase, 0),
      (GuestTwin.userBase + 8, GuestTwin.userBase, GuestTwin.userBase),
    ] {
      let device = try RunningDevice()
      let guest = try GuestTwin(device, start: false)
      try guest.message(5, GuestTwin.regions(0), [guest.memoryFile, guest.memoryFile])
      try guest.message(8, little(UInt32(1)) + little(UInt32(128)))
      try guest.message(
        9, little(UInt32(1)) + little(UInt32(0)) + little(table) + little(used) + little(available) + little(UInt64(0)))
      guard case .frontEnd = try device.waitForEnd() else {
        Issue.record("accepted")
        return
      }
    }
  }

  /// Noise on the socket, with and without descriptors, ends in an orderly way whatever it is.
  @Test func randomMessages() throws {
    for round in 0..<300 {
      let device = try RunningDevice()
      let guest = try GuestTwin(device, start: round % 3 == 0)
      for _ in 0..<Int.random(in: 1..<8) {
        let request = UInt32.random(in: 0..<(Bool.random() ? 26 : 60))
        var payload = (0..<Int.random(in: 0..<80)).map { _ in Bool.random() ? 0 : UInt8.random(in: 0...255) }
        if Bool.random(), payload.count >= 8 {
          payload.replaceSubrange(0..<8, with: little(UInt32.random(in: 0..<4)) + little(UInt32.random(in: 0..<200)))
        }
        let descriptors: [Int32] = (0..<Int.random(in: 0..<4)).map { _ in
          Bool.random() ? guest.memoryFile : guest.kicks[0]
        }
        do { try guest.message(request, payload, descriptors, flags: Bool.random() ? 1 : 9) } catch { break }
      }
      guest.kick(1)
      if device.hasEnded(within: 0.002), let error = device.error {
        switch error {
        case .frontEnd, .guest, .system: break
        case .configuration: Issue.record("\(error)")
        }
      }
    }
  }

  @Test func pathsAndNumbersThatCannotWork() throws {
    func sentence(_ socket: String, _ cid: UInt32, _ hybrid: String) -> String? {
      do throws(VhostVsockError) {
        _ = try VhostVsockDevice(socketPath: socket, guestCID: cid, hybridPath: hybrid)
        return nil
      } catch {
        return error.description
      }
    }
    let device = try RunningDevice()
    let free = device.directory + "/free"
    for cid: UInt32 in [0, 1, 2, UInt32.max] {
      #expect(sentence(free, cid, free + "h") == "CID \(cid) cannot be a guest's; 3 to 4294967294 can")
    }
    #expect(sentence(device.socketPath, 4, free) == "\(device.socketPath): taken, another program listens there")
    #expect(sentence(free, 4, device.hybridPath) == "\(device.hybridPath): taken, another program listens there")
    let long = "/tmp/" + String(repeating: "x", count: 103)
    #expect(sentence(long, 4, free)?.contains("108 bytes; the path of this Unix socket can have at most 107") == true)
    let longHybrid = "/tmp/" + String(repeating: "x", count: 92)
    #expect(
      sentence(free, 4, longHybrid)?.contains("97 bytes; the path of this Unix socket can have at most 96") == true)
    #expect(sentence("", 4, free) == "the path of a socket is empty")
    try writeFile(free, "precious")
    #expect(sentence(free, 4, free + "h") == "\(free): there is something that is not a socket")
    #expect(try readText(free) == "precious")
    #expect(sentence("/nonexistent/x", 4, free + "h")?.contains("No such file or directory (ENOENT)") == true)
    #expect(sentence(free + "3", 3, free + "4") == nil)
  }

  /// What a killed device left behind is taken over; what a stopped one made is removed, somebody else's is not.
  @Test func socketsComeAndGo() throws {
    let directory = "/tmp/vv-\(UInt32.random(in: 0...UInt32.max))"
    try makeDirectories(directory)
    defer { removeTree(directory) }
    let stale = clinux_vhost_unix_listen(directory + "/s", 1)
    _ = clinux_vhost_close(stale)
    #expect(fileKind(directory + "/s") == .socket)
    do {
      let device = try VhostVsockDevice(socketPath: directory + "/s", guestCID: 4, hybridPath: directory + "/h")
      #expect(try directoryEntries(directory) == ["h", "s"])
      removeFile(directory + "/h")
      try writeFile(directory + "/h", "mine")
      _ = device
    }
    #expect(try directoryEntries(directory) == ["h"])
  }
}

extension RunningDevice {
  func connectAndAsk() throws -> HostSocket {
    let client = try connect()
    try client.write(Array("CONNECT 5\n".utf8))
    return client
  }
}

/// The wire format of packets.
@Suite struct PacketTests {
  @Test func goldenBytes() {
    var header = VsockHeader()
    (header.sourceCID, header.destinationCID, header.sourcePort, header.destinationPort) = (4, 3, 0x1234, 9000)
    (header.length, header.operation, header.flags, header.bufferSize, header.forwarded) = (1, 5, 0, 262_144, 7)
    var bytes = [UInt8](repeating: 0xff, count: 44)
    bytes.withUnsafeMutableBytes { header.write(to: $0) }
    let expected: [UInt8] = [
      4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0x34, 0x12, 0, 0, 0x28, 0x23, 0, 0, 1, 0, 0, 0, 1, 0, 5, 0, 0, 0,
      0,
      0, 0, 0, 4, 0, 7, 0, 0, 0,
    ]
    #expect(bytes == expected)
    #expect(bytes.withUnsafeBytes { VsockHeader(reading: $0) } == header)
  }

  @Test func randomBytesRoundTripAndShortOnesDoNotTrap() {
    for length in 0..<44 {
      let bytes = [UInt8](repeating: 7, count: length)
      #expect(bytes.withUnsafeBytes { VsockHeader(reading: $0) } == VsockHeader())
    }
    for _ in 0..<1000 {
      let bytes = (0..<44).map { _ in UInt8.random(in: 0...255) }
      var again = [UInt8](repeating: 0, count: 44)
      let header = bytes.withUnsafeBytes { VsockHeader(reading: $0) }
      again.withUnsafeMutableBytes { header.write(to: $0) }
      #expect(again == bytes)
    }
  }
}
