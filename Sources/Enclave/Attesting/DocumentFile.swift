import EventLoop
import LinuxSystem
import Roles
import SecurityModule

// Theory of operation.
//
// A document in a file, for programs that speak no HTTP. There are two files in one directory, the service's own, and PID 1 has
// opened both: the service writes the one that nobody reads, and then the two exchange their names (renameat2(2)). So whoever
// opens the file has one whole document, and the service needs no right to open or make a file. A reader that has opened it sees
// that document until the next renewal but one, which is 10 s later at least.

public final class DocumentFile: EventSource {
  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  private let loop: EventLoop
  private let module: any ModuleDevice
  private let publicKey: [UInt8]?
  private let files: [FileReference]
  private let name: String
  private let spareName: String
  private let report: (String) -> Void
  /// In a row.
  private var failures = 0

  /// Writes the first document.
  /// - Parameters:
  ///   - publicKey: what every document has as its public key.
  ///   - files: the two in `directory`, open to be written.
  public init(
    loop: EventLoop, module: any ModuleDevice, publicKey: [UInt8]?, files: [FileReference],
    in directory: String = ".", report: @escaping (String) -> Void
  ) throws {
    self.loop = loop
    self.module = module
    self.publicKey = publicKey
    self.files = files
    name = "\(directory)/\(AttestationPlan.documentName)"
    spareName = "\(directory)/\(AttestationPlan.spareName)"
    self.report = report
    super.init()
    try renew()
  }

  override public func timerFired(_ key: Int) {
    do {
      try renew()
      if failures > 0 { report("attestation.document has been renewed") }
      failures = 0
    } catch {
      failures += 1
      let delay = DocumentLife.retryDelay(failures: failures)
      report("attestation.document is as it was, and tried again in \(delay) s: \(error)")
      loop.schedule(after: .seconds(delay), self)
    }
  }

  private func renew() throws {
    guard case .document(let document) = try module.ask(.attestation(.init(publicKey: publicKey))) else {
      throw ModuleFailure.unintelligible("it is no document")
    }
    guard let spare = files.first(where: { isFile($0.rawValue, at: spareName) }) else {
      throw Failure(description: "somebody has moved \(spareName), which is beside it")
    }
    try rewriteFile(spare.rawValue, document, spareName)
    try exchangeFiles(name, spareName)
    let remaining = DocumentLife.remaining(document)
    if let remaining, remaining <= 0 {
      report("attestation.document: the security module's certificate has ended when the document is made")
    }
    loop.schedule(after: .seconds(DocumentLife.delay(remaining: remaining)), self)
  }
}
