import CYaml
import Inet

/// The allowlist of AWS's vsock-proxy (`/etc/nitro_enclaves/vsock-proxy.yaml`): a YAML mapping whose key `allowlist` is a
/// sequence of mappings with `address`, a name or an address, and `port`. Other keys beside these are passed over, as it does.
public struct Allowlist: Equatable, Sendable {
  public struct Service: Equatable, Sendable, CustomStringConvertible {
    public var host: ForwardHost
    public var port: UInt16

    public init(_ host: ForwardHost, _ port: UInt16) {
      self.host = host
      self.port = port
    }

    public var description: String { "\(host.bracketed):\(port)" }
  }

  public struct Mistake: Error, Equatable, Sendable, CustomStringConvertible {
    /// From 1.
    public var line: Int
    public var problem: String

    public var description: String { "\(line): \(problem)" }
  }

  public var services: [Service] = []

  public func allows(_ service: Service) -> Bool { services.contains(service) }

  public init(yaml text: String) throws(Mistake) {
    guard case .mapping(let entries, let line) = try Node(yaml: text) else {
      throw Mistake(line: 1, problem: "expected a mapping with the key \"allowlist\"")
    }
    guard let list = try Self.value("allowlist", entries) else {
      throw Mistake(line: line, problem: "expected the key \"allowlist\"")
    }
    // A key without a value: a list with nothing in it.
    if case .scalar(let text, false, _) = list, text.isEmpty || text == "~" || text == "null" { return }
    guard case .sequence(let elements, _) = list else {
      throw Mistake(line: list.line, problem: "allowlist: expected a sequence of entries with \"address\" and \"port\"")
    }
    for element in elements { services.append(try Self.service(element)) }
  }

  private static func service(_ node: Node) throws(Mistake) -> Service {
    guard case .mapping(let entries, let line) = node else {
      throw Mistake(line: node.line, problem: "expected an entry with \"address\" and \"port\"")
    }
    guard case .scalar(let address, _, let place)? = try value("address", entries) else {
      throw Mistake(line: line, problem: "expected \"address\" with a name or an address")
    }
    guard let host = ForwardHost(address) else {
      throw Mistake(line: place, problem: "address: found \"\(address)\", expected a name or an address")
    }
    guard case .scalar(let text, false, let number)? = try value("port", entries) else {
      throw Mistake(line: line, problem: "expected \"port\" with a number")
    }
    guard let port = decimalPort(text), port > 0 else {
      throw Mistake(line: number, problem: "port: found \"\(text)\", expected a number from 1 to 65535")
    }
    return Service(host, port)
  }

  private static func value(_ key: String, _ entries: [(key: Node, value: Node)]) throws(Mistake) -> Node? {
    var found: Node?
    for entry in entries {
      guard case .scalar(key, _, let line) = entry.key else { continue }
      guard found == nil else { throw Mistake(line: line, problem: "found \"\(key)\" twice") }
      found = entry.value
    }
    return found
  }
}

/// A document as a tree.
private indirect enum Node {
  case scalar(String, quoted: Bool, line: Int)
  case sequence([Node], line: Int)
  case mapping([(key: Node, value: Node)], line: Int)

  var line: Int {
    switch self {
    case .scalar(_, _, let line), .sequence(_, let line), .mapping(_, let line): line
    }
  }

  /// A tree that is deeper is no list of services.
  private static let depthLimit = 16

  /// What has been read and not ended yet.
  private struct Builder {
    var open: [(isMapping: Bool, nodes: [Node], line: Int)] = []
    var root: Node?
    var documents = 0
    var mistake: Allowlist.Mistake?

    mutating func take(_ event: cyaml_event, _ text: String, _ line: Int) {
      switch event {
      case CYAML_DOCUMENT:
        documents += 1
        if documents > 1 { mistake = .init(line: line, problem: "found a second document, expected one") }
      case CYAML_SCALAR: add(.scalar(text, quoted: false, line: line))
      case CYAML_QUOTED: add(.scalar(text, quoted: true, line: line))
      case CYAML_SEQUENCE, CYAML_MAPPING:
        guard open.count < Node.depthLimit else {
          return mistake = .init(line: line, problem: "found more than \(Node.depthLimit) levels")
        }
        open.append((event == CYAML_MAPPING, [], line))
      case CYAML_END:
        guard let last = open.popLast() else { return }
        guard last.isMapping else { return add(.sequence(last.nodes, line: last.line)) }
        var entries: [(key: Node, value: Node)] = []
        for index in stride(from: 0, to: last.nodes.count - 1, by: 2) {
          entries.append((last.nodes[index], last.nodes[index + 1]))
        }
        add(.mapping(entries, line: last.line))
      default: mistake = .init(line: line, problem: "found an alias, expected what it stands for")
      }
    }

    private mutating func add(_ node: Node) {
      if open.isEmpty { root = node } else { open[open.count - 1].nodes.append(node) }
    }
  }

  init(yaml text: String) throws(Allowlist.Mistake) {
    var builder = Builder()
    var problem = cyaml_error()
    var text = text
    let result = text.withUTF8 { bytes in
      withUnsafeMutablePointer(to: &builder) { place in
        bytes.withMemoryRebound(to: CChar.self) { characters in
          cyaml_parse(
            characters.baseAddress, characters.count, place,
            { context, event, text, length, line in
              guard let builder = context?.assumingMemoryBound(to: Builder.self) else { return 0 }
              let bytes = UnsafeRawBufferPointer(start: text, count: length)
              builder.pointee.take(event, String(decoding: bytes, as: UTF8.self), Int(line))
              return builder.pointee.mistake == nil ? 1 : 0
            }, &problem)
        }
      }
    }
    if let mistake = builder.mistake { throw mistake }
    guard result == 0 else {
      let reason = withUnsafeBytes(of: problem.problem) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      throw Allowlist.Mistake(line: Int(problem.line), problem: "not YAML: \(reason)")
    }
    guard let root = builder.root else { throw Allowlist.Mistake(line: 1, problem: "found nothing") }
    self = root
  }
}
