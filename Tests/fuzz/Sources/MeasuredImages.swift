import CLinux
import LinuxSystem

@testable import Imaging

/// EIF files: header, sections, signature, certificate.
let measuredImages = Harness("eif", limit: 8192) { bytes in
  if let header = try? EIFHeader(Array(bytes.prefix(EIFFormat.headerSize))) {
    check(header.bytes.count == EIFFormat.headerSize, "a header of another length")
  }
  _ = try? ImageSignature(section: bytes)
  _ = try? SigningCertificate(pem: bytes)
  guard let file = try? makeMemoryFile(bytes) else { return }
  do throws(ImageError) {
    let image = try EIFDescription(path: "/proc/self/fd/\(file.rawValue)")
    check(image.sections.allSatisfy { $0.offset + $0.size <= bytes.count }, "a section outside of its file")
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
}
