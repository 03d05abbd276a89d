import CLinux
import Glibc
import SystemText

/// A new directory of our own, mode 0700. The C function is `mkdtemp`.
public func makeTemporaryDirectory(_ prefix: String) throws(SystemError) -> String {
  var template = systemBytes(prefix + "XXXXXX").map { CChar(bitPattern: $0) } + [0]
  guard mkdtemp(&template) != nil else { throw SystemError("mkdtemp", prefix + "XXXXXX", errno: errno) }
  return systemText(template.dropLast().map { UInt8(bitPattern: $0) })
}

/// An unnamed file in memory with these bytes, to be read from its start. The C function is `memfd_create`.
public func makeMemoryFile(_ bytes: [UInt8]) throws(SystemError) -> FileReference {
  let file = FileReference(OwnedFileDescriptor(try check("memfd_create", "", clinux_memfd("tombolo"))))
  try writeAll(file.rawValue, bytes, "memfd")
  try checkErrno("lseek", "memfd") { lseek(file.rawValue, 0, SEEK_SET) }
  return file
}
