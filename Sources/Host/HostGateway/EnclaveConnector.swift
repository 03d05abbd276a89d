import CLinux
import HostRights
import LinuxSystem
import Relaying

/// Connects to the enclave for a host side that may not: its caretaker does.
final class EnclaveConnector {
  private let caretaker: Caretaker
  private let enclave: StreamTarget

  init(_ caretaker: Caretaker, _ enclave: StreamTarget) {
    self.caretaker = caretaker
    self.enclave = enclave
  }

  /// - Parameter port: `bytes(of:)` of a forward's port; empty for our own.
  func connect(_ port: [UInt8]) throws(SystemError) -> FileReference {
    do throws(SystemError) {
      guard let socket = try caretaker.ask(.connect, port).files.first else {
        throw SystemError("connect", errno: EPIPE)
      }
      return socket
    } catch {
      throw SystemError("connect", enclave.description, errno: error.errno)
    }
  }

  /// A port as the caretaker is told of it.
  static func bytes(of port: UInt32) -> [UInt8] { withUnsafeBytes(of: port.bigEndian) { Array($0) } }
}
