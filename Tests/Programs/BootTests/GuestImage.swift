import Foundation

struct BootFailure: Error, CustomStringConvertible {
  var description: String
  init(_ description: String) { self.description = description }
}

/// Runs a program and gives its standard output; throws where it fails.
@discardableResult
func output(_ program: String, _ arguments: [String]) throws -> String {
  let process = Process()
  process.executableURL = URL(fileURLWithPath: program)
  process.arguments = arguments
  let pipe = Pipe()
  process.standardOutput = pipe
  try process.run()
  let data = pipe.fileHandleForReading.readDataToEndOfFile()
  process.waitUntilExit()
  guard process.terminationStatus == 0 else {
    throw BootFailure("\(program) \(arguments.joined(separator: " ")): status \(process.terminationStatus)")
  }
  return String(decoding: data, as: UTF8.self)
}

/// What rootfs/boot-assets has prepared. Absent is a failure, not a skip: these tests are the proof of the product.
struct BootAssets {
  static let repository = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .deletingLastPathComponent().path
  let folder: String
  init() throws {
    folder = try output("/usr/bin/env", ["bash", Self.repository + "/rootfs/boot-assets", "--check"])
      .trimmingCharacters(in: .newlines)
  }

  /// The files of some modules and of all that they need, dependencies first.
  func modules(_ names: [String], kernel: String) throws -> [String] {
    let base = "\(folder)/\(kernel)"
    let release = try String(contentsOfFile: base + "/release", encoding: .utf8).trimmingCharacters(in: .newlines)
    var files: [String] = []
    for name in names {
      for line in try output("/sbin/modprobe", ["-d", base, "-S", release, "--show-depends", name]).split(
        separator: "\n")
      {
        let words = line.split(separator: " ")
        if words.count >= 2, words[0] == "insmod", !files.contains(String(words[1])) { files.append(String(words[1])) }
      }
    }
    return files
  }
}

/// The smallest images that these tests need, independent of the product's own.
enum GuestImage {
  static func cpio(_ entries: [(name: String, mode: UInt32, data: Data, device: (UInt32, UInt32))]) -> Data {
    var archive = Data()
    for (index, entry) in (entries + [("TRAILER!!!", 0, Data(), (0, 0))]).enumerated() {
      let fields: [UInt32] = [
        UInt32(index + 1), entry.mode, 0, 0, 1, 0, UInt32(entry.data.count), 0, 0, entry.device.0, entry.device.1,
        UInt32(entry.name.utf8.count + 1), 0,
      ]
      archive += Data("070701".utf8)
      for field in fields { archive += Data(String(format: "%08x", field).utf8) }
      archive += Data(entry.name.utf8) + [0]
      archive += Data(count: (4 - archive.count % 4) % 4)
      archive += entry.data
      archive += Data(count: (4 - archive.count % 4) % 4)
    }
    return archive
  }

  static func initramfs(initProgram: String, modules: [String]) throws -> Data {
    var entries: [(name: String, mode: UInt32, data: Data, device: (UInt32, UInt32))] = [
      ("dev", 0o40755, Data(), (0, 0)), ("dev/console", 0o20600, Data(), (5, 1)),
      ("init", 0o100755, try Data(contentsOf: URL(fileURLWithPath: initProgram)), (0, 0)),
    ]
    if !modules.isEmpty { entries.append(("modules", 0o40755, Data(), (0, 0))) }
    for (index, path) in modules.enumerated() {
      let name = String(format: "modules/%02d-", index) + (path as NSString).lastPathComponent
      entries.append((name, 0o100644, try Data(contentsOf: URL(fileURLWithPath: path)), (0, 0)))
    }
    return cpio(entries)
  }

  /// An enclave image file, version 4 (all numbers big-endian).
  static func eif(kernel: Data, commandLine: String, ramdisk: Data) -> Data {
    func big<T: FixedWidthInteger>(_ value: T) -> Data { withUnsafeBytes(of: value.bigEndian) { Data($0) } }
    let sections: [(UInt16, Data)] = [
      (1, kernel), (2, Data(commandLine.utf8)), (5, Data("{}".utf8)), (3, ramdisk),
    ]
    var offsets: [UInt64] = []
    var body = Data()
    for (type, data) in sections {
      offsets.append(UInt64(548 + body.count))
      body += big(type) + big(UInt16(0)) + big(UInt64(data.count)) + data
    }
    var header = Data([0x2e, 0x65, 0x69, 0x66]) + big(UInt16(4)) + big(UInt16(0)) + big(UInt64(512 << 20))
    header += big(UInt64(1)) + big(UInt16(0)) + big(UInt16(sections.count))
    for index in 0..<32 { header += big(index < offsets.count ? offsets[index] : 0) }
    for index in 0..<32 { header += big(index < sections.count ? UInt64(sections[index].1.count) : 0) }
    header += big(UInt32(0))
    return header + big(crc32(header + body)) + body
  }

  /// CRC-32 as zlib has it.
  static func crc32(_ data: Data) -> UInt32 {
    var table: [UInt32] = []
    for start in 0..<256 {
      var value = UInt32(start)
      for _ in 0..<8 { value = value & 1 == 1 ? (value >> 1) ^ 0xedb8_8320 : value >> 1 }
      table.append(value)
    }
    var value = UInt32.max
    for byte in [UInt8](data) { value = table[Int((value ^ UInt32(byte)) & 0xff)] ^ (value >> 8) }
    return ~value
  }
}
