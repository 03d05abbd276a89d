import BootPlanning
import CLinux
import EnclaveConfig
import Inet
import LinuxSystem
import Netlink
import Proxying
import Relaying

extension ProxySockets {
  /// The queues of the enclave's TUN device, which the boot plan has made, and with a shared address what captures.
  mutating func openTunnel(host: StreamTarget, _ configuration: Configuration) throws {
    var made = ProxyHandOver(Self.settings(host, configuration))
    let raw = configuration.raw
    made.settings.tunnelAddresses = [raw.address] + (raw.lacksIPv6 ? [] : [raw.address6])
    made.settings.tunnelMTU = UInt16(clamping: raw.mtu)
    let queues = raw.queueCount(processors: processorCount())
    for _ in 0..<queues { made.descriptors.tunnelQueues.append(try TunQueue(TunnelPlan.link).file) }
    if raw.capture == .nfqueue { try openCapture(queues, &made.descriptors) }
    handOver = made
  }

  /// Sockets of packet queues, the pipe to the keeper of verdicts, and the name server's sockets: there is no link of the
  /// host's on which it could answer.
  private mutating func openCapture(_ queues: Int, _ descriptors: inout ProxyDescriptors<FileHandle>) throws {
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
    let address = IPAddress.v4(AgreedAddresses.nameServer)
    descriptors.dnsSockets.append(FileHandle(try bindDatagram(IPEndpoint(address, 53))))
    descriptors.dnsListeners.append(FileHandle(try listenStream(.ip(IPEndpoint(address, 53)))))
  }
}
