import CLinux
import Foundation
import LinuxSystem
import Testing

@testable import VhostVsock

/// A guest whose kernel is the enemy must not read or write one byte of the host's, nor end more than its own device.
@Suite(.serialized) struct HostileGuestTests {
  struct Attack: CustomTestStringConvertible, Sendable {
    var testDescription: String
    var sentence: String
    var run: @Sendable (GuestTwin) -> Void
    init(_ name: String, _ sentence: String, _ run: @escaping @Sendable (GuestTwin) -> Void) {
      (testDescription, self.sentence, self.run) = (name, sentence, run)
    }
  }

  private static func transmit(
    _ address: UInt64, _ length: UInt32, _ flags: UInt16 = 0, _ following: UInt16 = 0
  ) -> @Sendable (GuestTwin) -> Void {
    { guest in
      guest.describe(1, 0, address, length, flags, following)
      guest.offer(1, head: 0)
    }
  }

  static let attacks: [Attack] = [
    Attack("a buffer outside memory", "which is not in its memory", transmit(0x9000_0000, 64)),
    Attack(
      "a buffer that ends outside memory", "which is not in its memory", transmit(UInt64(GuestTwin.half) - 16, 64)),
    Attack("a buffer that wraps around", "which is not in its memory", transmit(UInt64.max - 8, 64)),
    Attack("a buffer of 4 GiB", "which is not in its memory", transmit(0, UInt32.max)),
    Attack("a packet without a header", "less than its header", transmit(0x10000, 43)),
    Attack("an empty packet", "less than its header", transmit(0x10000, 0)),
    Attack("a chain that is a loop", "longer than its ring", transmit(0x10000, 64, 1, 0)),
    Attack("a chain that leaves the table", "descriptor 4096 in a table", transmit(0x10000, 64, 1, 4096)),
    Attack("a packet to be written to", "in a buffer to be written", transmit(0x10000, 64, 2)),
    Attack("an indirect table outside memory", "an indirect table at", transmit(0x9000_0000, 64, 4)),
    Attack("an indirect table of half a descriptor", "an indirect table of 24 bytes", transmit(0x10000, 24, 4)),
    Attack("an empty indirect table", "an indirect table of 0 bytes", transmit(0x10000, 0, 4)),
    Attack("an indirect table larger than the ring", "an indirect table of", transmit(0x10000, 16 * 129, 4)),
    Attack("an indirect descriptor with a next one", "with another after it", transmit(0x10000, 16, 5)),
    Attack("an indirect table in an indirect table", "inside an indirect table") { guest in
      guest.describe(at: 0x8000, 0, 0x8000, 16, 4, 0)
      transmit(0x8000, 16, 4)(guest)
    },
    Attack("an indirect chain that leaves its table", "descriptor 7 in a table of 1") { guest in
      guest.describe(at: 0x8000, 0, 0x10000, 64, 1, 7)
      transmit(0x8000, 16, 4)(guest)
    },
    Attack("a head outside the ring", "descriptor 128 in a ring") { $0.offer(1, head: 128) },
    Attack("an available index far ahead", "ahead in a ring of 128") { guest in
      guest.next[1] = 500
      guest.offer(1, head: 0)
    },
    Attack("a length beyond the packet", "says 1000 bytes and has 20") { guest in
      var header = guest.header(VsockOperation.data, port: 80, from: 1)
      header.length = 1000
      header.write(to: UnsafeMutableRawBufferPointer(start: guest.memory + 0x10000, count: 64))
      transmit(0x10000, 64)(guest)
    },
    Attack("a receive buffer that is read-only", "must not be written") { guest in
      guest.describe(0, 0, 0x10000, 4096, 0)
      guest.offer(0, head: 0)
      refuseMe(guest)
    },
    Attack("a receive buffer smaller than a header", "a receive buffer of 43 bytes") { guest in
      guest.describe(0, 0, 0x10000, 43, 2)
      guest.offer(0, head: 0)
      refuseMe(guest)
    },
    Attack("a receive buffer outside memory", "which is not in its memory") { guest in
      guest.describe(0, 0, 0xdead_0000_0000, 4096, 2)
      guest.offer(0, head: 0)
      refuseMe(guest)
    },
  ]

  /// Makes the device want a receive buffer.
  @Sendable private static func refuseMe(_ guest: GuestTwin) {
    let header = guest.header(VsockOperation.request, port: 81, from: 1)
    header.write(to: UnsafeMutableRawBufferPointer(start: guest.memory + 0x20000, count: 64))
    guest.describe(1, 1, 0x20000, 44, 0)
    guest.offer(1, head: 1)
  }

  @Test(arguments: attacks) func endsTheDeviceWithASentence(_ attack: Attack) throws {
    let device = try RunningDevice()
    let guest = try GuestTwin(device, buffers: 0)
    attack.run(guest)
    let error = try device.waitForEnd()
    guard case .guest(let sentence) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
    #expect(sentence.contains(attack.sentence), "\(sentence)")
  }

  /// What may look odd and is allowed: empty pieces, a header in pieces, a buffer across two regions' border.
  @Test func unusualButLegalChains() throws {
    let device = try RunningDevice()
    let listener = try device.listen(80)
    let guest = try GuestTwin(device, buffers: 0)
    var header = guest.header(VsockOperation.request, port: 80, from: 1)
    header.write(to: UnsafeMutableRawBufferPointer(start: guest.memory + 0x20000, count: 64))
    guest.describe(1, 1, 0x20000, 10, 1, 5)
    guest.describe(1, 5, 0, 0, 1, 6)
    guest.describe(1, 6, 0x2000a, 34, 0)
    guest.offer(1, head: 1)
    #expect(try guest.used(1)?.head == 1)
    // The receive buffer's header lies in three pieces.
    for (index, piece) in [(0, 20), (20, 1), (21, 100)].enumerated() {
      guest.describe(0, index, 0x30000 + UInt64(piece.0), UInt32(piece.1), index < 2 ? 3 : 2, UInt16(index + 1))
    }
    guest.offer(0, head: 0)
    let host = try listener.accept()
    #expect(try guest.used(0)?.length == 44)
    header = VsockHeader(reading: UnsafeRawBufferPointer(start: guest.memory + 0x30000, count: 64))
    #expect(header.operation == VsockOperation.response && header.destinationPort == 1)
    guest.offer(0, head: 0)
    try host.write(Array("hello".utf8))
    #expect(try guest.used(0)?.length == 49)
    #expect(Array(UnsafeRawBufferPointer(start: guest.memory + 0x3002c, count: 5)) == Array("hello".utf8))
  }

  /// Random rings, some of them nearly right, and random headers.
  @Test func randomRingsEndNothingButTheDevice() throws {
    var random = SystemRandomNumberGenerator()
    var ended = 0
    for round in 0..<150 {
      let device = try RunningDevice()
      let listener = try device.listen(80)
      let guest = try GuestTwin(device, eventIndex: round % 2 == 0, buffers: round % 3 == 0 ? 0 : 64)
      for _ in 0..<20 {
        for queue in 0..<2 {
          for index in 0..<16 {
            let address: UInt64 =
              switch Int.random(in: 0..<8, using: &random) {
              case 0: UInt64.random(in: 0...UInt64.max, using: &random)
              case 1: UInt64(GuestTwin.half) - UInt64.random(in: 0..<100, using: &random)
              case 2: GuestTwin.highBase + UInt64.random(in: 0..<4096, using: &random)
              default: 0x10000 + UInt64.random(in: 0..<0x10000, using: &random)
              }
            let length: UInt32 = Bool.random() ? UInt32.random(in: 0..<5000) : 44 + UInt32.random(in: 0..<100)
            let flags: UInt16 =
              Int.random(in: 0..<10) == 0 ? UInt16.random(in: 0..<8) : (queue == 0 ? 2 : 0) | (Bool.random() ? 1 : 0)
            guest.describe(
              queue, index, address, length, flags, UInt16.random(in: 0..<(Int.random(in: 0..<20) == 0 ? 200 : 32)))
          }
        }
        for offset in stride(from: 0x10000, to: 0x20000, by: 64) {
          var header = guest.header(
            UInt16.random(in: 0..<9), port: Bool.random() ? 80 : 81, from: UInt32.random(in: 0..<4))
          header.length = Bool.random() ? 0 : UInt32.random(in: 0..<200)
          header.flags = UInt32.random(in: 0..<8)
          header.bufferSize = UInt32.random(in: 0...UInt32.max)
          header.forwarded = UInt32.random(in: 0...UInt32.max)
          header.write(to: UnsafeMutableRawBufferPointer(start: guest.memory + offset, count: 64))
        }
        for queue in 0..<2 { guest.offer(queue, head: UInt16.random(in: 0..<(Int.random(in: 0..<50) == 0 ? 300 : 16))) }
        if Int.random(in: 0..<4) == 0, let host = try? listener.accept(within: 0) { try? host.write([1, 2, 3]) }
        if device.hasEnded(within: 0.0005) { break }
      }
      if device.hasEnded(within: 0.01) {
        ended += 1
        guard case .guest = device.error else {
          Issue.record("\(String(describing: device.error))")
          return
        }
      }
    }
    #expect(ended > 20)
  }

  /// The same at the ring itself, many more times.
  @Test func randomChainsNeverLeaveMemory() throws {
    let file = clinux_vhost_memfd("guest", 65536)
    defer { _ = clinux_vhost_close(file) }
    let memory = try GuestMemory([
      (.init(guestAddress: 0x1000, size: 0x7000, userAddress: 0x10000, fileOffset: 0x1000), file),
      (.init(guestAddress: 0x8000, size: 0x8000, userAddress: 0x20000, fileOffset: 0x8000), file),
    ])
    let base = try #require(memory.pointer(userAddress: 0x10000, length: 0x7000))
    let other = try #require(memory.pointer(userAddress: 0x20000, length: 0x8000))
    var queue = Virtqueue()
    try queue.setSize(16)
    try queue.setAddresses(descriptors: 0x10000, available: 0x11000, used: 0x12000, in: memory)
    let storage = VectorList.allocate()
    defer { storage.deallocate() }
    var good = 0
    for _ in 0..<30000 {
      for offset in stride(from: 0, to: 256, by: 16) {
        let address = Bool.random() ? UInt64.random(in: 0..<0x11000) : UInt64.random(in: 0...UInt64.max)
        base.storeBytes(of: address, toByteOffset: offset, as: UInt64.self)
        base.storeBytes(of: UInt32.random(in: 0..<0x3000), toByteOffset: offset + 8, as: UInt32.self)
        base.storeBytes(of: UInt16.random(in: 0..<6), toByteOffset: offset + 12, as: UInt16.self)
        base.storeBytes(of: UInt16.random(in: 0..<18), toByteOffset: offset + 14, as: UInt16.self)
      }
      var vectors = VectorList(storage: storage)
      guard let bytes = try? queue.readChain(.random(in: 0..<16), .readable, in: memory, to: &vectors) else { continue }
      good += 1
      #expect(bytes == vectors.bytes)
      for index in 0..<vectors.count {
        let start = UInt(bitPattern: vectors.base[index].iov_base)
        let end = start + UInt(vectors.base[index].iov_len)
        let inside = [(base, 0x7000), (other, 0x8000)].contains {
          start >= UInt(bitPattern: $0.0) && end <= UInt(bitPattern: $0.0) + UInt($0.1)
        }
        #expect(inside)
      }
    }
    #expect(good > 100)
  }
}
