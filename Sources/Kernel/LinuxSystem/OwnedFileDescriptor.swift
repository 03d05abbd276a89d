import CLinux
import Glibc

/// A descriptor with exactly one owner; closed when the owner ends. Opened close-on-exec throughout.
public struct OwnedFileDescriptor: ~Copyable, Sendable {
  public let rawValue: Int32

  /// Takes ownership of an open descriptor.
  public init(_ rawValue: Int32) { self.rawValue = rawValue }

  deinit { _ = close(rawValue) }

  /// Gives up ownership: the caller closes it.
  public consuming func release() -> Int32 {
    let raw = rawValue
    discard self
    return raw
  }

  /// A second descriptor for the same open file. The corresponding C function is `fcntl(F_DUPFD_CLOEXEC)`.
  public borrowing func duplicate() throws(SystemError) -> OwnedFileDescriptor {
    let raw = rawValue
    return OwnedFileDescriptor(try checkErrno("fcntl", "F_DUPFD_CLOEXEC") { clinux_dup_cloexec(raw) })
  }

  public borrowing func setNonblocking(_ on: Bool = true) throws(SystemError) {
    let raw = rawValue
    try checkErrno("fcntl", "O_NONBLOCK") { clinux_set_nonblocking(raw, on) }
  }
}

/// The same as a reference, for descriptors kept in arrays and dictionaries.
public final class FileReference: Sendable {
  public let descriptor: OwnedFileDescriptor
  public var rawValue: Int32 { descriptor.rawValue }
  public init(_ descriptor: consuming OwnedFileDescriptor) { self.descriptor = descriptor }
}

/// The outcome of a data call on a non-blocking descriptor.
public enum IOResult: Equatable, Sendable {
  /// How many bytes moved; 0 from a read is the end of the file.
  case bytes(Int)
  case wouldBlock
  /// An errno of the connection, such as ECONNRESET.
  case failed(Int32)

  @inline(__always) public init(_ result: Int) {
    if result >= 0 {
      self = .bytes(result)
    } else if result == -Int(EAGAIN) {
      self = .wouldBlock
    } else {
      self = .failed(Int32(truncatingIfNeeded: -result))
    }
  }
}

/// The corresponding C function is `read`; EINTR is retried.
@inline(__always) public func readBytes(_ fd: Int32, _ buffer: UnsafeMutableRawBufferPointer) -> IOResult {
  IOResult(clinux_read(fd, buffer.baseAddress, buffer.count))
}

/// The same into memory of its own, of the size of what there was: of 64 KiB to read into, most messages need a hundred bytes,
/// and none has to be set to zero before.
public func readChunk(_ fd: Int32, limit: Int) -> (result: IOResult, bytes: [UInt8]) {
  withUnsafeTemporaryAllocation(byteCount: limit, alignment: 1) { buffer in
    let result = readBytes(fd, buffer)
    guard case .bytes(let count) = result else { return (result, []) }
    return (result, Array(buffer[..<count]))
  }
}

/// The corresponding C function is `write`; EINTR is retried. For sockets use `sendBytes`, which raises no SIGPIPE.
@inline(__always) public func writeBytes(_ fd: Int32, _ buffer: UnsafeRawBufferPointer) -> IOResult {
  IOResult(clinux_write(fd, buffer.baseAddress, buffer.count))
}

/// The corresponding C function is `send` with MSG_NOSIGNAL.
@inline(__always) public func sendBytes(_ fd: Int32, _ buffer: UnsafeRawBufferPointer) -> IOResult {
  IOResult(clinux_send(fd, buffer.baseAddress, buffer.count, 0))
}
