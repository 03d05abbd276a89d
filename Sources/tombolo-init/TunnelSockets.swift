import BootPlanning
import CLinux
import EnclaveConfig
import LinuxSystem
import Proxying
import Relaying

extension ProxySockets {
  /// The queues of the enclave's TUN device, which the boot plan has made.
  mutating func openTunnel(host: StreamTarget, _ configuration: Configuration) throws(SystemError) {
    var plan = ProxyPlan(hostTarget: host)
    plan.ingressPorts = configuration.ingressPorts
    plan.verbose = configuration.logs.level == .debug
    let raw = configuration.raw
    plan.tunnelAddresses = [raw.address, raw.address6]
    plan.tunnelMTU = UInt16(clamping: raw.mtu)
    for _ in 0..<raw.queueCount(processors: processorCount()) {
      plan.tunnelQueues.append(add(try TunQueue(TunnelPlan.link).file))
    }
    self.plan = plan
  }
}
