import EventLoop
import Inet
import LinuxSystem
import Netlink

/// The addresses of this machine, kept up to date.
public final class MachineAddresses: EventSource {
  private var monitor: AddressMonitor
  private let log: (String) -> Void
  private var complained = false
  public private(set) var current: Set<IPAddress>
  /// Called in the loop when `current` is another.
  public var onChange: (() -> Void)?

  /// - Parameter log: takes sentences for the operator.
  public init(loop: EventLoop, log: @escaping (String) -> Void) throws {
    monitor = try AddressMonitor()
    current = try monitor.addresses()
    self.log = log
    super.init()
    _ = try loop.add(monitor.descriptor, [.readable], self)
  }

  /// Looks for changes that the loop has not told of yet: an address counts from the moment at which the machine has it.
  public func refresh() {
    guard monitor.hasChanged() else { return }
    do throws(NetlinkError) {
      let now = try monitor.addresses()
      complained = false
      guard now != current else { return }
      current = now
    } catch {
      // Those known stay denied.
      if !complained { log("the machine's own addresses are not known any more: \(error)") }
      complained = true
      return
    }
    onChange?()
  }

  override public func ready(_ events: EventSet, tag: Int) { refresh() }
}
