import CLinux
import Inet
import LinuxSystem
import Netlink
import Packets

/// The host's side of a shared address: what comes for the enclave is taken by queue, what the enclave sends leaves
/// through raw sockets, as if the host had sent it.
public final class SharedDevice: PacketDevice {
  /// The raw sockets of one queue, bound to the link that has the address.
  public struct Sockets: Sendable {
    let v4: FileReference?
    let v6: FileReference?

    /// - Throws: EPERM without CAP_NET_RAW.
    public init(link: String, v4: Bool, v6: Bool) throws(SystemError) {
      self.v4 = v4 ? try Self.open(AF_INET, link) : nil
      self.v6 = v6 ? try Self.open(AF_INET6, link) : nil
    }

    private static func open(_ family: Int32, _ link: String) throws(SystemError) -> FileReference {
      var call: UnsafePointer<CChar>?
      let fd = clinux_raw_socket(family, link, &call)
      guard fd >= 0 else { throw SystemError(call.map { String(cString: $0) } ?? "socket", link, errno: -fd) }
      return FileReference(OwnedFileDescriptor(fd))
    }
  }

  private static let pieceLimit = Int(CLINUX_PIECES)

  private var reader: CaptureReader
  public var defect: PacketDefect?
  private let sockets: Sockets
  private let verdicts: FileReference
  private let number: UInt8
  private let decision: SharedCapture
  private var flows = DatagramFlows()
  private let mtu: Int
  private var identification: UInt32
  private let headers: UnsafeMutableRawPointer
  private let pieces: UnsafeMutablePointer<clinux_piece>
  /// For the enclave, about its packets that the host has no way for.
  private var answers: [[UInt8]] = []
  /// More in one turn get none: they are errors, and a sender has a time-out.
  private static let answerLimit = 64

  /// - Parameters:
  ///   - capture: the socket of this queue.
  ///   - number: its number among those of the keeper of verdicts.
  ///   - verdicts: the pipe to the keeper of verdicts (`VerdictRecord`).
  ///   - mtu: of the way out, in bytes.
  public init(
    capture: FileReference, number: UInt8, verdicts: FileReference, sockets: Sockets, decision: SharedCapture, mtu: Int
  ) {
    self.number = number
    self.verdicts = verdicts
    reader = CaptureReader(capture)
    self.sockets = sockets
    self.decision = decision
    self.mtu = mtu
    identification = UInt32.random(in: 0...UInt32.max)
    headers = .allocate(byteCount: Self.pieceLimit * PacketPieces.headerLimit, alignment: 16)
    pieces = .allocate(capacity: Self.pieceLimit)
  }

  deinit {
    reader.free()
    headers.deallocate()
    pieces.deallocate()
  }

  public var file: FileReference { reader.file }
  public var looksInside: Bool { true }

  private static func seconds() -> UInt32 { UInt32(truncatingIfNeeded: monotonicNanoseconds() / 1_000_000_000) }

  // MARK: network to enclave

  public var hasAnswers: Bool { !answers.isEmpty }

  public func read(_ frame: UnsafeMutableRawPointer) -> Int {
    if let answer = answers.popLast() {
      answer.withUnsafeBytes { if let bytes = $0.baseAddress { frame.copyMemory(from: bytes, byteCount: $0.count) } }
      return answer.count
    }
    let (count, packet) = reader.read(frame)
    guard count > 0, let packet else {
      if count == 0, packet != nil { defect = .truncated }
      return count
    }
    let buffer = UnsafeMutableRawBufferPointer(start: frame, count: count)
    switch decision.decide(UnsafeRawBufferPointer(buffer), isAnswer: { flows.isAnswer($0, now: Self.seconds()) }) {
    case .take:
      OffloadHeader.write(
        buffer, needsChecksum: packet.needsChecksum, isChecked: !packet.isUnverified, segmentSize: nil)
      return count
    case .leave:
      VerdictRecord(.accept, socket: number, queue: packet.queue, id: packet.id).send(verdicts.rawValue)
      return 0
    case .refuse:
      refuse(UnsafeRawBufferPointer(buffer))
      return 0
    }
  }

  /// With our own reset and not by letting the host's TCP answer: past this rule the packet would be past the rest of the
  /// host's own rules, too.
  private func refuse(_ frame: UnsafeRawBufferPointer) {
    let length = SharedCapture.reset(frame, headers)
    guard length > 0 else { return }
    pieces[0] = clinux_piece(
      header: UnsafeRawPointer(headers), payload: nil, header_length: UInt32(length), payload_length: 0)
    _ = send(UnsafeRawPointer(headers), 1)
  }

  public func settle() {
    for (queue, id) in reader.pending {
      VerdictRecord(.drop, socket: number, queue: queue, id: id).send(verdicts.rawValue)
    }
    reader.forget()
  }

  // MARK: enclave to network

  public func write(_ whole: DeviceFrame) -> PacketDefect? {
    let frame = whole.bytes
    flows.note(sent: frame, now: Self.seconds())
    identification &+= 1
    var cursor: PacketPieces
    do {
      cursor = try PacketPieces(frame, mtu: mtu, identification: identification)
    } catch {
      return error.defect
    }
    guard let packet = frame.baseAddress.map({ $0 + PacketGuard.offloadHeaderLength }) else { return .truncated }
    var done = false
    while !done {
      var count = 0
      while count < Self.pieceLimit {
        let header = headers + count * PacketPieces.headerLimit
        guard let (length, payload) = cursor.next(header) else {
          done = true
          break
        }
        pieces[count] = clinux_piece(
          header: UnsafeRawPointer(header), payload: payload.baseAddress, header_length: UInt32(length),
          payload_length: UInt32(payload.count))
        count += 1
      }
      if count > 0 {
        let code = send(packet, count)
        guard code == 0 else {
          answer(frame, code)
          return .notTaken
        }
      }
    }
    return nil
  }

  /// Tells the enclave's kernel what the host's has said of a packet, as a router would. Other errors, such as a queue that is
  /// full, are those of a packet that is lost on its way.
  private func answer(_ frame: UnsafeRawBufferPointer, _ code: Int32) {
    let reason: UnreachableAnswer.Reason
    switch code {
    case ENETUNREACH: reason = .network
    case EHOSTUNREACH: reason = .host
    // A route of the kind "prohibit".
    case EACCES: reason = .prohibited
    default: return
    }
    guard answers.count < Self.answerLimit else { return }
    let made = UnreachableAnswer.make(frame, reason)
    if !made.isEmpty { answers.append(made) }
  }

  /// - Parameter packet: one with the destination of all pieces.
  /// - Returns: 0, or an errno.
  private func send(_ packet: UnsafeRawPointer, _ count: Int) -> Int32 {
    let is6 = packet.load(as: UInt8.self) >> 4 == 6
    guard let socket = is6 ? sockets.v6 : sockets.v4 else { return ENETUNREACH }
    var address = sockaddr_storage()
    let length = clinux_inet_address(
      &address, (packet + (is6 ? 24 : 16)).assumingMemoryBound(to: UInt8.self), is6 ? 16 : 4, 0)
    var first = 0
    while first < count {
      let sent = clinux_send_pieces(socket.rawValue, &address, length, pieces + first, Int32(count - first))
      guard sent > 0 else { return sent < 0 ? -sent : EIO }
      first += Int(sent)
    }
    return 0
  }
}
