import CLinux
import LinuxSystem
import VhostVsock

/// The vsock device on a thread of its own: it moves every byte of the guest, and so does the gateway's loop.
final class DeviceThread: @unchecked Sendable {
  private let device: VhostVsockDevice
  private let reading: FileReference
  private let writing: FileReference
  /// Readable when the device has ended by itself or by `stop`.
  let ended: FileReference
  private let endWriting: FileReference
  private var thread = pthread_t()
  private var runs = false
  /// What ended the device; read after `ended`.
  private(set) var problem: String?

  /// Listens; serves from `start` on.
  init(socket: String, cid: UInt32, hybrid: String) throws {
    (reading, writing) = try makePipe()
    (ended, endWriting) = try makePipe()
    device = try VhostVsockDevice(socketPath: socket, guestCID: cid, hybridPath: hybrid)
  }

  /// Apart from `init`, because a process gives up its rights while it has one thread.
  func start() throws(SystemError) {
    let context = Unmanaged.passRetained(self)
    let code = pthread_create(
      &thread, nil,
      { argument in
        guard let argument else { return nil }
        Unmanaged<DeviceThread>.fromOpaque(argument).takeRetainedValue().run()
        return nil
      }, context.toOpaque())
    guard code == 0 else {
      context.release()
      throw SystemError("pthread_create", errno: code)
    }
    runs = true
  }

  private func run() {
    do throws(VhostVsockError) {
      try device.run(until: reading.rawValue)
    } catch {
      problem = error.description
    }
    _ = try? writeAll(endWriting.rawValue, [1])
  }

  /// Ends the device and waits for its thread.
  func stop() {
    guard runs else { return }
    runs = false
    _ = try? writeAll(writing.rawValue, [0])
    pthread_join(thread, nil)
  }
}
