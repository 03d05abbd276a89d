import CLinux
import LinuxSystem

extension EIFDescription {
  /// Bytes copied at a time.
  private static let chunk = 1 << 20

  /// Writes the data of every section of a kind, one after the other, to a new file: the kernel, or the ramdisks as one
  /// initial ramdisk, which a kernel reads as such.
  /// - Throws: `ImageError` where the image cannot be read; the file is not whole then.
  public func extract(_ kind: EIFSectionKind, from path: String, to target: String) throws {
    let source = try FileSlice(path: path)
    let output = try openFile(target, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
    for section in sections where section.kind == kind {
      var done = 0
      while done < section.size {
        let count = min(Self.chunk, section.size - done)
        try writeAll(output.rawValue, try source.bytes(at: section.dataOffset + done, count), target)
        done += count
      }
    }
  }
}
