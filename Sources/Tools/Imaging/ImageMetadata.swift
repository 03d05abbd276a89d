import FoundationEssentials

/// The metadata section: the fields of aws-nitro-enclaves-image-format (`EifIdentityInfo`), which nitro-cli reads. They
/// are measured by nothing; the one that would differ from build to build, the time, is fixed.
public struct ImageMetadata: Sendable {
  public var name: String
  public var version: String
  /// Seconds since 1970.
  public var buildTime: UInt32
  public var toolVersion: String
  public var kernelVersion: String?

  public init(name: String, version: String, buildTime: UInt32, toolVersion: String, kernelVersion: String?) {
    self.name = name
    self.version = version
    self.buildTime = buildTime
    self.toolVersion = toolVersion
    self.kernelVersion = kernelVersion
  }

  /// - Parameter docker: the image's configuration, a JSON document; null where there was none.
  func json(docker: [UInt8]?) -> [UInt8] {
    let configuration = docker.map { text($0) } ?? "null"
    return Array(
      ("{\"ImageName\":\(jsonString(name)),\"ImageVersion\":\(jsonString(version)),\"BuildMetadata\":{"
        + "\"BuildTime\":\(jsonString(rfc3339(buildTime))),\"BuildTool\":\"tombolo\","
        + "\"BuildToolVersion\":\(jsonString(toolVersion)),\"OperatingSystem\":\"Linux\","
        + "\"KernelVersion\":\(jsonString(kernelVersion ?? "Unknown"))},\"DockerInfo\":\(configuration),"
        + "\"CustomMetadata\":null}").utf8)
  }
}

/// A JSON string literal (RFC 8259).
public func jsonString(_ string: String) -> String {
  var out = "\""
  for scalar in string.unicodeScalars {
    switch scalar {
    case "\"": out += "\\\""
    case "\\": out += "\\\\"
    case "\n": out += "\\n"
    case _ where scalar.value < 0x20:
      out += "\\u00" + hex([UInt8(truncatingIfNeeded: scalar.value)])
    default: out.unicodeScalars.append(scalar)
    }
  }
  return out + "\""
}

/// `1970-01-01T00:00:00+00:00`, chrono's form, which nitro-cli writes.
public func rfc3339(_ seconds: UInt32) -> String {
  let days = Int(seconds / 86400)
  let rest = Int(seconds % 86400)
  // Days counted from 0000-03-01, so that a leap day is the last of its year; 400 years have 146097 days.
  let shifted = days + 719_468
  let era = shifted / 146_097
  let dayOfEra = shifted % 146_097
  let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
  let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
  let shiftedMonth = (5 * dayOfYear + 2) / 153
  let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
  let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
  let year = era * 400 + yearOfEra + (month <= 2 ? 1 : 0)
  func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
  return "\(year)-\(two(month))-\(two(day))T\(two(rest / 3600)):\(two(rest / 60 % 60)):\(two(rest % 60))+00:00"
}
