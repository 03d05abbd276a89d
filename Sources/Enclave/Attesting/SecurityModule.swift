import LinuxSystem
import SecurityModule

/// The security module as the service has it: the device, or one in memory.
public protocol ModuleDevice: AnyObject {
  /// One request and its answer, both CBOR.
  func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8]
}

extension ModuleDevice {
  public func ask(_ request: ModuleRequest) throws(ModuleFailure) -> ModuleAnswer {
    let bytes = request.bytes
    guard bytes.count <= ModuleRequest.limit else { throw .refused(.inputTooLarge) }
    return try ModuleAnswer(try perform(bytes), to: request)
  }

  public func register(_ index: UInt16) throws(ModuleFailure) -> (isLocked: Bool, value: [UInt8]) {
    guard case .register(let isLocked, let value) = try ask(.describePCR(index)) else {
      throw .unintelligible("it is no register")
    }
    return (isLocked, value)
  }
}

/// /dev/nsm, opened by PID 1.
public final class OpenModule: ModuleDevice {
  private let file: FileReference

  public init(_ file: FileReference) { self.file = file }

  public func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] {
    do throws(SystemError) {
      return try askSecurityModule(file.rawValue, request, limit: ModuleAnswer.limit)
    } catch {
      throw .unreachable("\(error)")
    }
  }
}

/// A module in memory, with this machine's clock and random numbers.
public final class ModuleInMemory: ModuleDevice {
  private var module = SimulatedModule()

  public init() {}

  public func perform(_ request: [UInt8]) throws(ModuleFailure) -> [UInt8] {
    module.answer(request, milliseconds: realtimeNanoseconds() / 1_000_000, random: randomBytes)
  }
}

/// What the host gave at run time goes into a register, which is locked then, before any program of the enclave starts.
public enum RuntimeMeasurement {
  public struct Failure: Error, CustomStringConvertible {
    public var description: String
  }

  /// For a service that was started again it has been done.
  /// - Throws: where something else has been measured there: a document would say what is not so.
  public static func record(_ text: [UInt8], in index: UInt16, of module: some ModuleDevice) throws {
    let wanted = measuredRegister(text)
    let before = try module.register(index)
    if !before.isLocked {
      guard before.value.allSatisfy({ $0 == 0 }) else {
        throw Failure(description: "PCR\(index) has been extended before the enclave's start: attestation.runtime_pcr")
      }
      _ = try module.ask(.extendPCR(index, sha384(text)))
      _ = try module.ask(.lockPCR(index))
    }
    let after = try module.register(index)
    guard after.isLocked, after.value == wanted else {
      throw Failure(
        description:
          "PCR\(index) is \(after.isLocked ? "locked" : "not locked") and has not the value of what the host "
          + "gave: attestation.runtime_pcr")
    }
  }
}
