import CDecompress
import CLinux
import Crypto
import LinuxSystem

/// The compressions that archives, layers and kernel modules come in, told by their first bytes.
enum Compression: Sendable {
  case gzip
  case xz
  case zstd

  init?(firstBytes bytes: [UInt8]) {
    if bytes.starts(with: [0x1f, 0x8b]) {
      self = .gzip
    } else if bytes.starts(with: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]) {
      self = .xz
    } else if bytes.starts(with: [0x28, 0xb5, 0x2f, 0xfd]) {
      self = .zstd
    } else {
      return nil
    }
  }

  private var kind: cdecompress_kind {
    switch self {
    case .gzip: CDECOMPRESS_GZIP
    case .xz: CDECOMPRESS_XZ
    case .zstd: CDECOMPRESS_ZSTD
    }
  }

  /// Hands the text of a compressed file to `body`, in pieces.
  /// - Parameter limit: the longest text, in bytes. A few kilobytes can be made to hold terabytes.
  /// - Throws: `ImageError.malformed` for damaged input, for input that ends before its text does, and for a longer text.
  func decompress(
    _ source: FileSlice, limit: UnpackLimit, _ body: (UnsafeRawBufferPointer) throws(ImageError) -> Void
  ) throws(ImageError) {
    guard let stream = cdecompress_open(kind) else {
      throw .refused("\(source.name): out of memory while decompressing")
    }
    defer { cdecompress_close(stream) }
    let output = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
    defer { output.deallocate() }
    let out = output.bindMemory(to: UInt8.self)
    var ended = false
    var total = 0
    try source.forEachChunk { (chunk) throws(ImageError) in
      let input = chunk.bindMemory(to: UInt8.self)
      var position = 0
      var full = false
      while position < input.count || full {
        // Zero bytes after the last member are padding, as gzip(1) and tar(1) have it.
        if ended, input[position...].allSatisfy({ $0 == 0 }) { return }
        var consumed = 0
        var produced = 0
        let result = cdecompress_step(
          stream, input.baseAddress.map { $0 + position }, input.count - position, out.baseAddress, out.count,
          &consumed, &produced)
        guard result >= 0 else { throw .malformed(file: source.name, "its \(self) data is damaged") }
        position += consumed
        full = result == 0 && produced == out.count
        if consumed > 0 || result == 1 { ended = result == 1 }
        total += produced
        guard total <= limit.left else { throw .malformed(file: source.name, "its \(self) data \(limit.sentence)") }
        if produced > 0 { try body(UnsafeRawBufferPointer(rebasing: output[..<produced])) }
        guard consumed > 0 || produced > 0 || position == input.count else {
          throw .malformed(file: source.name, "its \(self) data is damaged")
        }
      }
    }
    guard ended else { throw .malformed(file: source.name, "its \(self) data ends too early") }
  }
}

/// How many bytes may come out of compressed files together.
public struct UnpackLimit: Sendable {
  public let total: Int
  fileprivate(set) var left: Int
  /// How somebody who means it gets more; nil where nobody does.
  private let remedy: String?

  /// What an image's root may have unless somebody says more: 16 GiB, four times the memory of a usual enclave.
  public static let usual = 16 << 30

  /// All layers of one image, and the file that they are in.
  public static func image(_ total: Int) -> UnpackLimit {
    UnpackLimit(total, "all of an image may have together (--unpacked-limit SIZE allows more)")
  }

  init(_ total: Int, _ remedy: String?) {
    self.total = total
    left = total
    self.remedy = remedy
  }

  fileprivate var sentence: String {
    "unpacks to more than the \(total) bytes that \(remedy ?? "are expected there")"
  }
}

/// A temporary file without a name: gone when its last slice is, however the process ends.
struct SpoolFile {
  let handle: FileReference
  private(set) var count = 0

  /// In `$TMPDIR`, or `/tmp`. The corresponding C function is `open` with O_TMPFILE.
  init() throws(ImageError) {
    let directory = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    let raw = clinux_open(directory, O_RDWR | unnamedFile, 0o600)
    if raw >= 0 {
      handle = FileReference(OwnedFileDescriptor(raw))
      return
    }
    var name = Array("\(directory)/tombolo-XXXXXX".utf8CString)  // a file system without O_TMPFILE
    let named = try system { () throws(SystemError) in
      try checkErrno("mkstemp", directory) { mkostemp(&name, O_CLOEXEC) }
    }
    unlink(name)
    handle = FileReference(OwnedFileDescriptor(named))
  }

  mutating func append(_ bytes: UnsafeRawBufferPointer) throws(ImageError) {
    try writeAll(handle.rawValue, bytes, "a temporary file (set TMPDIR for another place)")
    count += bytes.count
  }

  func slice(name: String) -> FileSlice { FileSlice(handle: handle, name: name, offset: 0, count: count) }
}

/// O_TMPFILE of x86-64 and arm64, whose definition (`__O_TMPFILE | O_DIRECTORY`) Swift does not import.
let unnamedFile: Int32 = 0o20000000 | O_DIRECTORY

func writeAll(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, _ object: String) throws(ImageError) {
  var rest = bytes
  while !rest.isEmpty {
    let count = try system { () throws(SystemError) in
      try check("write", object, clinux_write(descriptor, rest.baseAddress, rest.count))
    }
    rest = UnsafeRawBufferPointer(rebasing: rest[count...])
  }
}

extension FileSlice {
  var compression: Compression? { get throws(ImageError) { Compression(firstBytes: try bytes(at: 0, 6)) } }

  /// The same bytes, or, where they are compressed, their text in a temporary file.
  func decompressed(_ limit: inout UnpackLimit) throws(ImageError) -> FileSlice {
    guard let compression = try compression else { return self }
    var spool = try SpoolFile()
    try compression.decompress(self, limit: limit) { (chunk) throws(ImageError) in try spool.append(chunk) }
    limit.left -= spool.count
    return spool.slice(name: name)
  }

  func sha256() throws(ImageError) -> String {
    var hash = SHA256()
    try forEachChunk { (chunk) throws(ImageError) in hash.update(bufferPointer: chunk) }
    return hex(hash.finalize())
  }

  func sha512() throws(ImageError) -> String {
    var hash = SHA512()
    try forEachChunk { (chunk) throws(ImageError) in hash.update(bufferPointer: chunk) }
    return hex(hash.finalize())
  }
}
