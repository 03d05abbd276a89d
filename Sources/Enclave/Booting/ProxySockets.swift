import BootPlanning
import CLinux
import Inet
import LinuxSystem
import Netlink
import Policy
import Proxying

/// What the proxy and its keeper of verdicts are handed, opened while PID 1 still has every right.
public struct ProxySockets {
  public private(set) var descriptors = ProxyDescriptors<FileReference>()
  /// The keeper's pipe, then the queues' sockets; empty where there is no keeper.
  public private(set) var keeper: [FileReference] = []
  private var linkPlan: PacketLinkPlan?

  init() {}

  /// Where redirected connections and queries arrive, on both loopbacks.
  mutating func listen(egress: UInt16, dns: UInt16) throws(SystemError) {
    try Self.onLoopbacks { address throws(SystemError) in
      descriptors.egressListeners.append(FileReference(try listenStream(.ip(IPEndpoint(address, egress)))))
    }
    try listen(dns: dns)
  }

  /// Where redirected queries arrive, on both loopbacks.
  mutating func listen(dns: UInt16) throws(SystemError) {
    try Self.onLoopbacks { address throws(SystemError) in
      let listener = FileReference(try listenStream(.ip(IPEndpoint(address, dns))))
      descriptors.dnsSockets.append(FileReference(try bindDatagram(IPEndpoint(address, dns))))
      descriptors.dnsListeners.append(listener)
    }
  }

  private static func onLoopbacks(_ open: (IPAddress) throws(SystemError) -> Void) throws(SystemError) {
    for address in [IPAddress.v4(.loopback), .v6(.loopback)] {
      do throws(SystemError) {
        try open(address)
      } catch  where address != .v4(.loopback) && (error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL) {
        // A kernel without IPv6.
      }
    }
  }

  /// The enclave's one port.
  mutating func listen(at listener: HostListener) throws(SystemError) {
    descriptors.transportListener = try Self.open(listener)
  }

  /// One for each forward, in their order.
  mutating func listen(for forward: StaticForward, at listener: HostListener?) throws(SystemError) {
    switch (forward.way, listener) {
    case (.out(let address), _): descriptors.forwardListeners.append(FileReference(try listenStream(.ip(address))))
    case (.incoming, let listener?): descriptors.forwardListeners.append(try Self.open(listener))
    case (.incoming, nil): throw SystemError("listen", "\(forward)", errno: EINVAL)
    }
  }

  private static func open(_ listener: HostListener) throws(SystemError) -> FileReference {
    switch listener {
    case .vsock(let port): return FileReference(try takeOverStream(.vsock(cid: .max, port: port)))
    case .unix(let path):
      let made = FileReference(try takeOverStream(.unix(path)))
      try changeMode(path, 0o660)
      return made
    }
  }

  /// The queues of the enclave's TUN device, which an earlier step has made.
  mutating func openTunnel(_ queues: Int) throws(SystemError) {
    for _ in 0..<queues { descriptors.tunnelQueues.append(try TunQueue(TunnelPlan.link).file) }
  }

  /// The interface of TCP mode; nil where there is none.
  mutating func hold(link: FileReference?, _ plan: PacketLinkPlan) {
    descriptors.packetLink = link
    linkPlan = plan
  }

  /// Where connections arrive that the host has made, on the interface's own addresses.
  /// - Returns: whether there is that interface.
  mutating func listenOnLink(_ port: UInt16) throws(SystemError) -> Bool {
    guard descriptors.packetLink != nil, let link = linkPlan else { return false }
    for address in [link.address.address, link.address6.address] {
      do throws(SystemError) {
        descriptors.linkListeners.append(FileReference(try listenStream(.ip(IPEndpoint(address, port)))))
      } catch  where address == link.address6.address && (error.errno == EAFNOSUPPORT || error.errno == EADDRNOTAVAIL) {
        // A kernel without IPv6.
      }
    }
    return true
  }

  /// Sockets of packet queues, and the pipe to the keeper of verdicts.
  mutating func openCapture(_ queues: Int) throws {
    let (reading, writing) = try makePipe()
    descriptors.verdictPipe = writing
    keeper = [reading]
    for index in 0..<queues {
      var numbers = [
        CaptureSocket.Queue(
          TunnelPlan.firstQueue &+ 1 &+ UInt16(clamping: index), takesSuperPackets: true)
      ]
      if index == 0 { numbers.append(.init(TunnelPlan.firstQueue, takesSuperPackets: false)) }
      let socket = try CaptureSocket.open(numbers)
      descriptors.captureSockets.append(socket)
      keeper.append(socket)
    }
  }

  /// The proxy's end of the pair to the DNS client.
  mutating func join(_ client: DNSClientFiles?) { descriptors.upstreamLink = client?.proxyEnd }

  mutating func listenAsNameServer() throws(SystemError) {
    let address = IPAddress.v4(AgreedAddresses.nameServer)
    descriptors.dnsSockets.append(FileReference(try bindDatagram(IPEndpoint(address, 53))))
    descriptors.dnsListeners.append(FileReference(try listenStream(.ip(IPEndpoint(address, 53)))))
  }
}
