/// Who is at the other end of a guest's connection to `PATH_PORT`.
///
/// The hybrid convention tells the host only the port. So the device names its end of each such socket (in Linux's
/// abstract namespace) and a program that wants to know can call getpeername(2) and read the name with this type.
public struct HybridPeerName: Equatable, Sendable, CustomStringConvertible {
  public var guestCID: UInt32
  public var guestPort: UInt32
  /// The CID that the guest connected to: 3 or 2, both the parent.
  public var hostCID: UInt32
  public var hostPort: UInt32

  public init(guestCID: UInt32, guestPort: UInt32, hostCID: UInt32, hostPort: UInt32) {
    self.guestCID = guestCID
    self.guestPort = guestPort
    self.hostCID = hostCID
    self.hostPort = hostPort
  }

  /// Reads the abstract name, without its leading zero byte; nil where it is another program's.
  public init?(abstractName: String) {
    let parts = abstractName.split(separator: " ", omittingEmptySubsequences: false)
    guard parts.count == 6, parts[0] == "tombolo-vsock" else { return nil }
    var numbers: [UInt32] = []
    for part in parts[1...4] {
      guard let number = UInt32(part) else { return nil }
      numbers.append(number)
    }
    self.init(guestCID: numbers[0], guestPort: numbers[1], hostCID: numbers[2], hostPort: numbers[3])
  }

  /// `tombolo-vsock 4 1073741824 3 9000`; the device adds one more word that makes the name unique.
  public var description: String { "tombolo-vsock \(guestCID) \(guestPort) \(hostCID) \(hostPort)" }
}
