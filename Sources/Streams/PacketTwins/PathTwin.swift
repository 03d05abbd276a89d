import CLinux
import EventLoop
import LinuxSystem
import PacketRelaying
import Packets

/// One of two ends of a path in one process. What is committed here is there for the other end after `flush`, unless that
/// is `held`.
public final class PathTwin: FramePath {
  public enum Kind: CaseIterable, Sendable {
    /// As a stream: a frame that came is ours alone.
    case stream
    /// As memory that both sides have: of a frame that is not wanted whole only the head is copied.
    case memory
  }

  /// What is copied of a frame in memory of both sides.
  private static let headLength = 64

  public var file: FileReference { bell.file }
  public var interest: EventSet { [.readable, .edgeTriggered] }
  public var isReady = true
  public var isConfirmed: Bool { isReady }
  public var isExposed: Bool { kind == .memory }
  /// Passes nothing on, as a transport that has come to a stop.
  public var held = false {
    didSet { bell.ring() }
  }

  private let kind: Kind
  private let bell: Bell
  private weak var peer: PathTwin?
  /// Frames that may be under way to one end.
  private let capacity: Int
  private let outgoing: UnsafeMutableRawPointer
  private let head: UnsafeMutableRawPointer
  private var committed: [[UInt8]] = []
  private var incoming: ArraySlice<[UInt8]> = []
  /// The frame that `next` gave, in memory that the other side has, too.
  private let shared: UnsafeMutableRawPointer
  private var end: PacketQueue.Loss?

  public static func pair(_ kind: Kind = .stream, capacity: Int = 256) throws(SystemError) -> (PathTwin, PathTwin) {
    let ends = (try PathTwin(kind, capacity), try PathTwin(kind, capacity))
    ends.0.peer = ends.1
    ends.1.peer = ends.0
    return ends
  }

  private init(_ kind: Kind, _ capacity: Int) throws(SystemError) {
    self.kind = kind
    self.capacity = capacity
    bell = try Bell()
    outgoing = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    head = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
    shared = .allocate(byteCount: PacketGuard.frameLimit, alignment: 16)
  }

  deinit {
    outgoing.deallocate()
    head.deallocate()
    shared.deallocate()
  }

  /// The other side ends it, for that reason; what was under way still comes.
  public func lose(_ loss: PacketQueue.Loss) {
    end = loss
    bell.ring()
  }

  public func note(_ events: EventSet) {}

  // MARK: out

  public func room() -> UnsafeMutableRawPointer? {
    committed.count + (peer?.incoming.count ?? 0) < capacity ? outgoing : nil
  }

  public func commit(_ length: Int) {
    committed.append(Array(UnsafeRawBufferPointer(start: outgoing, count: length)))
  }

  public func flush() -> Bool {
    guard !held, let peer, !committed.isEmpty else { return false }
    peer.incoming += committed
    committed = []
    peer.bell.ring()
    return true
  }

  // MARK: in

  public func fetch() throws(PacketQueue.Loss) -> Bool {
    if !incoming.isEmpty { return true }
    if let end { throw end }
    return false
  }

  public func next(whole: Bool) -> DeviceFrame? {
    guard let frame = incoming.first else { return nil }
    let copied = whole || kind == .stream ? frame.count : min(frame.count, Self.headLength)
    frame.withUnsafeBytes { bytes in
      guard let start = bytes.baseAddress else { return }
      head.copyMemory(from: start, byteCount: copied)
      if copied < bytes.count {
        (shared + copied).copyMemory(from: start + copied, byteCount: bytes.count - copied)
      }
    }
    return DeviceFrame(
      start: UnsafeRawPointer(head), length: frame.count, copied: copied,
      rest: copied < frame.count ? UnsafeRawPointer(shared + copied) : nil)
  }

  public func release() {
    incoming = incoming.dropFirst()
    // There is room for the other end again.
    peer?.bell.ring()
  }
}
