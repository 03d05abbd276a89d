import Inet
import Policy

extension Configuration {
  mutating func readMounts(_ reader: inout TableReader) throws(ConfigurationError) {
    var made: [MountSettings] = []
    var isThere = false
    try reader.tables("mount") { (table) throws(ConfigurationError) in
      isThere = true
      let mount = try MountSettings.read(&table)
      guard !made.contains(where: { $0.target == mount.target }) else {
        throw table.error("target", "found \"\(mount.target)\" a second time")
      }
      made.append(mount)
      guard made.count <= MountSettings.limit else {
        throw table.error("target", "found more than \(MountSettings.limit) mounts")
      }
    }
    guard isThere else { return }
    for mount in made {
      for path in mount.after where !made.contains(where: { $0.target == path }) {
        throw reader.error("mount", "\(mount.target): after has \"\(path)\", which is the target of no mount")
      }
    }
    let (order, cycle) = made.ordered()
    guard cycle.isEmpty else {
      throw reader.error("mount", "these wait for each other: " + cycle.map(\.target).joined(separator: ", "))
    }
    mounts = order
  }

  /// What of the mounts does not go together with the rest.
  var mountDefect: String? {
    for mount in mounts {
      guard case .nfs(let source) = mount.kind else { continue }
      guard networkMode != .none else {
        return "mount: \(mount.target) is of type \"nfs\", and with network.mode = \"none\" no server can be reached"
      }
      guard case .address(let address) = source.server else { continue }
      let server = "the server of \(mount.target), \(address) port \(mount.options.port)"
      switch Destinations(egress.rules).denial(of: address, port: mount.options.port)?.reason {
      case .rule(let rule)?: return "mount: \(server), is denied: egress.deny has it as \"\(rule)\""
      case .unnamed?: return "mount: \(server), is denied: no rule of egress.allow names it"
      case .builtIn?, nil: break
      }
    }
    return nil
  }
}
