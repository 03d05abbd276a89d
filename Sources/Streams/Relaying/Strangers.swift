import LinuxSystem

/// Streams without the proof that they must carry: refused, counted, said once. Somebody who tries a million times must not
/// fill a log that others need.
public struct Strangers {
  private let what: String
  public private(set) var count: UInt64 = 0

  /// - Parameter what: names one of them, as the beginning of a sentence.
  public init(what: String) { self.what = what }

  public mutating func refused(_ log: (String) -> Void) {
    count &+= 1
    if count == 1 { log("\(what) was refused; more of them are only counted") }
  }
}
