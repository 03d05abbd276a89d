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
    var plan = ProxyPlan(hostTarget: host)
    plan.ingressPorts = configuration.ingressPorts
    plan.verbose = configuration.logs.level == .debug
    let raw = configuration.raw
    plan.tunnelAddresses = [raw.address] + (raw.lacksIPv6 ? [] : [raw.address6])
    plan.tunnelMTU = UInt16(clamping: raw.mtu)
    let queues = raw.queueCount(processors: processorCount())
    for _ in 0..<queues { plan.tunnelQueues.append(add(try TunQueue(TunnelPlan.link).file)) }
    if raw.capture == .nfqueue { try openCapture(queues, &plan) }
    self.plan = plan
  }

  /// Sockets of packet queues, the pipe to the keeper of verdicts, and the name server's sockets: there is no link of the
  /// host's on which it could answer.
  private mutating func openCapture(_ queues: Int, _ plan: inout ProxyPlan) throws {
    let (reading, writing) = try makePipe()
    plan.verdictPipe = add(writing)
    keeper = [reading]
    for index in 0..<queues {
      var numbers = [
        CaptureSocket.Queue(
          TunnelPlan.firstQueue &+ 1 &+ UInt16(clamping: index), takesSuperPackets: true)
      ]
      if index == 0 { numbers.append(.init(TunnelPlan.firstQueue, takesSuperPackets: false)) }
      let socket = try CaptureSocket.open(numbers)
      plan.captureSockets.append(add(socket))
      keeper.append(socket)
    }
    guard let address = IPAddress(EnclaveLayout.nameServer) else { return }
    plan.dnsSockets.append(add(FileHandle(try bindDatagram(IPEndpoint(address, 53)))))
    plan.dnsListeners.append(add(FileHandle(try listenStream(.ip(IPEndpoint(address, 53))))))
  }
}
