public enum KernelArchitecture: String, Sendable {
  case x86_64 = "amd64"
  case arm64

  /// The name in image indexes and configurations.
  public var imageName: String { rawValue }
}

/// A Linux kernel as a file: told by its first bytes, so that a mixed-up argument is found before the boot.
struct KernelImage {
  let architecture: KernelArchitecture
  /// `6.1.0-18-cloud-amd64`, where the file says it.
  let version: String?

  init(_ source: FileSlice) throws(ImageError) {
    let start = try source.bytes(at: 0, 0x240)
    func number(_ offset: Int, _ count: Int) -> UInt64 { UInt64(littleEndian: start, at: offset, count: count) ?? 0 }
    if number(0x202, 4) == 0x5372_6448 {  // "HdrS": a bzImage (Documentation/arch/x86/boot.rst)
      architecture = .x86_64
      let pointer = Int(number(0x20e, 2))
      let words = try source.bytes(at: pointer + 0x200, 128).prefix { $0 != 0 && $0 != 0x20 }
      version = pointer == 0 || words.isEmpty ? nil : text(words)
    } else if number(0x38, 4) == 0x644d_5241 {  // "ARM\x64" (Documentation/arch/arm64/booting.rst)
      architecture = .arm64
      version = nil
    } else if start.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2]), [0x3e, 0xb7].contains(number(18, 2)) {
      architecture = number(18, 2) == 0x3e ? .x86_64 : .arm64  // vmlinux
      version = nil
    } else {
      throw .malformed(
        file: source.name, "is not a Linux kernel; a bzImage, an arm64 Image or a vmlinux (ELF) was expected")
    }
  }
}

/// A program for the ramdisk, where no dynamic linker is.
enum StaticProgram {
  /// - Throws: for what is no 64-bit ELF program, and for one that asks for an interpreter (PT_INTERP).
  static func check(_ source: FileSlice) throws(ImageError) {
    let header = try source.bytes(at: 0, 64)
    guard header.starts(with: [0x7f, 0x45, 0x4c, 0x46, 2, 1]),
      let table = UInt64(littleEndian: header, at: 32, count: 8),
      let size = UInt64(littleEndian: header, at: 54, count: 2),
      let count = UInt64(littleEndian: header, at: 56, count: 2),
      size >= 4
    else { throw .malformed(file: source.name, "is not a 64-bit ELF program; tombolo-init was expected") }
    for index in 0..<count {
      let (position, overflow) = table.addingReportingOverflow(index * size)
      guard !overflow, let at = Int(exactly: position),
        let type = UInt64(littleEndian: try source.bytes(at: at, 4), at: 0, count: 4)
      else { throw .malformed(file: source.name, "is a damaged ELF program: its program headers are out of bounds") }
      if type == 3 {
        throw .malformed(
          file: source.name, "is dynamically linked; the ramdisk has no dynamic linker, so init must be static")
      }
    }
  }
}
