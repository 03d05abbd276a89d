import Policy

/// What PID 1 hands to the DNS client, the process that asks the servers of `dns.upstream`.
public struct UpstreamPlan: Equatable, Sendable {
  public var servers: [UpstreamServer]
  /// PEM; empty where no server has a certificate.
  public var certificates: [UInt8]
  /// The socket to the proxy.
  public var link: UInt32
  /// The pipe that gets one byte when it is ready.
  public var readiness: UInt32

  /// Of a bundle; distributions' have a quarter of a megabyte.
  public static let certificateLimit = 16 << 20
  private static let textLimit = 8192

  public init(servers: [UpstreamServer], certificates: [UInt8], link: UInt32, readiness: UInt32) {
    self.servers = servers
    self.certificates = certificates
    self.link = link
    self.readiness = readiness
  }

  public var document: [UInt8] {
    var writer = RoleWriter()
    writer.put("servers", text: UpstreamServer.text(servers))
    writer.put("certificates", certificates)
    writer.put("link", numbers: [link])
    writer.put("ready", numbers: [readiness])
    return writer.bytes
  }

  /// - Throws: a sentence that names the field.
  public init(document: [UInt8]) throws(RoleError) {
    var reader = try RoleReader(document, role: "dns")
    servers = try reader.servers("servers", limit: Self.textLimit)
    guard !servers.isEmpty else { throw RoleError("dns", "\"servers\" has none") }
    certificates = Array(try reader.take("certificates"))
    guard certificates.count <= Self.certificateLimit else {
      throw RoleError("dns", "\"certificates\" has \(certificates.count) bytes, expected at most 16 MiB")
    }
    // Behind the document's descriptor.
    link = try reader.number("link", in: 4...65535)
    readiness = try reader.number("ready", in: 4...65535)
    try reader.finish()
  }
}

extension RoleReader {
  /// - Parameter limit: in bytes of their text.
  public mutating func servers(_ name: String, limit: Int = 8192) throws(RoleError) -> [UpstreamServer] {
    let text = try text(name, limit: limit)
    do throws(UpstreamError) {
      let servers = try UpstreamServer.list(text)
      if let defect = UpstreamServer.defect(in: servers) { throw UpstreamError(reason: defect) }
      return servers
    } catch {
      throw RoleError(role, "\"\(name)\" has something that is no list of servers: \(error)")
    }
  }
}
