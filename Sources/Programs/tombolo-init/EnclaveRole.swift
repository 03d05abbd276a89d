import BootPlanning
import Booting
import CLinux
import LinuxSystem
import ServiceControl

/// The enclave's init, in its ways to be started: by a kernel (`KernelStart`), by `tombolo run`, under another init.
enum EnclaveRole {
  static func run(_ arguments: InitArguments) throws {
    setProcessName("tombolo-init")
    // Our memory has the secrets of this boot. Whatever was open where we were started is not for the program.
    try forbidInspection()
    clinux_close_on_exec_from(3)
    // First of all, so that none is lost: they wait in the signalfd until the loop runs.
    let signals = try openSignals(EnclaveSupervision.signals)
    ignoreBrokenPipes()
    raiseOpenFilesLimit()
    // As a kernel starts its init: what is made from here on is for the proxy's and the program's users, too.
    if processID() == 1 { setCreationMask(0o022) }
    if processID() == 1, clinux_started_bare() {
      KernelStart.run(signals)
    } else if let fd = arguments.localDescriptor {
      try local(arguments, try readLocalDocument(fd), signals)
    } else {
      try child(arguments, signals)
    }
  }

  private static func local(
    _ arguments: InitArguments, _ document: LocalDocument.Content, _ signals: FileReference
  ) throws {
    guard processID() == 1 else { throw InitArguments.Misuse(description: "--local is for `tombolo run`") }
    let discovery = Discovery(local: document)
    let start = Start(try discovery.find(), signals)
    if document.passesInput { start.input = try duplicateOfStandardInput() }
    start.userCount = document.local.userCount ?? .max
    if let fd = arguments.stopDescriptor {
      // `tombolo run` looks for it.
      let pipe = FileReference(OwnedFileDescriptor(fd))
      start.onProgramStopped = { try? writeAll(pipe.rawValue, [UInt8(1)]) }
    }
    try start.run { status in exit(Int32(status)) }
  }

  private static func child(_ arguments: InitArguments, _ signals: FileReference) throws {
    let discovery = Discovery(child: arguments)
    do {
      let start = Start(try discovery.find(), signals)
      // The program keeps the standard input of the process that started us.
      start.input = try duplicateOfStandardInput()
      // A shell that started us sees a stopped job. An engine whose PID 1 we are would look for no such thing.
      if processID() != 1 { start.onProgramStopped = { stopOneself() } }
      try start.run { status in exit(Int32(status)) }
    } catch {
      // Standard error is a console that an enclave in production has not.
      if discovery.hasConfiguration { LastWords.deliver("\(error)", discovery.configuration) }
      throw error
    }
  }

  /// Descriptor 0 itself stays open: whatever is opened next would get its number, and lose it when a child's
  /// descriptors are put in place.
  private static func duplicateOfStandardInput() throws(SystemError) -> FileReference {
    FileReference(OwnedFileDescriptor(try checkErrno("fcntl", "F_DUPFD_CLOEXEC") { clinux_dup_cloexec(0) }))
  }
}
