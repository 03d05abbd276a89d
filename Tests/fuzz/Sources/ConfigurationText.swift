import BootPlanning
import EnclaveConfig

/// The configuration, and the plan of a start that it leads to. What is refused says why.
let configuration = Harness("configuration") { bytes in
  do throws(ConfigurationError) {
    let text = try Configuration.text(bytes, file: "tombolo.toml")
    let made = try Configuration(toml: text, file: "tombolo.toml")
    for kind in [StartKind.child, .kernel(hasRootfs: true), .kernel(hasRootfs: false)] {
      check(!StartPlan.text(StartFacts(kind, made)).isEmpty, "no plan")
    }
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
}
