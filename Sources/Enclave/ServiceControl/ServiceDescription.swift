import EventLoop
import LinuxSystem
import LogForwarding
import Supervision
import Wire

/// A service as PID 1 starts it. A new kind of service is a file with one of these, and a line in `EnclaveServices`.
protocol ServiceDescription {
  /// What the machine knows of it.
  var service: Service { get }
  /// What the host is told that it is called.
  var reportName: String { get }
  var output: ServiceOutput { get }

  /// How a life of it begins; called for each.
  func request(_ ends: inout ServiceEnds) throws -> SpawnRequest

  /// What is said where it cannot be started, and the status that stands for that.
  func failure(_ error: any Error) -> (sentence: String, status: UInt8)
}

extension ServiceDescription {
  func failure(_ error: any Error) -> (sentence: String, status: UInt8) {
    ("\(service.name) could not be started: \(error)", 125)
  }
}

/// Where a service's lines go.
enum ServiceOutput {
  case nowhere
  /// Standard output and standard error are one pipe.
  case together(LogSource)
  case apart(output: LogSource, error: LogSource)
}

/// What a service's process is handed of what the engine keeps the other ends of.
struct ServiceEnds {
  let null: FileReference
  private(set) var output: FileReference
  private(set) var error: FileReference
  /// Gets one byte when the service is ready; /dev/null for one that does not say so.
  private(set) var readiness: FileReference
  private(set) var readinessReading: FileReference?
  private var held: [FileReference] = []

  /// Makes the pipes, and has the log read its ends of them.
  init(_ description: some ServiceDescription, null: FileReference, log: LogForwarder) throws(SystemError) {
    self.null = null
    output = null
    error = null
    readiness = null
    switch description.output {
    case .nowhere: break
    case .together(let source):
      output = try Self.pipe(log, source)
      error = output
    case .apart(let outputSource, let errorSource):
      output = try Self.pipe(log, outputSource)
      error = try Self.pipe(log, errorSource)
    }
    if case .notified = description.service.readiness {
      let (reading, writing) = try makePipe()
      try reading.descriptor.setNonblocking()
      readinessReading = reading
      readiness = writing
    }
  }

  /// Keeps a file open until the process has been started.
  mutating func hold(_ file: FileReference) -> Int32 {
    held.append(file)
    return file.rawValue
  }

  private static func pipe(_ log: LogForwarder, _ source: LogSource) throws(SystemError) -> FileReference {
    let (reading, writing) = try makePipe()
    try log.attach(reading, source)
    return writing
  }
}

/// The reading end of a service's readiness pipe: one byte means ready, a second one that it has no connections any more, which
/// only counts where it was told to drain them.
final class Readiness: EventSource {
  private let loop: EventLoop
  private let pipe: FileReference
  private let isReady: () -> Void
  private let isDrained: () -> Void
  private var count = 0
  private var registration: Registration?

  init(
    loop: EventLoop, pipe: FileReference, isReady: @escaping () -> Void, isDrained: @escaping () -> Void
  ) throws(SystemError) {
    self.isDrained = isDrained
    self.loop = loop
    self.pipe = pipe
    self.isReady = isReady
    super.init()
    registration = try loop.add(pipe.rawValue, [.readable], self)
  }

  override func ready(_ events: EventSet, tag: Int) {
    var byte: [UInt8] = [0]
    let result = byte.withUnsafeMutableBytes { readBytes(pipe.rawValue, $0) }
    if result == .wouldBlock { return }
    guard case .bytes(1) = result else { return cancel() }
    count += 1
    if count > 1 { cancel() }
    if count == 1 { isReady() } else { isDrained() }
  }

  /// The process is gone: what it has said counts no more.
  func cancel() {
    if let registration { loop.remove(registration) }
    registration = nil
  }
}
