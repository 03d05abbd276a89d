import CLinux
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

/// The calling thread's errno, for modules that do not import Glibc.
public func errnoValue() -> Int32 { errno }

/// Bytes from the kernel's generator. The C function is `getrandom`.
public func randomUInt64() -> UInt64 { UInt64.random(in: .min ... .max) }

/// The same, as many as asked for.
public func randomBytes(_ count: Int) -> [UInt8] {
  var generator = SystemRandomNumberGenerator()
  return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
}

/// The corresponding C function is `usleep`.
public func sleepMilliseconds(_ count: Int) { usleep(UInt32(clamping: count * 1000)) }
