import Inet
import Policy

/// Why a flow is refused, as a log line says it behind "packets to". Behind a reference, so that a verdict is two words.
public final class FlowDenial: Sendable, CustomStringConvertible {
  enum Reason: Sendable {
    case destination(Destinations.Denial)
    /// A whole sentence.
    case other(String)
  }

  private let destination: IPAddress
  private let port: UInt16
  private let transport: FlowTransport
  private let name: DomainName?
  private let reason: Reason

  /// - Parameter name: for which the flow is, or would be.
  init(destination: IPAddress, port: UInt16, transport: FlowTransport, name: DomainName?, reason: Reason) {
    self.destination = destination
    self.port = port
    self.transport = transport
    self.name = name
    self.reason = reason
  }

  /// The kernel's own multicast (IGMP, MLD, router solicitations) is nothing that anybody would want to read of.
  public var isWorthALine: Bool {
    if case .destination(let denial) = reason { !denial.rule.contains(.multicast) } else { true }
  }

  /// `10.9.0.2:8081 (TCP, ok.test) denied: no rule of egress.allow names it`
  public var description: String {
    let text = Self.shown(IPEndpoint(destination, port), transport, name)
    switch reason {
    case .destination(let denial): return text + " denied: \(denial)"
    case .other(let sentence): return text + " denied: " + sentence
    }
  }

  /// `10.9.0.2:8081 (TCP, ok.test)`
  public static func shown(_ endpoint: IPEndpoint, _ transport: FlowTransport, _ name: DomainName?) -> String {
    let text = transport.hasPorts ? "\(endpoint)" : "\(endpoint.address)"
    let kind = transport == .tcp ? "TCP" : transport == .udp ? "UDP" : ""
    let remark = name.map { kind.isEmpty ? "\($0)" : "\(kind), \($0)" } ?? kind
    return remark.isEmpty ? text : "\(text) (\(remark))"
  }
}

/// What becomes of a packet of the program.
public enum FlowVerdict: Sendable {
  /// It passes, and what is plain of its flow need not be asked about for a moment.
  case open
  case pass
  /// It passes behind these frames, which were held.
  case release([[UInt8]])
  /// It is lost without a word: it comes again, or nobody waits for an answer.
  case drop
  /// It is lost, and its sender told at once.
  case refuse(FlowDenial)
  /// The connection is reset at both ends.
  /// - sequence: what the other end waits for.
  case end(FlowDenial, sequence: UInt32)
}
