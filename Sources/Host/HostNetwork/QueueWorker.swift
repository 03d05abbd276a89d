import LinuxSystem
import PacketRelaying
import Packets
import Wire

extension PacketWorker {
  /// The thread of one queue on the host's side, whichever way its packets get into the network.
  /// - Parameters:
  ///   - destinations: where the enclave may send packets; read again at every `change`.
  ///   - log: takes sentences for the operator; called in the thread.
  ///   - answer: takes the queue's counters, in the thread.
  ///   - device: makes what the packets go through; called in the thread.
  convenience init(
    queue index: Int, _ packetGuard: PacketGuard, _ destinations: LockedDestinations,
    log: @escaping @Sendable (String) -> Void,
    answer: @escaping @Sendable (QueueCount) -> Void, device: @escaping @Sendable () -> any PacketDevice
  ) throws(SystemError) {
    try self.init { (loop) throws(SystemError) in
      let queue = try PacketQueue(
        loop: loop, device: device(), packetGuard: packetGuard,
        denied: { log("packets to \($0)") }
      ) { loss in
        if loss != .closed { log("packets, queue \(index): the enclave's stream was lost: \(loss)") }
      }
      queue.change(destinations.current)
      return .init { stream, awaitingMemory in
        do throws(SystemError) {
          try queue.attach(stream, awaitingMemory ? .awaitingMemory : .frames())
        } catch {
          log("packets, queue \(index): \(error)")
        }
      } report: {
        log("packets, queue \(index): \(queue.counters)")
      } count: {
        answer(
          QueueCount(
            queue: UInt32(clamping: index), connected: queue.isAttached, usesMemory: queue.usesMemory,
            counters: queue.counters))
      } change: {
        queue.change(destinations.current)
      }
    } failed: {
      log("packets, queue \(index): \($0)")
    }
  }

  /// Answers a stream whose hello has been read, and takes it over. The answer comes first: behind it are frames. Where the
  /// thread then cannot have the stream, it closes, and the enclave comes again.
  /// - Parameters:
  ///   - features: what may be left undone in packets to the host.
  ///   - log: takes a sentence for the operator.
  func serve(
    _ stream: FileReference, _ request: PacketsRequest, features: TunOffload, log: (String) -> Void,
    answer: (PacketsAnswer) -> Void
  ) {
    let takesMemory = request.offersMemory && isUnixSocket(stream.rawValue)
    answer(PacketsAnswer(features: features.rawValue, takesMemory: takesMemory))
    do throws(SystemError) {
      try give(stream, awaitingMemory: takesMemory)
    } catch {
      log("packets, queue \(request.queue): \(error)")
    }
  }
}
