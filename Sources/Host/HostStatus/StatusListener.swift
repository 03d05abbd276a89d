import CLinux
import EventLoop
import LinuxSystem
import Relaying

/// Answers each connection to this host side's socket with one JSON document, and closes it. Only this user and root are
/// answered.
public final class StatusListener {
  private let path: String
  private let directory: String
  private var listener: Listener?
  /// The name is somebody else's to take away.
  private var isHandedOver = false

  /// - Parameter document: called for each connection; calls back with what to send, now or later.
  /// - Throws: where there is no place for the socket; the host side can do without.
  public init(
    loop: EventLoop, report: @escaping (String) -> Void,
    document: @escaping (@escaping ([UInt8]) -> Void) -> Void
  ) throws(SystemError) {
    let socket: FileReference
    (socket, directory, path) = try Self.open()
    listener = try Listener(loop: loop, socket: socket, report: report) { connection, _ in
      guard let user = peerUserID(connection.rawValue), user == 0 || user == effectiveUserID() else { return }
      document { bytes in
        _ = try? StatusReply(loop, connection, bytes)
      }
    }
  }

  /// Under another name until somebody listens: what refuses connections is taken for left behind.
  private static func open() throws(SystemError) -> (FileReference, String, String) {
    var attempt = 0
    while true {
      let directory = try StatusDirectory.make()
      let name = StatusDirectory.socketName()
      let temporary = "\(directory)/\(name.temporary)"
      do throws(SystemError) {
        let socket = FileReference(try listenStream(.unix(temporary)))
        try changeMode(temporary, 0o600)
        try renameFile(temporary, to: "\(directory)/\(name.final)")
        return (socket, directory, "\(directory)/\(name.final)")
      } catch {
        removeFile(temporary)
        // Another's end took the empty directory away.
        attempt += 1
        guard error.errno == ENOENT, attempt < 3 else { throw error }
      }
    }
  }

  deinit { close() }

  public func close() {
    guard listener != nil else { return }
    listener?.close()
    listener = nil
    if !isHandedOver { removeName() }
  }

  private func removeName() {
    removeFile(path)
    // Fails, as it should, where others are.
    removeDirectory(directory)
  }

  /// For a process that will not be allowed to take its socket's name away itself.
  /// - Returns: what does that, in another one.
  public func handOver() -> () -> Void {
    isHandedOver = true
    return removeName
  }
}

/// One answer on its way; kept by the loop.
private final class StatusReply: EventSource {
  private static let patience: Duration = .seconds(5)

  private let loop: EventLoop
  private let connection: FileReference
  private let bytes: [UInt8]
  private var offset = 0
  private var registration: Registration?
  private var deadline: TimerToken?

  init(_ loop: EventLoop, _ connection: FileReference, _ bytes: [UInt8]) throws(SystemError) {
    self.loop = loop
    self.connection = connection
    self.bytes = bytes
    super.init()
    registration = try loop.add(connection.rawValue, [.writable], self)
    deadline = loop.schedule(after: Self.patience, self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    let result = bytes[offset...].withUnsafeBytes { sendBytes(connection.rawValue, $0) }
    switch result {
    case .bytes(let count):
      offset += count
      if offset == bytes.count { end() }
    case .wouldBlock: break
    case .failed: end()
    }
  }

  override func timerFired(_ key: Int) { end() }

  private func end() {
    if let registration { loop.remove(registration) }
    if let deadline { loop.cancel(deadline) }
    registration = nil
    deadline = nil
  }
}
