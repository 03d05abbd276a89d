import CLinux
import Foundation
import Testing

@testable import VhostVsock

/// Flow control: neither side is sent more than it has room for, and nothing is kept without bound.
@Suite(.serialized) struct CreditTests {
  /// A host program that does not read holds its own stream up, not the device's memory, and loses nothing.
  @Test func slowHostHoldsTheGuestBack() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    // What the socket itself takes is forwarded at once; after that, as much as was promised and no more.
    var sent = 0
    var forwarded: UInt32 = 0
    let bytes = pattern(16384)
    while sent - Int(forwarded) + bytes.count <= 262_144 {
      try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), bytes)
      sent += bytes.count
      while let packet = try guest.receive(within: 0.02) {
        try #require(packet.operation == VsockOperation.creditUpdate)
        forwarded = packet.header.forwarded
      }
      try guest.send(guest.header(VsockOperation.creditRequest, port: 80, from: 1000))
      forwarded = try guest.expect(VsockOperation.creditUpdate).header.forwarded
    }
    #expect(sent > 262_144)
    // Another stream is not held up by it.
    let other = try guest.connect(80, from: 1001, listener)
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 1001), [1])
    #expect(try other.read(1) == [1])
    let expected = (0..<sent / bytes.count).flatMap { _ in bytes }
    #expect(try host.read(sent) == expected)
    var told = forwarded
    while Int(told) < sent - 65536 { told = try guest.expect(VsockOperation.creditUpdate).header.forwarded }
  }

  /// However many streams a guest opens, it can have the device hold so much and no more; every stream has room all the same,
  /// and gets more of it when others have ended. Without this a guest had 16,384 buffers of 256 KiB of the parent's memory.
  @Test func manyStreamsShareOneBound() throws {
    clinux_raise_nofile(0)
    let device = try RunningDevice()
    let listener = try device.listen(80, backlog: 4096)
    let guest = try GuestTwin(device)
    var hosts: [HostSocket] = []
    var windows: [Int] = []
    func open(_ port: UInt32) throws {
      try guest.send(guest.header(VsockOperation.request, port: 80, from: port))
      windows.append(Int(try guest.expect(VsockOperation.response).header.bufferSize))
      hosts.append(try listener.accept())
    }
    for port in 0..<UInt32(2000) { try open(port) }
    #expect(windows.reduce(0, +) <= 128 << 20, "\(windows.reduce(0, +)) bytes promised")
    #expect(windows.first == 262_144)
    #expect(windows.allSatisfy { $0 >= 4096 }, "\(windows.min() ?? 0)")
    // A connection that ends gives back what it had, and the next one has it.
    for host in hosts { host.close() }
    var resets = 0
    while resets < 2000 {
      let packet = try guest.expect(VsockOperation.shutdown)
      try guest.send(
        guest.header(VsockOperation.reset, port: 80, from: packet.header.destinationPort))
      resets += 1
    }
    try open(5000)
    #expect(windows.last == 262_144)
  }

  /// The bound holds for what is really kept, where no program on the host reads; nothing of it is lost, and a stream that goes
  /// beyond its share is the only one that is reset.
  @Test func whatManyStreamsSendIsHeldAndDelivered() throws {
    var options = VhostVsockDevice.Options()
    (options.mostStreams, options.heldSize) = (64, 2 << 20)
    let device = try RunningDevice(options: options)
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let bytes = pattern(16384)
    var hosts: [HostSocket] = []
    var sent: [Int] = []
    var held = 0
    for port in 0..<UInt32(64) {
      try guest.send(guest.header(VsockOperation.request, port: 80, from: port))
      // Room for earlier streams may be told of at any time.
      var told: VsockHeader
      repeat { told = try #require(try guest.receive()).header } while told.operation != VsockOperation.response
      hosts.append(try listener.accept())
      var count = 0
      /// The answer may stand behind updates from before the question.
      func ask() throws {
        try guest.send(guest.header(VsockOperation.creditRequest, port: 80, from: port))
        repeat { told = try guest.expect(VsockOperation.creditUpdate).header } while told.destinationPort != port
      }
      var questions = 0
      while questions < 5 {
        let room = Int(told.bufferSize) - (count - Int(told.forwarded))
        guard room > 0 else {
          try ask()
          questions += 1
          continue
        }
        questions = 0
        let part = min(room, bytes.count - count % bytes.count)
        try guest.send(
          guest.header(VsockOperation.data, port: 80, from: port), Array(bytes[(count % bytes.count)...].prefix(part)))
        count += part
      }
      sent.append(count)
      held += count - Int(told.forwarded)
    }
    #expect(held <= 2 << 20 && held > 1 << 20, "\(held) bytes held")
    try guest.send(guest.header(VsockOperation.data, port: 80, from: 63), [1])
    var last: VsockHeader
    repeat { last = try #require(try guest.receive()).header } while last.operation != VsockOperation.reset
    #expect(last.destinationPort == 63)
    for (index, host) in hosts.enumerated().dropLast() {
      let expected = (0...sent[index] / bytes.count).flatMap { _ in bytes }.prefix(sent[index])
      #expect(try host.read(sent[index]) == Array(expected), "stream \(index)")
    }
    // Every stream may send again.
    for port in 0..<UInt32(63) {
      try guest.send(guest.header(VsockOperation.creditRequest, port: 80, from: port))
      var told: VsockHeader
      repeat {
        told = try guest.expect(VsockOperation.creditUpdate).header
      } while told.destinationPort != port
        || Int(told.forwarded) < sent[Int(port)]
      #expect(told.bufferSize >= 16384)
    }
  }

  /// A guest that ignores the credit it was given loses that stream and nothing else.
  @Test func overrunIsReset() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    let host = try guest.connect(80, listener)
    var sent = 0
    var ended = false
    while sent < 8 << 20, !ended {
      try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), pattern(65536))
      sent += 65536
      while let packet = try guest.receive(within: 0.005) { ended = ended || packet.operation == VsockOperation.reset }
    }
    #expect(ended)
    host.close()
    _ = try guest.connect(80, from: 1001, listener)
  }

  /// A guest with little room gets no more than that, and all of it in the end.
  @Test func slowGuestHoldsTheHostBack() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device)
    var request = guest.header(VsockOperation.request, port: 80, from: 1000)
    request.bufferSize = 1000
    try guest.send(request)
    _ = try guest.expect(VsockOperation.response)
    let host = try listener.accept()
    let bytes = pattern(5000)
    try host.write(bytes)
    var got: [UInt8] = []
    while got.count < 5000 {
      let before = got.count
      while got.count - before < 1000 { got += try guest.expect(VsockOperation.data).payload }
      #expect(got.count - before == 1000)
      if got.count == 5000 { break }
      // It asks once, and sends nothing until it is told.
      _ = try guest.expect(VsockOperation.creditRequest)
      #expect(try guest.receive(within: 0.05) == nil)
      var update = guest.header(VsockOperation.creditUpdate, port: 80, from: 1000)
      update.bufferSize = 1000
      update.forwarded = UInt32(got.count)
      try guest.send(update)
    }
    #expect(got == bytes)
  }

  /// A guest without receive buffers: refusals wait, the transmit queue is not read for ever, nothing is lost.
  @Test func noReceiveBuffers() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, buffers: 0)
    for port in 0..<200 { try guest.send(guest.header(VsockOperation.request, port: 81, from: UInt32(port))) }
    for index in 0..<128 { guest.addBuffer(UInt16(index)) }
    for port in 0..<200 {
      #expect(try guest.expect(VsockOperation.reset).header.destinationPort == UInt32(port))
    }
  }

  @Test func refusalsAreBounded() throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, buffers: 0)
    var taken = 0
    while taken < 1000 {
      do { try guest.sendQuickly(guest.header(VsockOperation.request, port: 81, from: UInt32(taken))) } catch { break }
      taken += 1
    }
    #expect(taken == 256)
    for index in 0..<128 { guest.addBuffer(UInt16(index)) }
    for port in 0...taken { #expect(try guest.expect(VsockOperation.reset).header.destinationPort == UInt32(port)) }
  }

  /// The program's last output before the enclave goes off arrives even where its reader is slow.
  @Test func whatASwitchedOffGuestHadSentIsDelivered() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let bytes = pattern(262_144)
    let host: HostSocket
    do {
      let guest = try GuestTwin(device)
      host = try guest.connect(80, listener)
      for _ in 0..<2 {
        try guest.send(guest.header(VsockOperation.data, port: 80, from: 1000), Array(bytes.prefix(131_072)))
      }
    }
    // A new guest can come meanwhile.
    let guest = try GuestTwin(device)
    let other = try guest.connect(80, listener)
    #expect(try host.read(262_144) == Array(bytes.prefix(131_072)) + Array(bytes.prefix(131_072)))
    #expect(try host.isAtEnd())
    other.close()
  }
}

extension GuestTwin {
  /// Like `send` for a packet without payload, but soon tired of waiting.
  func sendQuickly(_ header: VsockHeader) throws {
    header.write(to: UnsafeMutableRawBufferPointer(start: memory + Self.packetArea, count: VsockHeader.size))
    describe(1, 0, UInt64(Self.packetArea), UInt32(VsockHeader.size), 0)
    offer(1, head: 0)
    guard try used(1, within: 0.2) != nil else { throw TwinFailure("not taken") }
  }
}
