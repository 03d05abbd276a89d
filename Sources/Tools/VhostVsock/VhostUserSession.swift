import CLinux
import LinuxSystem

/// The requests of vhost-user that a monitor sends a vsock device (QEMU, docs/interop/vhost-user.rst).
private enum Request {
  static let getFeatures: UInt32 = 1
  static let setFeatures: UInt32 = 2
  static let setOwner: UInt32 = 3
  static let resetOwner: UInt32 = 4
  static let setMemoryTable: UInt32 = 5
  static let setRingSize: UInt32 = 8
  static let setRingAddresses: UInt32 = 9
  static let setRingBase: UInt32 = 10
  static let getRingBase: UInt32 = 11
  static let setRingKick: UInt32 = 12
  static let setRingCall: UInt32 = 13
  static let setRingError: UInt32 = 14
  static let getProtocolFeatures: UInt32 = 15
  static let setProtocolFeatures: UInt32 = 16
  static let getQueueCount: UInt32 = 17
  static let setRingEnable: UInt32 = 18
  static let getConfiguration: UInt32 = 24
  static let setConfiguration: UInt32 = 25
}

private enum Feature {
  static let indirectDescriptors: UInt64 = 1 << 28
  static let eventIndex: UInt64 = 1 << 29
  static let protocolFeatures: UInt64 = 1 << 30
  static let version1: UInt64 = 1 << 32
  static let offered = indirectDescriptors | eventIndex | protocolFeatures | version1
}

private enum ProtocolFeature {
  static let multipleQueues: UInt64 = 1 << 0
  static let replyAcknowledge: UInt64 = 1 << 3
  static let configuration: UInt64 = 1 << 9
  static let offered = multipleQueues | replyAcknowledge | configuration
}

/// One connection of a virtual machine monitor: what it has told of the guest's memory and queues.
///
/// Messages are `u32 request, u32 flags, u32 size`, then `size` bytes, all in the machine's own byte order, with
/// descriptors attached to the first byte.
final class VhostUserSession {
  /// VHOST_USER_VRING_NOFD_MASK.
  private static let noDescriptor: UInt64 = 0x100
  private static let headerSize = 12
  /// Larger than any message that can be asked of us (a full memory table has 264 bytes).
  private static let mostPayload = 1024

  let fd: Int32
  private(set) var memory: GuestMemory?
  /// Device to driver, driver to device; nothing is ever sent on the event queue.
  var receiveQueue = Virtqueue()
  var transmitQueue = Virtqueue()
  private var eventQueue = Virtqueue()
  /// A queue was stopped since this was last set to false: every stream has ended.
  var wasStopped = false

  private let epoll: Int32
  private let guestCID: UInt32
  private var features: UInt64 = 0
  private var input = [UInt8](repeating: 0, count: VhostUserSession.headerSize + VhostUserSession.mostPayload)
  private var have = 0
  private var descriptors: [Int32] = []

  var isRunning: Bool { receiveQueue.isRunning && transmitQueue.isRunning }

  /// Owns `fd` from now on.
  init(fd: Int32, epoll: Int32, guestCID: UInt32) {
    self.fd = fd
    self.epoll = epoll
    self.guestCID = guestCID
  }

  deinit {
    closeDescriptors()
    for index in 0..<3 { stopQueue(index) }
    _ = clinux_vhost_epoll_control(epoll, EPOLL_CTL_DEL, fd, 0, 0)
    _ = clinux_vhost_close(fd)
  }

  /// Reads and answers what has arrived. False where the monitor has gone.
  func receive() throws(VhostVsockError) -> Bool {
    for _ in 0..<64 {
      let size = have < Self.headerSize ? 0 : Int(payloadSize)
      guard size <= Self.mostPayload else { throw .frontEnd("a message of \(size) bytes") }
      let wanted = (have < Self.headerSize ? Self.headerSize : Self.headerSize + size) - have
      if wanted > 0 {
        var found: [Int32] = Array(repeating: -1, count: 16)
        var count: Int32 = 0
        let offset = have
        let result = input.withUnsafeMutableBytes { bytes in
          found.withUnsafeMutableBufferPointer { list in
            clinux_receive_with_descriptors(
              fd, bytes.baseAddress.map { $0 + offset }, wanted, list.baseAddress, Int32(list.count), &count)
          }
        }
        descriptors += found.prefix(Int(max(0, count)))
        if result == -Int(EAGAIN) { return true }
        if result == -Int(EMSGSIZE) || descriptors.count > 16 { throw .frontEnd("a message with too many descriptors") }
        guard result > 0 else { return false }
        have += result
      }
      guard have >= Self.headerSize, have == Self.headerSize + Int(payloadSize) else { continue }
      let outcome = try handle()
      have = 0
      closeDescriptors()
      guard outcome else { return false }
    }
    return true
  }

  // MARK: - Messages

  private var payloadSize: UInt32 { input.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: UInt32.self) } }

  /// A field of the payload. Offsets are constants below `mostPayload`; `need` has checked that it was sent.
  private func u32(_ offset: Int) -> UInt32 {
    input.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: Self.headerSize + offset, as: UInt32.self) }
  }
  private func u64(_ offset: Int) -> UInt64 {
    input.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: Self.headerSize + offset, as: UInt64.self) }
  }

  private func need(_ size: Int, _ request: UInt32) throws(VhostVsockError) {
    guard Int(payloadSize) >= size else {
      throw .frontEnd("request \(request) with \(payloadSize) bytes instead of \(size)")
    }
  }

  /// False where the answer could not be given because the monitor has gone.
  private func handle() throws(VhostVsockError) -> Bool {
    let (request, flags) = input.withUnsafeBytes {
      ($0.loadUnaligned(fromByteOffset: 0, as: UInt32.self), $0.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    }
    guard flags & 3 == 1 else { throw .frontEnd("a message of version \(flags & 3); version 1 is the one there is") }
    switch request {
    case Request.getFeatures:
      return reply(request, Feature.offered)
    case Request.setFeatures:
      try need(8, request)
      guard u64(0) & ~Feature.offered == 0 else { throw .frontEnd("features \(hex(u64(0))) that were not offered") }
      features = u64(0)
      for index in 0..<3 {
        try withQueue(UInt32(index), request) { (queue) throws(VhostVsockError) in
          queue.usesEventIndex = features & Feature.eventIndex != 0
        }
      }
    case Request.setOwner, Request.resetOwner, Request.setConfiguration:
      break
    case Request.setProtocolFeatures:
      try need(8, request)
    case Request.setMemoryTable:
      try setMemoryTable(request)
    case Request.setRingSize:
      try need(8, request)
      let count = u32(4)
      try withQueue(u32(0), request) { (queue) throws(VhostVsockError) in try queue.setSize(count) }
    case Request.setRingAddresses:
      try need(40, request)
      let (table, used, available) = (u64(8), u64(16), u64(24))
      let memory = self.memory
      try withQueue(u32(0), request) { (queue) throws(VhostVsockError) in
        try queue.setAddresses(descriptors: table, available: available, used: used, in: memory)
      }
    case Request.setRingBase:
      try need(8, request)
      guard let base = UInt16(exactly: u32(4)) else { throw .frontEnd("a ring base of \(u32(4))") }
      try withQueue(u32(0), request) { (queue) throws(VhostVsockError) in queue.next = base }
    case Request.getRingBase:
      try need(8, request)
      let index = u32(0)
      var base: UInt16 = 0
      try withQueue(index, request) { (queue) throws(VhostVsockError) in base = queue.next }
      stopQueue(Int(index))
      wasStopped = true
      return reply(request, UInt64(index) | UInt64(base) << 32)
    case Request.setRingKick, Request.setRingCall, Request.setRingError:
      try need(8, request)
      try setEventDescriptor(request)
    case Request.setRingEnable:
      try need(8, request)
      let enabled = u32(4) != 0
      try withQueue(u32(0), request) { (queue) throws(VhostVsockError) in queue.enabled = enabled }
    case Request.getProtocolFeatures:
      return reply(request, ProtocolFeature.offered)
    case Request.getQueueCount:
      return reply(request, 2)
    case Request.getConfiguration:
      return try replyConfiguration(request)
    default:
      throw .frontEnd("request \(request), which goes with no feature that was offered")
    }
    // VHOST_USER_NEED_REPLY_MASK.
    return flags & 8 == 0 || reply(request, UInt64(0))
  }

  private func setMemoryTable(_ request: UInt32) throws(VhostVsockError) {
    try need(8, request)
    let count = Int(u32(0))
    guard count <= GuestMemory.mostRegions else {
      throw .frontEnd("\(count) memory regions; at most \(GuestMemory.mostRegions) are possible")
    }
    try need(8 + 32 * count, request)
    guard descriptors.count == count else {
      throw .frontEnd("\(count) memory regions with \(descriptors.count) descriptors")
    }
    var regions: [(GuestMemory.Region, Int32)] = []
    for index in 0..<count {
      let at = 8 + 32 * index
      let region = GuestMemory.Region(
        guestAddress: u64(at), size: u64(at + 8), userAddress: u64(at + 16), fileOffset: u64(at + 24))
      regions.append((region, descriptors[index]))
    }
    let table = try GuestMemory(regions)
    // The rings may lie elsewhere now; those that are in no region any more stop running.
    try receiveQueue.map(in: table, required: false)
    try transmitQueue.map(in: table, required: false)
    try eventQueue.map(in: table, required: false)
    memory = table
  }

  private func setEventDescriptor(_ request: UInt32) throws(VhostVsockError) {
    let value = u64(0)
    let index = UInt32(truncatingIfNeeded: value & 0xff)
    var descriptor: Int32 = -1
    if value & Self.noDescriptor == 0 {
      guard descriptors.count == 1 else { throw .frontEnd("request \(request) with \(descriptors.count) descriptors") }
      descriptor = descriptors.removeLast()
    }
    if request == Request.setRingKick, descriptor < 0 { throw .frontEnd("a ring to be polled, which is not possible") }
    if descriptor >= 0, clinux_set_nonblocking(descriptor, true) < 0 { descriptor = -1 }
    let enabled = features & Feature.protocolFeatures == 0
    let epoll = self.epoll
    var failure: Int32 = 0
    var taken = false
    defer { if !taken, descriptor >= 0 { _ = clinux_vhost_close(descriptor) } }
    try withQueue(index, request) { (queue) throws(VhostVsockError) in
      switch request {
      case Request.setRingKick:
        Self.closeKick(&queue, epoll)
        // Without protocol features there is no SET_VRING_ENABLE, and a ring runs as soon as it can be kicked.
        if enabled { queue.enabled = true }
        // Nobody reads the event queue, so its kicks are not waited for either.
        if index < 2 {
          let token = index == 0 ? EventToken.receiveKick : EventToken.transmitKick
          failure = clinux_vhost_epoll_control(epoll, EPOLL_CTL_ADD, descriptor, EPOLLIN.rawValue, token)
        }
        if failure == 0 {
          queue.kick = descriptor
          taken = true
        }
      case Request.setRingCall:
        if queue.call >= 0 { _ = clinux_vhost_close(queue.call) }
        queue.call = descriptor
        taken = true
      default: break
      }
    }
    if failure < 0 { throw .system(SystemError("epoll_ctl", "a ring's kick descriptor", errno: -failure)) }
  }

  private func replyConfiguration(_ request: UInt32) throws(VhostVsockError) -> Bool {
    try need(12, request)
    let (offset, size) = (Int(u32(0)), Int(u32(4)))
    guard offset <= 256, size <= 256 - offset else {
      throw .frontEnd("\(size) bytes of configuration at \(offset); there are 256")
    }
    // struct virtio_vsock_config { le64 guest_cid; }
    var space = [UInt8](repeating: 0, count: 256)
    space.withUnsafeMutableBytes { $0.storeBytes(of: UInt64(guestCID).littleEndian, as: UInt64.self) }
    var payload = Array(input[Self.headerSize..<Self.headerSize + 12])
    payload += space[offset..<offset + size]
    return reply(request, payload)
  }

  private func reply(_ request: UInt32, _ value: UInt64) -> Bool {
    withUnsafeBytes(of: value) { reply(request, Array($0)) }
  }

  private func reply(_ request: UInt32, _ payload: [UInt8]) -> Bool {
    var message: [UInt8] = []
    // VHOST_USER_REPLY_MASK and version 1.
    for word in [request, 5, UInt32(payload.count)] { withUnsafeBytes(of: word) { message += $0 } }
    message += payload
    return message.withUnsafeBytes { clinux_send(fd, $0.baseAddress, $0.count, 0) } == message.count
  }

  // MARK: - Queues

  private func withQueue(
    _ index: UInt32, _ request: UInt32, _ body: (inout Virtqueue) throws(VhostVsockError) -> Void
  ) throws(VhostVsockError) {
    switch index {
    case 0: try body(&receiveQueue)
    case 1: try body(&transmitQueue)
    case 2: try body(&eventQueue)
    default: throw .frontEnd("request \(request) for queue \(index); a vsock device has queues 0 to 2")
    }
  }

  private func stopQueue(_ index: Int) {
    try? withQueue(UInt32(truncatingIfNeeded: index), 0) { (queue) throws(VhostVsockError) in
      Self.closeKick(&queue, epoll)
      queue.stop()
    }
  }

  /// Out of epoll first: the monitor has the same open file, so closing our descriptor alone would leave it watched.
  private static func closeKick(_ queue: inout Virtqueue, _ epoll: Int32) {
    guard queue.kick >= 0 else { return }
    _ = clinux_vhost_epoll_control(epoll, EPOLL_CTL_DEL, queue.kick, 0, 0)
    _ = clinux_vhost_close(queue.kick)
    queue.kick = -1
  }

  private func closeDescriptors() {
    for descriptor in descriptors { _ = clinux_vhost_close(descriptor) }
    descriptors = []
  }
}
