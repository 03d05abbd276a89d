import CLinux
import EventLoop
import Flows
import Inet
import LinuxSystem
import NameService
import PacketRelaying
import Packets
import Policy
import Relaying
import Wire

/// Raw mode inside the enclave: a thread, a loop and a stream to the host for each queue of the TUN device.
final class EnclavePackets {
  /// How long the program's start may wait for the host.
  private static let readinessLimit: Duration = .seconds(5)

  private var workers: [PacketWorker] = []
  private let readiness: (reading: FileReference, writing: FileReference)
  private var announcement: Announcement?

  init(_ plan: ProxyPlan, _ names: Locked<NameService>) throws(SystemError) {
    readiness = try makePipe()
    try readiness.reading.descriptor.setNonblocking()
    let v4 = plan.settings.tunnelAddresses.first { if case .v4 = $0.address { true } else { false } }
    let v6 = plan.settings.tunnelAddresses.first { if case .v6 = $0.address { true } else { false } }
    let packetGuard = PacketGuard(.enclave, v4, v6, ports: plan.settings.ingressPorts)
    let outgoing = DestinationGuard(Self.destinations(plan))
    // What is used can be told of flows alone.
    let needsFlows = plan.settings.egress.needsFlows(plan.settings.sni) || plan.settings.reportsUse
    let flows = needsFlows ? Self.flows(plan, names) : nil
    let verdicts = plan.descriptors.verdictPipe.map { FileReference(OwnedFileDescriptor($0)) }
    let segments = SegmentSizes(mtu: Int(plan.settings.tunnelMTU))
    for (index, fd) in plan.descriptors.tunnelQueues.enumerated() {
      let tun = FileReference(OwnedFileDescriptor(fd))
      let capture =
        plan.descriptors.captureSockets.indices.contains(index)
        ? FileReference(OwnedFileDescriptor(plan.descriptors.captureSockets[index])) : nil
      // What our kernel can take from the host; it is asked before the answer says what the host can.
      let features = try setTunOffload(fd, .all)
      let request = PacketsRequest(
        queue: UInt8(clamping: index), queues: UInt8(clamping: plan.descriptors.tunnelQueues.count),
        mtu: plan.settings.tunnelMTU,
        features: features.rawValue, address4: v4, address6: v6)
      workers.append(
        try PacketWorker {
          [target = plan.settings.hostTarget, token = plan.settings.proxyToken, ready = readiness.writing] (loop)
            throws(SystemError) in
          let connector = PacketConnector(
            loop: loop, target: target, token: token, request: request, tun: tun, log: say
          ) {
            _ = try? writeAll(ready.rawValue, [1])
          }
          try connector.start { lost throws(SystemError) in
            let device: any PacketDevice =
              if let capture, let verdicts {
                CaptureDevice(
                  capture: capture, socket: UInt8(clamping: index), tun: tun, verdicts: verdicts, segments: segments)
              } else {
                TunDevice(tun)
              }
            return try PacketQueue(
              loop: loop, device: device, packetGuard: packetGuard, outgoing: outgoing,
              gate: flows.map { FlowGate($0) },
              denied: { say("packets to \($0)") }, lost: lost)
          }
          return .init(stream: { _, _ in }, report: { connector.report() })
        } failed: {
          say("packets, queue \(index): \($0)")
        })
    }
  }

  /// With a link of its own the enclave asks the host's name server on it (`AgreedAddresses.nameServer`). Which ports of that
  /// address are open is the host's business.
  private static func destinations(_ plan: ProxyPlan) -> Destinations {
    var destinations = Destinations(plan.settings.egress)
    // Where the default is to deny, a name could carry anything to its server, so that a rule must say it.
    if plan.descriptors.captureSockets.isEmpty, destinations.rules.isOpen {
      destinations.allowed.append(DestinationRule(IPPrefix(.v4(AgreedAddresses.nameServer), clamping: 32)))
    }
    return destinations
  }

  private static func flows(_ plan: ProxyPlan, _ names: Locked<NameService>) -> SharedFlows {
    // As PID 1 has them turned to the proxy (Configuration.queriesReachProxy).
    let reachProxy = plan.settings.egress.needsNames(plan.settings.sni) || !plan.settings.names.upstreams.isEmpty
    return SharedFlows(
      FlowJudge(
        destinations(plan), sni: plan.settings.sni,
        queries: reachProxy ? .nobody : .anybody,
        published: plan.settings.ingressPorts, reportsUse: plan.settings.reportsUse), used: say
    ) { address in names.with { $0.names(of: address, now: monotonicNanoseconds() / 1_000_000_000) } }
  }

  func report() { for worker in workers { worker.report() } }

  func announceReadiness(on pipe: FileReference, loop: EventLoop) {
    let made = Announcement(pipe, readiness.reading, loop, queues: workers.count)
    announcement = made
    made.start(limit: Self.readinessLimit)
  }
}

/// One write(2) of a line, so that the lines of several threads do not mix.
private func say(_ sentence: String) { _ = try? writeAll(2, Array("\(sentence)\n".utf8)) }

/// Writes a byte when every queue has written its own, or when that takes too long: what the program sends through a queue
/// without a stream would be lost.
private final class Announcement: EventSource {
  private var pipe: FileReference?
  private let queues: FileReference
  private let loop: EventLoop
  private var registration: Registration?
  private var missing: Int

  init(_ pipe: FileReference, _ queues: FileReference, _ loop: EventLoop, queues count: Int) {
    missing = count
    self.pipe = pipe
    self.queues = queues
    self.loop = loop
  }

  func start(limit: Duration) {
    registration = try? loop.add(queues.rawValue, [.readable], self)
    loop.schedule(after: limit, self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    var byte: UInt8 = 0
    while missing > 0, case .bytes = withUnsafeMutableBytes(of: &byte, { readBytes(queues.rawValue, $0) }) {
      missing -= 1
    }
    if missing == 0 { announce() }
  }

  override func timerFired(_ key: Int) { announce() }

  private func announce() {
    if let registration { loop.remove(registration) }
    registration = nil
    if let pipe { _ = try? writeAll(pipe.rawValue, [1], "readiness pipe") }
    pipe = nil
  }
}

extension PacketGuard {
  init(_ side: Side, _ v4: IPPrefix?, _ v6: IPPrefix?, ports: [UInt16]?) {
    var four: IPv4Address?
    var six: IPv6Address?
    if case .v4(let address) = v4?.address { four = address }
    if case .v6(let address) = v6?.address { six = address }
    self.init(side, address4: four, address6: six, ports: ports)
  }
}
