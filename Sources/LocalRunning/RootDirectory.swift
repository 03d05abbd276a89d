import LinuxSystem

/// What a directory needs for something to be mounted in it; what was not there is taken away again.
struct RootDirectory {
  private static let directories = ["proc", "sys", "dev", "run", "tmp", "etc"]
  private static let files = ["etc/resolv.conf", "etc/hosts", "etc/hostname"]

  private var made: [(path: String, isDirectory: Bool)] = []

  mutating func prepare(_ root: String) throws(SystemError) {
    for name in Self.directories where fileKind("\(root)/\(name)", followLinks: false) == nil {
      try makeDirectories("\(root)/\(name)")
      made.append(("\(root)/\(name)", true))
    }
    for name in Self.files where fileKind("\(root)/\(name)", followLinks: false) == nil {
      try writeFile("\(root)/\(name)", "")
      made.append(("\(root)/\(name)", false))
    }
  }

  mutating func restore() {
    // What the program has put something into stays.
    for (path, isDirectory) in made.reversed() {
      if isDirectory {
        removeDirectory(path)
      } else if (try? readFile(path, limit: 1))?.isEmpty == true {
        removeFile(path)
      }
    }
    made = []
  }
}
