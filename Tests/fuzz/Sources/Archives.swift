import CLinux
import LinuxSystem

@testable import Imaging

/// Image files: tar with layers, cpio. The input is a file in memory.
let archives = Harness("archives", limit: 8192) { bytes in
  guard let slice = memoryFile(bytes) else { return }
  var cpio = CpioReader(slice)
  while let member = try? cpio.next() { check(member.content.count <= bytes.count, "a member longer than its archive") }
  let tree = FileTree()
  var layers = LayerApplier(tree: tree, whiteouts: true)
  for _ in 0..<2 {
    do throws(ImageError) { try layers.apply(slice) } catch { check(!error.description.isEmpty, "no reason") }
  }
}

/// nil where the kernel gives none.
func memoryFile(_ bytes: [UInt8]) -> FileSlice? {
  guard let file = try? makeMemoryFile(bytes) else { return nil }
  return FileSlice(handle: file, name: "input", offset: 0, count: bytes.count)
}
