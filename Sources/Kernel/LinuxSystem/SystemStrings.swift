import CLinux
import Glibc
import SystemText

/// Names and arguments are bytes for the kernel; `SystemText` says how a String holds them. Every call of this module that
/// takes or gives one goes through these.
extension String {
  /// The C string that this text stands for. Without NUL: no name or argument can have one.
  func withSystemCString<R>(_ body: (UnsafePointer<CChar>) -> R) -> R {
    if isPlainText(self) { return withCString(body) }
    return (systemBytes(self) + [0]).withUnsafeBufferPointer { bytes in
      bytes.withMemoryRebound(to: CChar.self) { chars in
        // Never empty: it has the NUL.
        chars.baseAddress.map(body) ?? withCString(body)
      }
    }
  }

  /// The text of a C string of the kernel's.
  init(systemCString pointer: UnsafePointer<CChar>) {
    self = systemText(UnsafeRawBufferPointer(start: pointer, count: strlen(pointer)))
  }
}

/// The corresponding C function is `strdup`.
func duplicateSystemCString(_ text: String) -> UnsafeMutablePointer<CChar>? { text.withSystemCString { strdup($0) } }
