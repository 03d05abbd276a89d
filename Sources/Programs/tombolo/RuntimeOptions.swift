import ArgumentParser
import SystemText
import Wire

/// What an enclave is given at run time besides addresses, where its image takes it.
struct RuntimeOptions: ParsableArguments {
  @Option(
    name: .customLong("enclave-argument"), parsing: .unconditionalSingleValue,
    help: ArgumentHelp(
      "Give the enclave's program this argument, behind its own; may be repeated. The image must take it (attestation.runtime), and measures it.",
      valueName: "text"))
  var arguments: [String] = []
  @Option(
    name: .customLong("enclave-variable"),
    help: ArgumentHelp(
      "Give the enclave's program this variable; may be repeated. The image must take it, and measures it, in the same way.",
      valueName: "name=value"))
  var variables: [String] = []

  /// - Throws: a sentence with what was found and what was expected.
  func parameters() throws -> RuntimeParameters {
    var made = RuntimeParameters()
    for text in arguments {
      do throws(WireError) { try made.add(argument: systemBytes(text)) } catch {
        throw Misuse("--enclave-argument: \(error)")
      }
    }
    for text in variables {
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { throw Misuse("--enclave-variable: found \"\(text)\", expected NAME=VALUE") }
      do throws(WireError) { try made.add(variable: String(parts[0]), systemBytes(String(parts[1]))) } catch {
        throw Misuse("--enclave-variable: found \"\(text.prefix(64))\": \(error)")
      }
    }
    return made
  }
}
