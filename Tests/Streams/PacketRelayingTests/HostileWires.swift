import CLinux
import Foundation
import LinuxSystem
import Packets

@testable import PacketRelaying

/// One stream to an end, with what the attacker does on it.
protocol Wire: AnyObject {
  var stream: FileReference { get }
  /// Sends from the front of `frames`, each with its length before it.
  /// - Returns: how many bytes of them; 0 where there is no room.
  func send(_ frames: UnsafeRawBufferPointer) throws -> Int
  /// Sends what no honest side sends; whatever follows it is not read.
  /// - Parameter meanwhile: takes what the end sends, so that it can go on; false where it has gone.
  func sendNonsense(_ number: Int, meanwhile: () throws -> Bool) throws
  /// - Parameter waits: at most so many milliseconds.
  func read(_ received: inout FrameReader, waits: Int32, orWritable: Bool) throws -> Sign
}

enum Sign { case something, end, nothing }

extension Wire {
  fileprivate func poll(_ waits: Int32, orWritable: Bool) -> Int32? {
    var poll = pollfd(fd: stream.rawValue, events: Int16(POLLIN) | (orWritable ? Int16(POLLOUT) : 0), revents: 0)
    return Foundation.poll(&poll, 1, waits) > 0 ? Int32(poll.revents) : nil
  }
}

/// Frames on the stream itself.
final class StreamWire: Wire {
  let stream: FileReference
  private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)

  init(_ stream: FileReference) throws {
    self.stream = stream
    try stream.descriptor.setNonblocking()
  }

  deinit { buffer.deallocate() }

  func send(_ frames: UnsafeRawBufferPointer) throws -> Int {
    switch sendBytes(stream.rawValue, frames) {
    case .bytes(let sent): return sent
    case .wouldBlock: return 0
    case .failed(let code): throw SystemError("send", errno: code)
    }
  }

  func sendNonsense(_ number: Int, meanwhile: () throws -> Bool) throws {
    let lengths: [UInt32] = [0, UInt32(PacketGuard.frameLimit + 1), .max, 1000]
    // The last is a frame that never becomes whole.
    let rest = [UInt8](repeating: 0, count: number % 4 == 3 ? 700 : 1000)
    let bytes = withUnsafeBytes(of: lengths[number % 4].bigEndian) { Array($0) } + rest
    var offset = 0
    while offset < bytes.count {
      switch bytes[offset...].withUnsafeBytes({ sendBytes(stream.rawValue, $0) }) {
      case .bytes(let sent): offset += sent
      case .wouldBlock: if try !meanwhile() { return }
      // The end may be gone before it has taken all of it.
      case .failed: return
      }
    }
  }

  func read(_ received: inout FrameReader, waits: Int32, orWritable: Bool) throws -> Sign {
    guard let events = poll(waits, orWritable: orWritable) else { return .nothing }
    guard events & (POLLIN | POLLHUP | POLLERR) != 0 else { return .something }
    switch readBytes(stream.rawValue, buffer) {
    case .bytes(0), .failed: return .end
    case .wouldBlock: return .something
    case .bytes(let count):
      try received.take(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      return .something
    }
  }
}

/// Frames in memory that the end shares.
final class MemoryWire: Wire {
  private static let patience: Int32 = 20_000

  let stream: FileReference
  private let memory: PacketMemory
  private var writer: RingWriter
  private var reader: RingReader
  private var bells = [UInt8](repeating: 0, count: 64)

  /// As the enclave's side makes the memory, and as the host's takes it.
  init(_ stream: FileReference, _ end: HostileEnd) throws {
    self.stream = stream
    try stream.descriptor.setNonblocking()
    memory = try end.isHost ? PacketMemory() : PacketMemory(Self.receive(stream), .host)
    writer = memory.outgoing
    reader = memory.incoming
    let files = end.isHost ? [memory.file?.rawValue ?? -1] : []
    guard pass(files, over: stream.rawValue) == 1 else { throw Failure("the first byte was not taken") }
  }

  private static func receive(_ stream: FileReference) throws -> FileReference {
    var poll = pollfd(fd: stream.rawValue, events: Int16(POLLIN), revents: 0)
    _ = Foundation.poll(&poll, 1, patience)
    var byte: UInt8 = 0
    var descriptor: Int32 = -1
    var count: Int32 = 0
    let result = clinux_receive_with_descriptors(stream.rawValue, &byte, 1, &descriptor, 1, &count)
    guard result == 1, count == 1 else { throw Failure("no memory came: \(result)") }
    return FileReference(OwnedFileDescriptor(descriptor))
  }

  private func ring() { _ = pass([], over: stream.rawValue) }

  func send(_ frames: UnsafeRawBufferPointer) throws -> Int {
    var offset = 0
    while offset < frames.count, let base = frames.baseAddress, let room = try writer.room() {
      let length = Int(UInt32(bigEndian: frames.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
      room.copyMemory(from: base + offset + 4, byteCount: length)
      if writer.publish(length) { ring() }
      offset += 4 + length
    }
    return offset
  }

  func sendNonsense(_ number: Int, meanwhile: () throws -> Bool) throws {
    let control = writer.control
    let head = clinux_load_acquire_u64(control + RingField.head)
    // What was sent before it counts, so the end has to have taken that.
    let deadline = monotonicNanoseconds() + UInt64(Self.patience) * 1_000_000
    while clinux_load_acquire_u64(control + RingField.tail) != head {
      guard try meanwhile(), monotonicNanoseconds() < deadline else {
        throw Failure("the end does not take its frames")
      }
      yieldProcessor()
    }
    guard let room = try writer.room() else { throw Failure("no room in an empty ring") }
    let record = room - 4
    switch number % 5 {
    case 0:
      clinux_store_u32(record, 0)
      clinux_store_release_u64(control + RingField.head, head &+ 64)
    case 1:
      clinux_store_u32(record, UInt32(PacketGuard.frameLimit + 1))
      clinux_store_release_u64(control + RingField.head, head &+ UInt64(PacketMemory.ring))
    case 2: clinux_store_release_u64(control + RingField.head, head &+ UInt64(PacketMemory.ring) &+ UInt64(8 * number))
    case 3:
      // A frame that is longer than what is there of it.
      clinux_store_u32(record, 1000)
      clinux_store_release_u64(control + RingField.head, head &+ 8)
    default: clinux_store_release_u64(reader.control + RingField.tail, .max / 2)
    }
    ring()
  }

  func read(_ received: inout FrameReader, waits: Int32, orWritable: Bool) throws -> Sign {
    if try take(&received) { return .something }
    guard poll(waits, orWritable: false) != nil else { return .nothing }
    switch bells.withUnsafeMutableBytes({ readBytes(stream.rawValue, $0) }) {
    case .bytes(0), .failed: return try take(&received) ? .something : .end
    default:
      _ = try take(&received)
      return .something
    }
  }

  private func take(_ received: inout FrameReader) throws -> Bool {
    guard try reader.look() else { return false }
    while let frame = try reader.next() {
      try received.take(frame: frame)
      if reader.release(frame.count) { ring() }
    }
    return true
  }
}

/// What comes out of an end: whole frames, each with a length that one can have.
struct FrameReader {
  private(set) var packets: UInt64 = 0
  private(set) var hasPong = false
  private let end: HostileEnd
  private var rest: [UInt8] = []

  init(_ end: HostileEnd) { self.end = end }

  /// For a new stream: the numbers go on, half a frame of the old one does not.
  init(counts other: FrameReader) {
    end = other.end
    packets = other.packets
    hasPong = other.hasPong
  }

  mutating func take(_ bytes: UnsafeRawBufferPointer) throws {
    rest += bytes
    var offset = 0
    while rest.count - offset >= 4 {
      let length = rest[offset..<offset + 4].reduce(0) { $0 << 8 | Int($1) }
      try check(length)
      guard rest.count - offset - 4 >= length else { break }
      rest.withUnsafeBytes { count(UnsafeRawBufferPointer(rebasing: $0[(offset + 4)..<(offset + 4 + length)])) }
      offset += 4 + length
    }
    rest.removeFirst(offset)
  }

  mutating func take(frame: UnsafeRawBufferPointer) throws {
    try check(frame.count)
    count(frame)
  }

  private func check(_ length: Int) throws {
    guard (PacketGuard.offloadHeaderLength + 20...PacketGuard.frameLimit).contains(length) else {
      throw Failure("the end sent a frame of \(length) bytes")
    }
  }

  private mutating func count(_ frame: UnsafeRawBufferPointer) {
    packets += 1
    if HostileFrames.isPong(end, frame) { hasPong = true }
  }
}
