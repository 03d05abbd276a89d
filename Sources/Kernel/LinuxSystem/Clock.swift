import Glibc

/// CLOCK_MONOTONIC in nanoseconds. The C function is `clock_gettime`.
public func monotonicNanoseconds() -> UInt64 { nanoseconds(CLOCK_MONOTONIC) }

/// CLOCK_REALTIME in nanoseconds since 1970.
public func realtimeNanoseconds() -> UInt64 { nanoseconds(CLOCK_REALTIME) }

private func nanoseconds(_ clock: clockid_t) -> UInt64 {
  var now = timespec()
  clock_gettime(clock, &now)
  return UInt64(max(now.tv_sec, 0)) &* 1_000_000_000 &+ UInt64(max(now.tv_nsec, 0))
}

/// The corresponding C function is `usleep`.
public func sleepMilliseconds(_ count: Int) { usleep(UInt32(clamping: count * 1000)) }
