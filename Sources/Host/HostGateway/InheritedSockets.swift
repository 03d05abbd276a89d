import Inet
import LinuxSystem
import Relaying

// Theory of operation.
//
// Who holds a listening socket may replace the process that serves it: clients wait in its queue meanwhile, and nobody is refused.
// systemd does that for a service with a socket unit, and says which sockets there are in variables (sd_listen_fds(3)):
//
//   LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES ▶ descriptors from 3 on ▶ each is the socket of a `-p`, a `--forward` or the transport,
//   by its address ▶ served, but never closed to clients because this process ends
//
// A socket that nothing here has use for is a mistake: its clients would wait for ever.

/// What the variables say.
struct SocketActivation: Equatable {
  static let firstDescriptor: Int32 = 3
  private static let limit = 4096
  private static let nameLimit = 255

  /// In the order of the descriptors.
  var names: [String]

  /// nil where there are no sockets for this process.
  /// - Throws: a sentence.
  init?(process: Int32, _ variable: (String) -> String?) throws(HostSocketError) {
    guard let owner = variable("LISTEN_PID") else { return nil }
    guard let pid = Self.number(owner, ...Int(Int32.max)) else {
      throw HostSocketError("LISTEN_PID: found \"\(owner)\", expected a process id")
    }
    guard pid == Int(process) else { return nil }
    let text = variable("LISTEN_FDS") ?? ""
    guard let count = Self.number(text, ...Self.limit) else {
      throw HostSocketError("LISTEN_FDS: found \"\(text)\", expected a number from 1 to \(Self.limit)")
    }
    guard let list = variable("LISTEN_FDNAMES") else {
      names = [String](repeating: "unknown", count: count)
      return
    }
    names = list.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard names.count == count else {
      throw HostSocketError("LISTEN_FDNAMES: found \(names.count) names, expected \(count), as many as LISTEN_FDS says")
    }
    for name in names where name.utf8.count > Self.nameLimit || !name.utf8.allSatisfy({ (0x20...0x7e).contains($0) }) {
      throw HostSocketError(
        "LISTEN_FDNAMES: found a name that is longer than \(Self.nameLimit) or not of printable ASCII")
    }
  }

  private static func number(_ text: String, _ limit: PartialRangeThrough<Int>) -> Int? {
    guard (1...10).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
      let number = Int(text),
      number > 0, limit.contains(number)
    else { return nil }
    return number
  }
}

/// Why sockets that this process was started with cannot be used.
public struct HostSocketError: Error, Equatable, CustomStringConvertible {
  public var description: String
  init(_ description: String) { self.description = description }
}

/// The sockets that this process was started with.
public final class InheritedSockets {
  private var left: [(name: String, socket: InheritedSocket)] = []
  private var taken: Set<Int32> = []

  /// None.
  public init() {}

  /// Those that systemd, or whoever speaks as it does, has handed over.
  public static func handedOver() throws -> InheritedSockets {
    let made = InheritedSockets()
    guard let activation = try SocketActivation(process: processID(), { environmentVariable($0) }) else { return made }
    for (index, name) in activation.names.enumerated() {
      let fd = SocketActivation.firstDescriptor + Int32(index)
      do throws(SystemError) {
        made.left.append((name, try InheritedSocket(taking: fd)))
      } catch {
        throw HostSocketError("the socket \"\(name)\" that this process was started with (descriptor \(fd)): \(error)")
      }
    }
    return made
  }

  /// The socket that is bound there; nil where there is none.
  func take(_ address: SocketAddress, _ kind: SocketKind) -> FileReference? {
    guard let index = left.firstIndex(where: { $0.socket.kind == kind && $0.socket.address == address }) else {
      return nil
    }
    let socket = left.remove(at: index).socket
    taken.insert(socket.file.rawValue)
    return socket.file
  }

  /// Whether somebody else holds the socket too.
  func contains(_ file: FileReference) -> Bool { taken.contains(file.rawValue) }

  /// - Throws: for one that nobody would serve, or that clients come to whose addresses are written otherwise.
  func check(served: [(SocketAddress, SocketKind)]) throws(HostSocketError) {
    for (name, socket) in left {
      guard served.contains(where: { $0.0 == socket.address && $0.1 == socket.kind }) else {
        let kind = socket.kind == .datagram ? " (UDP)" : ""
        throw HostSocketError(
          "the socket \"\(name)\" that this process was started with is at \(socket.address)\(kind), where no -p, --forward or "
            + "transport is")
      }
      guard !socket.isDual else {
        throw HostSocketError(
          "the socket \"\(name)\" at \(socket.address) is for IPv4 too, expected BindIPv6Only=ipv6-only")
      }
    }
  }
}
