import CLinux
import LinuxSystem
import Packets
import Synchronization
import Testing

@testable import PacketRelaying

/// One byte, and descriptors with it.
/// - Returns: 1, or a negative errno.
func pass(_ files: [Int32], over socket: Int32) -> Int {
  withUnsafePointer(to: 1 as UInt8) { clinux_send_with_descriptors(socket, $0, 1, files, Int32(files.count)) }
}

/// The product's enclave side and its host's, with memory between them.
struct Pair {
  let host: TestQueue
  let enclave: TestQueue

  init() throws {
    let (near, far) = try makeSocketPair()
    host = try TestQueue(.host, .awaitingMemory, near)
    enclave = try TestQueue(.enclave, .passing(PacketMemory()), far)
    try turn()
  }

  func turn() throws {
    for _ in 0..<3 {
      try enclave.turn()
      try host.turn()
    }
  }
}

/// The test itself as the enclave's side: it may write what it likes.
final class FarSide {
  let test: TestQueue
  let memory: PacketMemory
  var writer: RingWriter
  var reader: RingReader

  init() throws {
    test = try TestQueue(.host, .awaitingMemory)
    memory = try PacketMemory()
    writer = memory.outgoing
    reader = memory.incoming
    try #require(pass([try #require(memory.file).rawValue], over: test.farRaw) == 1)
    try test.turn()
  }

  func ring() { _ = pass([], over: test.farRaw) }

  /// - Returns: whether there was room.
  func put(_ frame: [UInt8]) throws -> Bool {
    guard let room = try writer.room() else { return false }
    room.copyMemory(from: frame, byteCount: frame.count)
    if writer.publish(frame.count) { ring() }
    return true
  }
}

func numbered(_ side: PacketGuard.Side, _ number: Int, _ count: Int) -> [UInt8] {
  var one = packet(count)
  // The enclave's side gets what the host's sends.
  if side == .host {
    one.replaceSubrange(22..<26, with: [192, 0, 2, 1])
    one.replaceSubrange(26..<30, with: [10, 118, 0, 2])
  }
  for (place, shift) in [(one.count - 4, 24), (one.count - 3, 16), (one.count - 2, 8), (one.count - 1, 0)] {
    one[place] = UInt8(truncatingIfNeeded: number >> shift)
  }
  return one
}

/// A device that looks at packets, and at where they are.
final class LookingDevice: PacketDevice {
  let file: FileReference
  var defect: PacketDefect?
  var looksInside: Bool { true }
  var shared: [Range<UnsafeMutableRawPointer>] = []
  var next: [UInt8] = []
  var written: [UInt8] = []
  var hasSeenSharedMemory = false

  init(_ file: FileReference) { self.file = file }

  func read(_ frame: UnsafeMutableRawPointer) -> Int {
    look(frame)
    guard !next.isEmpty else { return -Int(EAGAIN) }
    frame.copyMemory(from: next, byteCount: next.count)
    defer { next = [] }
    return next.count
  }

  func write(_ frame: DeviceFrame) -> PacketDefect? {
    look(UnsafeMutableRawPointer(mutating: frame.start))
    #expect(frame.rest == nil)
    written = Array(frame.bytes)
    return nil
  }

  private func look(_ place: UnsafeMutableRawPointer) {
    if shared.contains(where: { $0.contains(place) }) { hasSeenSharedMemory = true }
  }
}

/// A thread that sends as many bytes as the socket takes.
final class Flood: Sendable {
  private let ends = Atomic(false)
  private let hasEnded = Atomic(false)
  private let sent = Atomic(0)
  var count: Int { sent.load(ordering: .relaxed) }

  func start(_ socket: Int32) throws {
    try startThread { [self] in
      let bells = [UInt8](repeating: 1, count: 65536)
      while !ends.load(ordering: .relaxed) {
        sent.add(max(0, clinux_send(socket, bells, bells.count, 0)), ordering: .relaxed)
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func stop() {
    ends.store(true, ordering: .relaxed)
    while !hasEnded.load(ordering: .acquiring) { yieldProcessor() }
  }
}

/// A thread that changes the source address of every record of 1024 bytes to and fro.
final class Scribbler: Sendable {
  private let ends = Atomic(false)
  private let hasEnded = Atomic(false)

  func start(_ ring: UnsafeMutableRawPointer) throws {
    nonisolated(unsafe) let ring = ring
    try startThread { [self] in
      while !ends.load(ordering: .relaxed) {
        for record in stride(from: 0, to: PacketMemory.ring, by: 1024) {
          // Length, virtio-net header, and 12 bytes of the packet are before it.
          let address = ring + record + 4 + 10 + 12
          address.storeBytes(of: address.load(as: UInt8.self) ^ 1, as: UInt8.self)
        }
      }
      hasEnded.store(true, ordering: .releasing)
    }
  }

  func stop() {
    ends.store(true, ordering: .relaxed)
    while !hasEnded.load(ordering: .acquiring) { yieldProcessor() }
  }
}
