import CLinux
import LinuxSystem
import SystemText

/// A run of bytes of an open file, read when asked for: what an archive's members are kept as.
public struct FileSlice: Sendable {
  let handle: FileReference
  /// What messages call it.
  public let name: String
  public let offset: Int
  public let count: Int

  /// A whole regular file.
  public init(path: String) throws(ImageError) {
    try self.init(path: systemBytes(path))
  }

  init(path: [UInt8]) throws(ImageError) {
    let raw = withCPath(path) { clinux_open($0, O_RDONLY, 0) }
    _ = try system { () throws(SystemError) in try check("open", text(path), raw) }
    let descriptor = OwnedFileDescriptor(raw)
    var info = stat()
    _ = try system { () throws(SystemError) in try checkErrno("fstat", text(path)) { fstat(raw, &info) } }
    guard fileType(info.st_mode) == S_IFREG else {
      let found = fileType(info.st_mode) == S_IFDIR ? "a directory" : "not a regular file"
      throw .malformed(file: text(path), "is \(found); a file was expected")
    }
    self.init(handle: FileReference(descriptor), name: text(path), offset: 0, count: Int(info.st_size))
  }

  init(handle: FileReference, name: String, offset: Int, count: Int) {
    self.handle = handle
    self.name = name
    self.offset = offset
    self.count = count
  }

  /// Part of this slice; nil when it does not lie within.
  func part(_ start: Int, _ length: Int, name: String? = nil) -> FileSlice? {
    guard start >= 0, length >= 0, start <= count, length <= count - start else { return nil }
    return FileSlice(handle: handle, name: name ?? self.name, offset: offset + start, count: length)
  }

  /// Fills as much of `buffer` as the slice has from `start` on. The corresponding C function is `pread`.
  /// - Returns: the number of bytes; fewer than asked for only at the slice's end.
  func read(at start: Int, into buffer: UnsafeMutableRawBufferPointer) throws(ImageError) -> Int {
    guard start >= 0, start < count, let base = buffer.baseAddress else { return 0 }
    let wanted = min(buffer.count, count - start)
    var done = 0
    while done < wanted {
      let got = try system { () throws(SystemError) in
        try checkErrno("pread", name) {
          pread(handle.rawValue, base + done, wanted - done, off_t(offset + start + done))
        }
      }
      if got == 0 { throw .malformed(file: name, "became shorter while it was read") }
      done += got
    }
    return done
  }

  /// `length` bytes from `start` on, fewer at the end.
  func bytes(at start: Int, _ length: Int) throws(ImageError) -> [UInt8] {
    let wanted = max(0, min(length, count - start))
    var bytes = [UInt8](repeating: 0, count: wanted)
    var failure: ImageError?
    bytes.withUnsafeMutableBytes { buffer in
      do throws(ImageError) { _ = try read(at: start, into: buffer) } catch { failure = error }
    }
    if let failure { throw failure }
    return bytes
  }

  /// The whole slice in memory.
  /// - Throws: when it is longer than `limit`.
  func all(limit: Int) throws(ImageError) -> [UInt8] {
    guard count <= limit else {
      throw .malformed(file: name, "has \(count) bytes; at most \(limit) were expected")
    }
    return try bytes(at: 0, count)
  }

  /// All bytes in order, in pieces.
  func forEachChunk(_ body: (UnsafeRawBufferPointer) throws(ImageError) -> Void) throws(ImageError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(1, min(count, 1 << 18)), alignment: 16)
    defer { buffer.deallocate() }
    var position = 0
    while position < count {
      let got = try read(at: position, into: buffer)
      try body(UnsafeRawBufferPointer(rebasing: buffer[..<got]))
      position += got
    }
  }
}

/// What is in a regular file: kept in memory only when it was made here.
public enum FileContent: Sendable {
  case bytes([UInt8])
  case slice(FileSlice)
  /// A file of a directory tree, opened when it is read: there may be more of them than descriptors.
  case path([UInt8], count: Int)

  public var count: Int {
    switch self {
    case .bytes(let bytes): bytes.count
    case .slice(let slice): slice.count
    case .path(_, let count): count
    }
  }

  /// As a slice of an open file, when it is not in memory.
  func slice() throws(ImageError) -> FileSlice? {
    switch self {
    case .bytes: return nil
    case .slice(let slice): return slice
    case .path(let path, let count):
      let slice = try FileSlice(path: path)
      guard slice.count == count else {
        throw .malformed(file: slice.name, "changed from \(count) to \(slice.count) bytes while the image was built")
      }
      return slice
    }
  }

  func forEachChunk(_ body: (UnsafeRawBufferPointer) throws(ImageError) -> Void) throws(ImageError) {
    if let slice = try slice() { return try slice.forEachChunk(body) }
    guard case .bytes(let bytes) = self, !bytes.isEmpty else { return }
    var failure: ImageError?
    bytes.withUnsafeBytes { buffer in
      do throws(ImageError) { try body(buffer) } catch { failure = error }
    }
    if let failure { throw failure }
  }

  func all(limit: Int) throws(ImageError) -> [UInt8] {
    if let slice = try slice() { return try slice.all(limit: limit) }
    guard case .bytes(let bytes) = self else { return [] }
    return bytes
  }
}
