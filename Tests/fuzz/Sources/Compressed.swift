@testable import Imaging

/// gzip, xz and zstd: whatever comes there is an end, within the limit of what may come out.
let compressed = Harness("compressed", limit: 4096) { bytes in
  guard let slice = memoryFile(bytes), let compression = Compression(firstBytes: bytes) else { return }
  var count = 0
  do throws(ImageError) {
    try compression.decompress(slice, limit: UnpackLimit(1 << 20, nil)) { (piece) throws(ImageError) in
      count += piece.count
    }
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
  check(count <= 1 << 20, "more than the limit has come out")
}
