import CLinux
import EnclaveConfig
import LinuxSystem

/// Maps the ids of a new user namespace (user_namespaces(7)): all that this user may have, where newuidmap and newgidmap
/// (Debian: uidmap) and ids of /etc/subuid and /etc/subgid are there; else one id, ours, as root inside.
struct IDMapping {
  /// Users up to this number exist inside; 1: root alone.
  private(set) var count: UInt32 = 1
  /// Why there is only root; nil where there are more.
  private(set) var missing: String?

  private static let directories = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"]

  init(process: Int32) throws {
    let users = SubordinateIDs(own: userID(), text: Self.text("/etc/subuid"), name: Self.userName(), uid: userID())
    let groups = SubordinateIDs(own: groupID(), text: Self.text("/etc/subgid"), name: Self.userName(), uid: userID())
    guard let userTool = Self.find("newuidmap"), let groupTool = Self.find("newgidmap") else {
      missing = "newuidmap and newgidmap are not installed (Debian: the package uidmap)"
      try mapOne(process)
      return
    }
    guard !users.ranges.isEmpty, !groups.ranges.isEmpty else {
      let file = users.ranges.isEmpty ? "/etc/subuid" : "/etc/subgid"
      missing =
        "\(file) has no ids for this user (usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER)"
      try mapOne(process)
      return
    }
    // Groups first: without them the single group can still be mapped below, and then the single user.
    guard Self.run(groupTool, process, groups), Self.run(userTool, process, users) else {
      missing = "newuidmap and newgidmap did not map the ids of /etc/subuid and /etc/subgid"
      try mapOne(process)
      return
    }
    count = min(users.total, groups.total)
  }

  private func mapOne(_ pid: Int32) throws {
    let process = "/proc/\(pid)"
    if Self.lines("\(process)/gid_map") == 0 {
      try writeFile("\(process)/setgroups", "deny")
      try writeFile("\(process)/gid_map", "0 \(groupID()) 1\n")
    }
    try writeFile("\(process)/uid_map", "0 \(userID()) 1\n")
  }

  /// What it did is in the map.
  private static func run(_ tool: String, _ process: Int32, _ ids: SubordinateIDs) -> Bool {
    guard let null = try? openFile("/dev/null", O_RDWR) else { return false }
    let fd = null.rawValue
    let words = [tool, "\(process)"] + ids.mapping.map { "\($0)" }
    guard let pid = try? spawn(SpawnRequest(.path(tool), arguments: words, environment: [], descriptors: [fd, fd, 2]))
    else { return false }
    clinux_wait(pid)
    return lines("/proc/\(process)/\(tool.hasSuffix("newuidmap") ? "uid_map" : "gid_map")") > 0
  }

  private static func lines(_ path: String) -> Int {
    ((try? readText(path)) ?? "").utf8.split(separator: UInt8(ascii: "\n")).count
  }

  private static func text(_ path: String) -> String { (try? readText(path)) ?? "" }

  private static func find(_ tool: String) -> String? {
    directories.map { "\($0)/\(tool)" }.first { isExecutable($0) }
  }

  private static func userName() -> String? {
    (try? Account("\(userID())", passwd: text("/etc/passwd"), group: ""))?.name
  }
}
