import CLinux
import DNS
import Inet
import LinuxSystem
import LogText
import Policy

/// What an enclave has used, and what it was denied, as its log tells it (docs/policy.md, "A policy from a log").
struct SeenLog {
  /// More different ones are counted together.
  private static let limit = 100_000

  private(set) var used = BoundedCounts<Sighting.Subject>(limit: limit)
  private(set) var denied = BoundedCounts<Sighting.Subject>(limit: limit)
  /// What decided the last time.
  private var reasons: [Sighting.Subject: String] = [:]
  /// Addresses of flows for a name.
  private var addresses: Set<IPAddress> = []
  /// The form of the log: that of its first line which is none of the host side itself.
  private var form: LogFormat?

  /// Whether the program can have written any line of it.
  var canBeForged: Bool { form == .raw }

  /// - Parameter path: "-" for standard input.
  init(reading path: String) throws(SystemError) {
    let file = FileReference(try openFile(path == "-" ? "/dev/stdin" : path, O_RDONLY))
    var lines = LineAssembler()
    let origin = LineOrigin(time: 0, received: 0, sequence: 0)
    while true {
      let (result, bytes) = readChunk(file.rawValue, limit: 1 << 18)
      switch result {
      case .bytes(0):
        lines.flush { line, _ in take(line) }
        return
      case .bytes: bytes.withUnsafeBytes { lines.add($0, origin) { line, _ in take(line) } }
      case .wouldBlock: throw SystemError("read", path, errno: EAGAIN)
      case .failed(let errno): throw SystemError("read", path, errno: errno)
      }
    }
  }

  private mutating func take(_ bytes: UnsafeRawBufferPointer) {
    let line = String(decoding: bytes, as: UTF8.self)
    // The host side's own sentences stand between the lines where both go to one file.
    let own = "tombolo: "
    if line.hasPrefix(own) {
      if let sighting = Sighting(line.dropFirst(own.utf8.count)) { add(sighting) }
      return
    }
    let form = form ?? Self.form(of: line)
    self.form = form
    let logged =
      switch form {
      case .json: LoggedLine(json: line)
      case .text: LoggedLine(text: line)
      case .raw: LoggedLine(raw: line)
      }
    guard let logged, logged.isOfProxy, let sighting = Sighting(logged.line) else { return }
    add(sighting)
  }

  private static func form(of line: String) -> LogFormat {
    if LoggedLine(json: line) != nil { return .json }
    return LoggedLine(text: line) != nil ? .text : .raw
  }

  private mutating func add(_ sighting: Sighting) {
    if sighting.isAllowed { used.add(sighting.subject) } else { denied.add(sighting.subject) }
    denied.addOthers(sighting.more)
    if reasons.count < Self.limit { reasons[sighting.subject] = sighting.reason }
    if case .name = sighting.subject, let address = sighting.address, addresses.count < Self.limit {
      addresses.insert(address)
    }
  }

  /// A line for each destination, used ones first.
  var lines: [String] {
    func shown(_ word: String, _ counts: BoundedCounts<Sighting.Subject>, _ other: String) -> [String] {
      let named = counts.counts.sorted { $0.key.description < $1.key.description }.map { subject, count in
        "\(word) \(subject)\(count > 1 ? " (\(count) times)" : ""): \(reasons[subject] ?? "")"
      }
      return named + (counts.others > 0 ? ["\(word) \(counts.others) \(other)"] : [])
    }
    return shown("used", used, "more") + shown("denied", denied, "more, of which the log does not say what they were")
  }

  /// A policy that allows what was used, as TOML.
  /// - Parameter name: the log's.
  func suggestion(from name: String) -> String {
    let subjects = used.counts.keys
    var connected: Set<String> = []
    var reached = addresses
    for subject in subjects {
      switch subject {
      case .name(let name, _, _): connected.insert(name)
      case .address(let address, _, _): reached.insert(address)
      case .query: break
      }
    }
    var rules: [String: String] = [:]
    var unnamed: [String] = []
    for subject in subjects {
      var remark = ""
      var rule = subject.rule
      if case .query(let name) = subject {
        // Its rule for connections lets the name be asked for, and who may reach an address may ask for its name.
        if connected.contains(name) { continue }
        remark = "  # was asked for, and nothing connected to it"
        if let address = (try? DomainName(text: name))?.reverseAddress {
          if reached.contains(address) { continue }
          rule = Sighting.Subject.address(address, port: nil, .icmp).rule
        }
      }
      if let rule { rules["\(rule)"] = remark } else { unnamed.append("\(subject)") }
    }
    var text = "# What \(name) says was used.\n[egress]\ndefault = \"deny\"\nallow = [\n"
    for (rule, remark) in rules.sorted(by: { $0.key < $1.key }) { text += "  \"\(rule)\",\(remark)\n" }
    text += "]\n"
    for subject in unnamed.sorted() { text += "# No rule can name what was used as: \(subject)\n" }
    return text
  }
}
