import EventLoop
import Inet
import LinuxSystem
import Netlink
import Policy
import Wire

/// The host's side of raw mode for one enclave, whichever way its packets get into the network: `HostTunnel`,
/// `SharedAddressGateway`.
public protocol RawGateway: AnyObject {
  /// The link that carries the enclave's packets.
  var link: String { get }
  /// Where names are asked for on that link, if it is the enclave's own and has been set up.
  var nameServerSockets: (datagram: FileReference, stream: FileReference)? { get }
  /// What the enclave asked for; nil before it has come.
  var currentShape: HostTunnel.Shape? { get }
  /// What the rules are made with; nil before there are any.
  var backend: PacketFilter? { get }

  func assign(_ request: AddressRequest) throws -> AddressAnswer
  func configure(_ request: PacketsRequest) throws
  func serve(_ stream: FileReference, _ request: PacketsRequest, answer: (PacketsAnswer) -> Void) throws
  /// Where the enclave may send packets.
  /// - Parameters:
  ///   - checksQUIC: the names that QUIC's clients ask for are judged as well.
  ///   - names: for which an address was the answer; called in any thread.
  func change(
    _ destinations: Destinations, checksQUIC: Bool, names: @escaping @Sendable (IPAddress) -> [DomainName])
  func report()
  func count(in loop: EventLoop, _ completion: @escaping ([QueueCount]) -> Void)
  /// For a process that gives up its rights and has one thread: what does elsewhere what needs them.
  func handOver() throws -> PrivilegedPart
  func close()
}

extension HostTunnel: RawGateway {}
