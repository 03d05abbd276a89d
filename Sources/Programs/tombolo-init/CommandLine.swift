/// tombolo-init's command line. Read by hand: a kernel hands its init words that nobody meant for it, and PID 1 must
/// not be ended by a parser.
struct InitArguments: Equatable {
  enum Role: Equatable {
    case enclave
    /// The networking proxy; PID 1 starts itself again as this, and hands it a document.
    case proxy
    /// The proxy's keeper of verdicts, with that many sockets.
    case verdicts(Int)
    case plan
    case help
    case version
  }

  var role = Role.enclave
  /// `--plan=kernel`: what a kernel's init would do, and not what one under another init does.
  var plansKernelStart = false
  var configurationPath: String?
  /// From `tombolo run`: a descriptor with a `LocalDocument`.
  var localDescriptor: Int32?
  /// From `tombolo run`: a pipe for a byte whenever the program has stopped as it was asked to.
  var stopDescriptor: Int32?
  var command: [String] = []

  struct Misuse: Error, CustomStringConvertible {
    var description: String
  }

  init() {}

  /// - Parameter words: argv without its first element.
  init(_ words: [String]) throws(Misuse) {
    if words == ["proxy"] {
      role = .proxy
      return
    }
    if words.count == 2, words.first == "verdicts", let count = Int(words[1]) {
      role = .verdicts(count)
      return
    }
    var rest = words[...]
    func value(_ option: String) throws(Misuse) -> String {
      guard let value = rest.popFirst() else { throw Misuse(description: "\(option) needs a value") }
      return value
    }
    while let word = rest.first, word.hasPrefix("-") {
      rest = rest.dropFirst()
      if word == "--" { break }
      switch word {
      case "--config": configurationPath = try value(word)
      case "--plan": role = .plan
      case "--plan=kernel":
        role = .plan
        plansKernelStart = true
      case "--help", "-h": role = .help
      case "--version": role = .version
      case "--local":
        guard let fd = Int32(try value(word)) else { throw Misuse(description: "--local needs a descriptor") }
        localDescriptor = fd
      case "--stops":
        guard let fd = Int32(try value(word)) else { throw Misuse(description: "--stops needs a descriptor") }
        stopDescriptor = fd
      default: throw Misuse(description: "unknown option \(word); see tombolo-init --help")
      }
    }
    command = Array(rest)
  }

  static let help = """
    tombolo-init: PID 1 of an enclave. It sets up the network, starts the networking proxy, runs one unmodified program
    and forwards its output to the host.

    usage: tombolo-init [--config FILE] [--plan[=kernel]] [--] [program [argument…]]

      --config FILE   the configuration (default /etc/tombolo.toml, which may be absent)
      --plan          print what would be done under another init, and do nothing; needs no rights
      --plan=kernel   the same for a start by a kernel, as the init of an image
      --version       print the version
      --help          print this

    A program on the command line takes the place of [program] command. Every key of the configuration, with its
    default, is in docs/configuration.md.

    """
}
