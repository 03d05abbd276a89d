/// tombolo-init's command line. Read by hand: a kernel hands its init words that nobody meant for it, and PID 1 must
/// not be ended by a parser.
public struct InitArguments: Equatable, Sendable {
  public enum Role: Equatable, Sendable {
    case enclave
    /// The networking proxy; PID 1 starts itself again as this, and hands it a document.
    case proxy
    /// The proxy's keeper of verdicts, with that many sockets.
    case verdicts(Int)
    /// The process of one mount; handed a document like the proxy.
    case mount
    /// What a start of that kind would do.
    case plan(PlanKind)
    case help
    case version
  }

  /// The kinds of start that `--plan` prints. That of a local enclave is printed where there is its document.
  public enum PlanKind: String, CaseIterable, Sendable {
    case child
    /// Of an image with /rootfs, which those of `tombolo image build` and of nitro-cli are.
    case kernel
    case kernelWithoutRootfs = "kernel-without-rootfs"
  }

  public var role = Role.enclave
  public var configurationPath: String?
  /// From `tombolo run`: a descriptor with a `LocalDocument`.
  public var localDescriptor: Int32?
  /// From `tombolo run`: a pipe for a byte whenever the program has stopped as it was asked to.
  public var stopDescriptor: Int32?
  public var command: [String] = []

  public struct Misuse: Error, Equatable, CustomStringConvertible {
    public var description: String

    public init(description: String) { self.description = description }
  }

  public init() {}

  /// - Parameter words: argv without its first element.
  public init(_ words: [String]) throws(Misuse) {
    if words == ["proxy"] {
      role = .proxy
      return
    }
    if words == ["mount"] {
      role = .mount
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
      case "--plan": role = .plan(.child)
      case "--help", "-h": role = .help
      case "--version": role = .version
      case "--local":
        guard let fd = Int32(try value(word)) else { throw Misuse(description: "--local needs a descriptor") }
        localDescriptor = fd
      case "--stops":
        guard let fd = Int32(try value(word)) else { throw Misuse(description: "--stops needs a descriptor") }
        stopDescriptor = fd
      case _ where word.hasPrefix("--plan="):
        guard let kind = PlanKind(rawValue: String(word.dropFirst("--plan=".count))) else {
          let kinds = PlanKind.allCases.map(\.rawValue).joined(separator: ", ")
          throw Misuse(description: "--plan: found \"\(word.dropFirst("--plan=".count))\", expected one of \(kinds)")
        }
        role = .plan(kind)
      default: throw Misuse(description: "unknown option \(word); see tombolo-init --help")
      }
    }
    command = Array(rest)
  }

  public static let help = """
    tombolo-init: PID 1 of an enclave. It sets up the network, starts the networking proxy, runs one unmodified program
    and forwards its output to the host.

    usage: tombolo-init [--config FILE] [--plan[=KIND]] [--] [program [argument…]]

      --config FILE   the configuration (default /etc/tombolo.toml, which may be absent)
      --plan[=KIND]   print what a start would do, in its order, and do nothing; needs no rights. KIND is
                      child (under another init; the default), kernel (as the init of an image with /rootfs) or
                      kernel-without-rootfs. For a local enclave: tombolo run --plan
      --version       print the version
      --help          print this

    A program on the command line takes the place of [program] command. Every key of the configuration, with its
    default, is in docs/configuration.md.

    """
}
