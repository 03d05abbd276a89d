import CLinux
import Capabilities
import LinuxSystem
import Seccomp

// Theory of operation.
//
//   host side, no rights ──request, 5 bytes and what it carries──▶ caretaker, the rights it was started with
//                        ◀─errno or 0, what it carries, descriptors─
//
// A host side that root has started gives up root's rights before it reads anything of its enclave's. What still needs them
// later is little and known from the start: the names of sockets and directories are taken away at the end, a file of boots
// is written, the enclave's Unix socket is connected to. A child does that, made by fork(2) when all of it is known: no path
// and no address ever comes from the host side, only which of these things is to be done. It parses nothing else, and reads
// nothing of the enclave's.
//
// When the host side is killed, the caretaker ends and leaves everything as it is: the next start takes it over or away.

/// Does for a host side without rights what needs them.
public final class Caretaker {
  public enum Request: UInt8, Sendable { case end, connect, save, gateway }

  /// What a caretaker does, with what a request carries.
  public typealias Work = (Request, [UInt8]) throws(SystemError) -> (bytes: [UInt8], files: [FileReference])

  static let limit = 8 << 20

  /// Has a hang-up when the caretaker has ended.
  public let socket: FileReference
  private let process: Int32

  /// - Parameters:
  ///   - kept: descriptors that its work needs.
  ///   - capabilities: those that its work needs.
  public init(
    kept: [FileReference] = [], capabilities: CapabilitySet, filter: RoleFilter = .caretaker, work: @escaping Work
  ) throws(SystemError) {
    let (own, others) = try makeSocketPair()
    process = try HelperProcess.start("tombolo-care", kept: [others] + kept) { () throws(SystemError) in
      try Capabilities.keepOnly(capabilities)
      try forbidInspection()
      if hasSystemCallFilters() { try HostRights.confine(filter) }
    } work: {
      while Self.serve(others.rawValue, work) {}
    }
    socket = own
  }

  /// - Returns: what the caretaker answers.
  public func ask(
    _ request: Request, _ bytes: [UInt8] = []
  ) throws(SystemError) -> (bytes: [UInt8], files: [FileReference]) {
    try writeAll(socket.rawValue, Frame.encode(UInt32(request.rawValue), bytes), "the caretaker")
    let (head, files) = try Frame.receiveHead(socket.rawValue)
    let answer = try Frame.read(socket.rawValue, head.length)
    if head.word != 0 { throw SystemError("caretaker", "\(request)", errno: Int32(bitPattern: head.word)) }
    return (answer, files)
  }

  /// Has it do what is left to do, and waits for that.
  public func finish() {
    _ = try? ask(.end)
    clinux_wait(process)
  }

  private static func serve(_ socket: Int32, _ work: Work) -> Bool {
    guard let (head, _) = try? Frame.receiveHead(socket), let request = Request(rawValue: UInt8(clamping: head.word)),
      let bytes = try? Frame.read(socket, head.length)
    else { return false }
    do throws(SystemError) {
      let (answer, files) = try work(request, bytes)
      try Frame.send(socket, 0, answer, files)
    } catch {
      try? Frame.send(socket, UInt32(bitPattern: error.errno), [], [])
    }
    return request != .end
  }
}

/// A word, a length, and that many bytes; descriptors come with the first of them.
private enum Frame {
  static let headLength = 8

  static func encode(_ word: UInt32, _ bytes: [UInt8]) -> [UInt8] {
    [word, UInt32(clamping: bytes.count)].flatMap { word in withUnsafeBytes(of: word.bigEndian) { Array($0) } } + bytes
  }

  static func send(_ socket: Int32, _ word: UInt32, _ bytes: [UInt8], _ files: [FileReference]) throws(SystemError) {
    let whole = encode(word, bytes)
    let descriptors = files.map(\.rawValue)
    let sent = clinux_send_with_descriptors(
      socket, whole, headLength, descriptors, Int32(truncatingIfNeeded: descriptors.count))
    try check("sendmsg", "", sent)
    guard sent == headLength else { throw SystemError("sendmsg", errno: EPIPE) }
    try writeAll(socket, whole.dropFirst(headLength), "")
  }

  static func receiveHead(
    _ socket: Int32
  ) throws(SystemError) -> (head: (word: UInt32, length: Int), files: [FileReference]) {
    try check("poll", "", clinux_wait_readable(socket))
    var bytes = [UInt8](repeating: 0, count: headLength)
    var descriptors = [Int32](repeating: -1, count: 128)
    var count: Int32 = 0
    let received = clinux_receive_with_descriptors(
      socket, &bytes, headLength, &descriptors, Int32(truncatingIfNeeded: descriptors.count), &count)
    let files = descriptors.prefix(Int(count)).map { FileReference(OwnedFileDescriptor($0)) }
    try check("recvmsg", "", received)
    // Written by one call, on a socket of this machine.
    guard received == headLength else { throw SystemError("recvmsg", "the caretaker", errno: EPIPE) }
    func word(_ start: Int) -> UInt32 { bytes[start..<start + 4].reduce(0) { $0 << 8 | UInt32($1) } }
    guard word(4) <= Caretaker.limit else { throw SystemError("recvmsg", "the caretaker", errno: EMSGSIZE) }
    return ((word(0), Int(word(4))), files)
  }

  static func read(_ socket: Int32, _ length: Int) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: length)
    var offset = 0
    while offset < length {
      let count = bytes.withUnsafeMutableBytes { bytes in
        let rest = UnsafeMutableRawBufferPointer(rebasing: bytes[offset...])
        return clinux_read(socket, rest.baseAddress, rest.count)
      }
      try check("read", "the caretaker", count)
      guard count > 0 else { throw SystemError("read", "the caretaker", errno: EPIPE) }
      offset += count
    }
    return bytes
  }
}
