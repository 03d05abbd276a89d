import EventLoop
import HostNetwork
import Inet
import LinuxSystem
import Relaying
import Wire

/// Packet streams of raw mode. An enclave that was not asked to be in raw mode has no way into the host's network.
final class PacketsServer: ChannelServer {
  private let loop: EventLoop
  private let rawGateway: (any RawGateway)?
  private let resolver: Resolver
  private let budget: Budget
  private let complaints: ComplaintLog
  private let log: (String) -> Void
  private var linkNameServer: LinkNameServer?

  /// - Parameter rawGateway: raw mode's way into the network; nil without raw mode.
  init(
    loop: EventLoop, rawGateway: (any RawGateway)?, resolver: Resolver, budget: Budget, complaints: ComplaintLog,
    log: @escaping (String) -> Void
  ) {
    self.loop = loop
    self.rawGateway = rawGateway
    self.resolver = resolver
    self.budget = budget
    self.complaints = complaints
    self.log = log
  }

  func serve(_ admitted: AdmittedStream) throws {
    let request = try PacketsRequest(parameters: admitted.hello.parameters)
    guard let rawGateway else {
      complaints.say(
        .refusedRequests, "the enclave is in raw mode, and its host side was not started so (--raw; --mode raw of run)")
      return admitted.answer(.unsupported)
    }
    guard admitted.early.isEmpty else { throw WireError.trailingBytes(admitted.early.count) }
    try rawGateway.configure(request)
    if linkNameServer == nil, let sockets = rawGateway.nameServerSockets {
      linkNameServer = try LinkNameServer(
        loop: loop, resolver: resolver, budget: budget, sockets.datagram, sockets.stream, report: log)
    }
    try rawGateway.serve(admitted.stream, request) { admitted.answer(.ok, parameters: $0.parameters) }
  }
}

/// An enclave asks for what the host gives it before it opens anything else: its addresses, its program's arguments and
/// variables.
final class ControlServer: ChannelServer {
  private let rawGateway: (any RawGateway)?
  private let given: [UInt8]
  private let complaints: ComplaintLog

  init(rawGateway: (any RawGateway)?, given: RuntimeParameters, complaints: ComplaintLog) {
    self.rawGateway = rawGateway
    self.given = given.encoded
    self.complaints = complaints
  }

  func serve(_ admitted: AdmittedStream) throws {
    if let request = try RuntimeRequest(parameters: admitted.hello.parameters) {
      return admitted.answer(.ok, parameters: request.answer(given))
    }
    guard let request = try AddressRequest(parameters: admitted.hello.parameters) else {
      return admitted.answer(.unsupported)
    }
    guard let rawGateway else {
      complaints.say(
        .refusedRequests,
        "the enclave asks for an address, and its host side was not started for raw mode (--raw; --mode raw of run)")
      return admitted.answer(.unsupported)
    }
    let given = try rawGateway.assign(request)
    complaints.say(
      .givenAddresses,
      "the enclave is given \([given.address4, given.address6].compactMap { $0?.description }.joined(separator: ", "))")
    admitted.answer(.ok, parameters: given.parameters)
  }
}
