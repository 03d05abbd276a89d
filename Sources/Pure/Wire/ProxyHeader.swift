import Inet

// The PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): what stands before a connection's
// bytes to say who the client is.

/// The version that is spoken to a program.
public enum ProxyProtocol: UInt8, Sendable, CaseIterable {
  case v1 = 1
  case v2 = 2

  /// Of `ingress.ports`: "v1", "v2".
  public init?(_ text: String) {
    switch text {
    case "v1": self = .v1
    case "v2": self = .v2
    default: return nil
    }
  }
}

public enum ProxyHeader {
  /// What stands at a connection's beginning.
  public enum Reading: Equatable, Sendable {
    /// - source: nil where the sender has no client to name: it speaks for itself, or cannot tell.
    case header(source: IPEndpoint?, length: Int)
    /// More must come.
    case incomplete
    /// Completes "a header that ".
    case malformed(String)
  }

  /// Of version 1, with CR LF (section 2.1).
  static let textLimit = 107
  /// Of version 2 with its TLVs, in bytes: what a sender may add is bounded here and not there.
  public static let limit = 4096

  private static let signature: [UInt8] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
  private static let word = Array("PROXY ".utf8)

  /// Total: any bytes give one of the three.
  public static func read(_ bytes: [UInt8]) -> Reading {
    if bytes.starts(with: word) { return readText(bytes) }
    if bytes.starts(with: signature) { return readBinary(bytes) }
    if word.starts(with: bytes) || signature.starts(with: bytes) { return .incomplete }
    return .malformed("begins like none")
  }

  private static func readText(_ bytes: [UInt8]) -> Reading {
    guard let end = bytes.prefix(textLimit).firstIndex(of: 0x0a) else {
      return bytes.count < textLimit ? .incomplete : .malformed("is longer than \(textLimit) bytes")
    }
    guard bytes[end - 1] == 0x0d else { return .malformed("has a line that does not end with CR LF") }
    let line = bytes[word.count..<max(word.count, end - 1)]
    let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self)
    }
    if parts.first == "UNKNOWN" { return .header(source: nil, length: end + 1) }
    guard parts.count == 5, parts[0] == "TCP4" || parts[0] == "TCP6" else {
      return .malformed("has another form than TCP4 or TCP6, two addresses and two ports")
    }
    let length = parts[0] == "TCP4" ? 32 : 128
    guard let source = IPAddress(parts[1]), let destination = IPAddress(parts[2]), source.bitCount == length,
      destination.bitCount == length, let port = Self.port(parts[3]), Self.port(parts[4]) != nil
    else { return .malformed("has something that is no address or no port") }
    return .header(source: IPEndpoint(source.unmapped, port), length: end + 1)
  }

  /// Without leading zeros (section 2.1).
  private static func port(_ text: String) -> UInt16? {
    text.count > 1 && text.hasPrefix("0") ? nil : decimalPort(text)
  }

  private static func readBinary(_ bytes: [UInt8]) -> Reading {
    let head = signature.count + 4
    guard bytes.count >= head else { return .incomplete }
    let (command, family) = (bytes[12], bytes[13])
    let length = head + (Int(bytes[14]) << 8 | Int(bytes[15]))
    guard command >> 4 == 2 else { return .malformed("is of version \(command >> 4)") }
    guard length <= limit else { return .malformed("is longer than \(limit) bytes") }
    guard command & 15 <= 1 else { return .malformed("has the command \(command & 15)") }
    guard bytes.count >= length else { return .incomplete }
    // LOCAL: the sender's own connection, whatever follows. Families other than TCP's name no client that we know.
    let size: Int
    switch (command & 15, family) {
    case (1, 0x11): size = 4
    case (1, 0x21): size = 16
    default: return .header(source: nil, length: length)
    }
    guard length >= head + 2 * size + 4, let source = IPAddress(bytes: bytes[head..<head + size]) else {
      return .malformed("is too short for its addresses")
    }
    let port = UInt16(bytes[head + 2 * size]) << 8 | UInt16(bytes[head + 2 * size + 1])
    return .header(source: IPEndpoint(source.unmapped, port), length: length)
  }

  /// - Parameters:
  ///   - source: nil where the client is not known.
  ///   - port: where the connection goes: that port of the loopback.
  public static func encode(_ version: ProxyProtocol, source: IPEndpoint?, port: UInt16) -> [UInt8] {
    guard let source else {
      return version == .v1 ? word + Array("UNKNOWN\r\n".utf8) : signature + [0x20, 0, 0, 0]
    }
    let from = source.address.unmapped
    let isFour = from.bitCount == 32
    let to: IPAddress = isFour ? .v4(.loopback) : .v6(.loopback)
    switch version {
    case .v1:
      return word + Array("\(isFour ? "TCP4" : "TCP6") \(from) \(to) \(source.port) \(port)\r\n".utf8)
    case .v2:
      var bytes = signature + [0x21, isFour ? 0x11 : 0x21]
      bytes.append(integer: UInt16(isFour ? 12 : 36))
      bytes += from.bytes + to.bytes
      bytes.append(integer: source.port)
      bytes.append(integer: port)
      return bytes
    }
  }
}
