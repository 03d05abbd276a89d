import CLinux
import LinuxSystem

/// What QEMU is handed open. As a user of its own it may reach none of it by name, and needs no more of an image than to
/// read it.
struct MachineFiles {
  /// Behind those that every process has.
  private static let first: Int32 = 3

  private(set) var handles: [FileReference] = []
  /// QEMU is another user than we are.
  private let isOther: Bool

  init(isOther: Bool) { self.isOther = isOther }

  /// - Returns: the number that it has in QEMU.
  mutating func hand(_ handle: FileReference) -> Int32 {
    handles.append(handle)
    return Self.first + Int32(truncatingIfNeeded: handles.count) - 1
  }

  /// - Returns: a name that it has in QEMU. Opening it asks for the rights to the file, not for those to its directories.
  private mutating func name(_ handle: FileReference) -> String { "/proc/self/fd/\(hand(handle))" }

  /// An image to read, which another user need not be able to open.
  mutating func image(_ path: String) throws -> String {
    let file = FileReference(try openFile(path, O_RDONLY))
    let isForAll = fileOwner(path).map { $0.mode & 0o004 != 0 } ?? false
    return name(isOther && !isForAll ? try Self.copy(file, path) : file)
  }

  /// A directory, of which QEMU opens files.
  mutating func directory(_ path: String) throws -> String {
    name(FileReference(try openFile(path, O_PATH | O_DIRECTORY)))
  }

  /// In memory, and readable for every process that has it.
  private static func copy(_ file: FileReference, _ path: String) throws(SystemError) -> FileReference {
    let made = try makeMemoryFile([])
    var chunk = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      switch chunk.withUnsafeMutableBytes({ readBytes(file.rawValue, $0) }) {
      case .bytes(0): return made
      case .bytes(let count): try writeAll(made.rawValue, chunk[..<count], "memfd")
      case .wouldBlock: continue
      case .failed(let code): throw SystemError("read", path, errno: code)
      }
    }
  }
}
