// Theory of operation.
//
// One program has every harness, because linking one is faster than linking twenty. `tombolo-fuzz --list` prints their names;
// `tombolo-fuzz NAME [libFuzzer's words]` hands the rest to libFuzzer's driver (LLVMFuzzerRunDriver of
// compiler-rt/lib/fuzzer/FuzzerDriver.cpp), which calls the harness with each input. What it finds is written as a file
// crash-…, timeout-… or oom-… to where `-artifact_prefix` says.

import Glibc

@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argc: UnsafeMutablePointer<CInt>, _ argv: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Set once, before the driver runs.
nonisolated(unsafe) private var chosen = Harness("none") { _ in }

@main
enum Fuzz {
  static func main() {
    let words = CommandLine.arguments
    if words.dropFirst().first == "--list" {
      for harness in harnesses { print(harness.name) }
      return
    }
    guard words.count > 1, let harness = harnesses.first(where: { $0.name == words[1] }) else {
      print("tombolo-fuzz: expected --list, or a harness's name and libFuzzer's words")
      exit(2)
    }
    chosen = harness
    var arguments = [words[0]] + words.dropFirst(2)
    if !arguments.contains(where: { $0.hasPrefix("-max_len=") }) { arguments.append("-max_len=\(harness.limit)") }
    // The driver keeps them: they are never freed.
    let array = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: arguments.count + 1)
    for (index, word) in arguments.enumerated() {
      let bytes = Array(word.utf8CString)
      let copy = UnsafeMutablePointer<CChar>.allocate(capacity: bytes.count)
      copy.initialize(from: bytes, count: bytes.count)
      array[index] = copy
    }
    array[arguments.count] = nil
    var count = CInt(arguments.count)
    var pointer = array
    exit(
      runDriver(&count, &pointer) { start, count in
        chosen.run(Array(UnsafeBufferPointer(start: start, count: count)))
        return 0
      })
  }
}
