/// Bytes from the kernel's generator. The C function is `getrandom`.
public func randomUInt64() -> UInt64 { UInt64.random(in: .min ... .max) }

/// The same, as many as asked for.
public func randomBytes(_ count: Int) -> [UInt8] {
  var generator = SystemRandomNumberGenerator()
  return (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
}
