import CLinux

/// Which stream a packet belongs to. The guest's own CID is the device's.
struct StreamKey: Hashable, Sendable {
  /// The parent's CID as the guest knows it: 2 or 3.
  var hostCID: UInt32
  var hostPort: UInt32
  var guestPort: UInt32
}

/// Control packets that a stream still has to send, in the order in which they leave.
struct PendingControl: OptionSet {
  let rawValue: UInt8
  static let reset = PendingControl(rawValue: 1)
  static let request = PendingControl(rawValue: 2)
  static let response = PendingControl(rawValue: 4)
  static let shutdown = PendingControl(rawValue: 8)
  static let creditUpdate = PendingControl(rawValue: 16)
  static let creditRequest = PendingControl(rawValue: 32)
}

/// One stream between the guest and a Unix socket.
///
/// Each direction ends by itself. Guest to host: `guestShutdown` has `.send`, what is buffered is written, the socket's
/// writing half is shut down. Host to guest: the socket reads end of file, `hostShutdown` gains `.send`. A reset ends
/// both at once.
final class VsockStream {
  enum State {
    /// A host program has connected and is writing its `CONNECT` line.
    case readingLine
    /// The Unix socket's backlog was full; tried again until `deadline`.
    case retryingConnect
    /// Our request has not been answered by the guest.
    case requested
    case established
    /// The host's side has gone altogether; the guest has been or will be told and its reset is awaited.
    case hostGone
    /// A reset waits for a receive buffer; nothing else matters any more.
    case resetting
    /// The guest has gone after closing in order; what it had sent is still being written.
    case draining
  }

  var key: StreamKey
  var state: State
  /// Place in the device's table, and what tells this stream from earlier ones there.
  let token: UInt64
  var fd: Int32

  // Guest to host
  var buffer: ByteRing?
  /// Up to which byte the guest may send, as it has been told; modulo 2^32, never moved back.
  var limit: UInt32 = 0
  /// Bytes that count in the device's `CreditPool`.
  var reserved = 0
  /// Bytes passed on to the Unix socket (`fwd_cnt`). Modulo 2^32.
  var forwarded: UInt32 = 0
  var guestShutdown: ShutdownFlags = []
  /// The socket's writing half has been shut down.
  var writingEnded = false
  /// The Unix socket takes no more (EPIPE): what the guest still sends is thrown away.
  var hostRefusesData = false
  /// EPOLLOUT is being waited for.
  var awaitsWritable = false

  // Host to guest
  /// Bytes sent to the guest, modulo 2^32; what it can hold in all; what it has passed on.
  var sent: UInt32 = 0
  var peerBufferSize: UInt32 = 0
  var peerForwarded: UInt32 = 0
  /// The socket may have something: cleared when it says EAGAIN (its events are edge-triggered).
  var readable = false
  /// The socket has read end of file.
  var hostEnded = false
  /// Both halves of the socket have ended (EPOLLHUP).
  var hungUp = false
  /// What the guest is to be told, or has been told, of the host's halves.
  var hostShutdown: ShutdownFlags = []
  var askedForCredit = false

  var pending: PendingControl = []
  /// Stands in the device's list of streams that have something to send.
  var queued = false
  var line: [UInt8] = []
  var deadline: Int64 = 0

  init(key: StreamKey, state: State, token: UInt64, fd: Int32) {
    self.key = key
    self.state = state
    self.token = token
    self.fd = fd
  }

  /// How many bytes the guest can take now (virtio 1.2, 5.10.6.3). A guest that says nonsense only gets less.
  @inline(__always) var credit: Int {
    let inFlight = sent &- peerForwarded
    return inFlight < peerBufferSize ? Int(peerBufferSize &- inFlight) : 0
  }

  /// Data may be read from the socket for the guest.
  @inline(__always) var wantsToSend: Bool {
    readable && !hostEnded && state == .established && !guestShutdown.contains(.receive)
  }

  /// There is data to send, or to ask for room for (once, until there is some).
  @inline(__always) var wantsTurn: Bool { wantsToSend && (credit > 0 || !askedForCredit) }

  /// Bytes that may be kept: what the guest may still send, and what is kept already.
  var promised: Int { Int(limit &- forwarded) }

  var buffered: Int { buffer?.count ?? 0 }
}
