import CLinux
import Glibc

/// Runs `body` on a thread of its own, which receives no signals. The C function is `pthread_create`.
public func startThread(_ body: @escaping @Sendable () -> Void) throws(SystemError) {
  final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
  let box = Unmanaged.passRetained(Box(body))
  let result = clinux_thread(
    { context in
      guard let context else { return }
      Unmanaged<Box>.fromOpaque(context).takeRetainedValue().body()
    }, box.toOpaque())
  if result < 0 { box.release() }
  try check("pthread_create", "", result)
}

/// Lets every other thread that could run on this processor run first. The C function is `sched_yield`.
public func yieldProcessor() { sched_yield() }

/// The CPUs that this thread may run on. The C function is `sched_getaffinity`, or where there are more than it can say
/// `sysconf(_SC_NPROCESSORS_ONLN)`.
public func processorCount() -> Int {
  let count = Int(clinux_processor_count())
  return max(1, count > 0 ? count : sysconf(Int32(_SC_NPROCESSORS_ONLN)))
}
