import CLinux
import Foundation
import Testing

@testable import VhostVsock

/// Streams between a guest and programs on the host, as a guest's driver and the programs see them.
@Suite(.serialized) struct StreamTests {
  /// Without it no program in the enclave reaches the host; CID 3 (Nitro) and 2 (others) are both the parent.
  @Test(arguments: [(2, true), (3, true), (3, false)] as [(UInt64, Bool)])
  func guestConnectsAndDataMovesBothWays(_ cid: UInt64, _ eventIndex: Bool) throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device, eventIndex: eventIndex)
    let host = try guest.connect(80, to: cid, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000, to: cid), Array("from the guest".utf8))
    #expect(try host.read(14) == Array("from the guest".utf8))
    try host.write(Array("from the host".utf8))
    #expect(try guest.expect(VsockOperation.data).payload == Array("from the host".utf8))
  }

  /// The joined side learns who connected to which CID: the hybrid convention alone has only the port.
  @Test func peerNameTellsGuestAndDestination() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, from: 77, to: 2, listener)
    var bytes = [CChar](repeating: 0, count: 128)
    let length = clinux_vhost_peer_name(host.fd, &bytes, bytes.count)
    try #require(length > 0)
    let name = String(decoding: bytes.prefix(Int(length)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    #expect(HybridPeerName(abstractName: name) == HybridPeerName(guestCID: 4, guestPort: 77, hostCID: 2, hostPort: 80))
    #expect(HybridPeerName(abstractName: "tombolo-vsock 4 x 2 80 1") == nil)
    #expect(HybridPeerName(abstractName: "") == nil)
  }

  /// A refused port must be refused at once: a program that gets silence waits for its time-out.
  @Test func refusedPortIsReset() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device)
    let start = Date()
    try guest.send(guest.header(VsockOperation.request, port: 81, from: 5))
    let answer = try guest.expect(VsockOperation.reset)
    #expect(answer.header.sourcePort == 81 && answer.header.destinationPort == 5 && answer.header.sourceCID == 3)
    #expect(Date().timeIntervalSince(start) < 1)
  }

  /// Packets to nobody, of another type or in another's name end nothing else.
  @Test func strayPacketsAreAnsweredWithResets() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 9), [1])
    #expect(try guest.expect(VsockOperation.reset).header.destinationPort == 9)
    try guest.send(guest.header(VsockOperation.request, port: 80, from: 10, to: 7))
    #expect(try guest.expect(VsockOperation.reset).header.sourceCID == 7)
    var packet = guest.header(VsockOperation.request, port: 80, from: 11)
    packet.type = 2
    try guest.send(packet)
    #expect(try guest.expect(VsockOperation.reset).header.type == 2)
    packet = guest.header(VsockOperation.request, port: 80, from: 12)
    packet.sourceCID = 99
    try guest.send(packet)
    // A reset is never answered with a reset.
    try guest.send(guest.header(VsockOperation.reset, port: 80, from: 13))
    try host.write([42])
    #expect(try guest.expect(VsockOperation.data).payload == [42])
  }

  /// `tombolo run -p` and its like: a client on the host reaches a server in the guest, early bytes included.
  @Test func hostConnectsWithEarlyBytes() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device)
    let client = try device.connect()
    try client.write(Array("CONNE".utf8))
    try client.write(Array("CT 8080\nearly".utf8))
    let request = try guest.expect(VsockOperation.request)
    #expect(request.header.sourceCID == 3 && request.header.destinationPort == 8080)
    try guest.send(guest.header(VsockOperation.response, port: request.header.sourcePort, from: 8080))
    let answer = Array("OK \(request.header.sourcePort)\n".utf8)
    #expect(try client.read(answer.count) == answer)
    #expect(try guest.expect(VsockOperation.data).payload == Array("early".utf8))
    try guest.send(guest.header(VsockOperation.data, port: request.header.sourcePort, from: 8080), Array("late".utf8))
    #expect(try client.read(4) == Array("late".utf8))
  }

  @Test func hostSeesRefusalAsClose() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device)
    let client = try device.connect()
    try client.write(Array("CONNECT 8080\n".utf8))
    let request = try guest.expect(VsockOperation.request)
    try guest.send(guest.header(VsockOperation.reset, port: request.header.sourcePort, from: 8080))
    #expect(try client.isAtEnd())
  }

  @Test(arguments: [
    "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "CONNECT 4294967295\n", "GET / HTTP/1.1\n", "CONNECT +5\n",
    "\n",
    String(repeating: "a", count: 100),
  ])
  func otherLinesAreClosed(_ line: String) throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device)
    let client = try device.connect()
    try client.write(Array(line.utf8))
    var one: UInt8 = 0
    var entry = pollfd(fd: client.fd, events: Int16(POLLIN), revents: 0)
    #expect(poll(&entry, 1, 5000) == 1)
    #expect(clinux_read(client.fd, &one, 1) <= 0)
    #expect(try guest.receive(within: 0.05) == nil)
  }

  /// `curl` and `ssh` depend on it: one half ends and the other goes on.
  @Test func guestEndsItsHalf() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), [1, 2, 3])
    var packet = guest.header(VsockOperation.shutdown, port: 80, from: 1000)
    packet.flags = ShutdownFlags.send.rawValue
    try guest.send(packet)
    #expect(try host.read(10) == [1, 2, 3])
    try host.write([4, 5])
    #expect(try guest.expect(VsockOperation.data).payload == [4, 5])
    host.close()
    // Both halves have ended, whether that is told in one packet or two.
    #expect(try guest.expect(VsockOperation.shutdown).header.flags & 2 == 2)
  }

  @Test func hostEndsItsHalf() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try host.write([9])
    host.shutdownWriting()
    #expect(try guest.expect(VsockOperation.data).payload == [9])
    #expect(try guest.expect(VsockOperation.shutdown).header.flags == ShutdownFlags.send.rawValue)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), [8])
    #expect(try host.read(1) == [8])
    host.close()
    #expect(try guest.expect(VsockOperation.shutdown).header.flags == ShutdownFlags.both.rawValue)
    // The guest's driver answers with a reset; the port is free again.
    try guest.send(guest.header(VsockOperation.reset, port: 80, from: 1000))
    _ = try guest.connect(80, listener)
  }

  /// A guest's close() waits for this reset; without it each close takes 8 s.
  @Test func guestClosesAndIsAnswered() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), [1])
    var packet = guest.header(VsockOperation.shutdown, port: 80, from: 1000)
    packet.flags = ShutdownFlags.both.rawValue
    try guest.send(packet)
    _ = try guest.expect(VsockOperation.reset)
    #expect(try host.read(10) == [1])
  }

  @Test func guestResetsAndHostIsClosed() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try guest.send(guest.header(VsockOperation.reset, port: 80, from: 1000))
    #expect(try host.isAtEnd())
    #expect(try guest.receive(within: 0.05) == nil)
  }

  /// A server that dies with unread requests: the guest must see a reset, not an orderly end.
  @Test func hostClosesWithUnreadDataAndGuestIsReset() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), [1])
    var entry = pollfd(fd: host.fd, events: Int16(POLLIN), revents: 0)
    try #require(poll(&entry, 1, 5000) == 1)
    host.close()
    _ = try guest.expect(VsockOperation.reset)
  }

  /// A listener that is slow to accept is waited for, not refused.
  @Test func fullBacklogIsRetried() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80, backlog: 0)
    let guest = try GuestTwin(device)
    try guest.send(guest.header(VsockOperation.request, port: 80, from: 1))
    _ = try guest.expect(VsockOperation.response)
    try guest.send(guest.header(VsockOperation.request, port: 80, from: 2))
    #expect(try guest.receive(within: 0.1) == nil)
    let first = try listener.accept()
    #expect(try guest.expect(VsockOperation.response).header.destinationPort == 2)
    first.close()
  }

  /// Guests of Linux 6.12 send large writes in one packet of many pieces; vhost-device-vsock threw those away.
  @Test(arguments: [(200_000, 4096, false), (200_000, 65536, false), (65536, 1024, true), (262_144, 65536, true)])
  func largePackets(_ size: Int, _ piece: Int, _ indirect: Bool) throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    let bytes = pattern(size)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), bytes, piece: piece, indirect: indirect)
    #expect(try host.read(size) == bytes)
    try host.write(Array(bytes.prefix(65536)))
    #expect(try guest.receiveData(65536) == Array(bytes.prefix(65536)))
  }

  /// 1000 streams at once, none mixed with another.
  @Test func manyStreams() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80, backlog: 2000)
    let guest = try GuestTwin(device)
    var hosts: [HostSocket] = []
    for port in 0..<1000 {
      // So many share what the device holds for a guest: CreditTests has the bound.
      hosts.append(
        try guest.connect(80, from: UInt32(port), to: port % 2 == 0 ? 2 : 3, listener, window: 4096...262_144))
    }
    for (port, host) in hosts.enumerated() {
      try guest.send(
        guest.header(VsockOperation.data, port: 80, from: UInt32(port), to: port % 2 == 0 ? 2 : 3), little(port))
      #expect(try host.read(8) == little(port))
    }
    for (port, host) in hosts.enumerated() { try host.write(little(port &* 3)) }
    var found: Set<UInt32> = []
    while found.count < 1000 {
      let packet = try guest.expect(VsockOperation.data)
      #expect(packet.payload == little(Int(packet.header.destinationPort) &* 3))
      found.insert(packet.header.destinationPort)
    }
  }

  @Test func moreStreamsThanAllowedAreRefused() throws {
    var options = VhostVsockDevice.Options()
    options.mostStreams = 2
    let device = try RunningDevice(options: options)
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let first = try guest.connect(80, from: 1, listener)
    let second = try guest.connect(80, from: 2, listener)
    try guest.send(guest.header(VsockOperation.request, port: 80, from: 3))
    #expect(try guest.expect(VsockOperation.reset).header.destinationPort == 3)
    #expect(try device.connect().isAtEnd())
    try guest.send(guest.header(VsockOperation.reset, port: 80, from: 1))
    #expect(try first.isAtEnd())
    _ = try listener.accept()  // the refused one's socket, closed again
    let third = try guest.connect(80, from: 3, listener)
    for host in [second, third] { host.close() }
  }

  /// Two guests are two devices and know nothing of each other.
  @Test func severalGuests() throws {
    let devices = [try RunningDevice(cid: 4), try RunningDevice(cid: 5)]
    let guests = [try GuestTwin(devices[0], cid: 4), try GuestTwin(devices[1], cid: 5)]
    for (device, guest) in zip(devices, guests) {
      let listener = try device.listen(80)
      let host = try guest.connect(80, listener)
      try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), little(guest.cid))
      #expect(try host.read(4) == little(guest.cid))
    }
  }
}
