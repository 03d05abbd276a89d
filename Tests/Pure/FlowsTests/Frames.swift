import Inet
import Packets

/// Frames of one enclave, 10.118.0.2 and fd74::2, and of those whom it speaks with.
enum Frames {
  static let header = [UInt8](repeating: 0, count: PacketGuard.offloadHeaderLength)

  static func big16(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
  static func big32(_ value: UInt32) -> [UInt8] { big16(Int(value >> 16)) + big16(Int(value & 0xffff)) }

  /// - Parameter remote: the other end.
  static func packet(
    _ remote: String, leaving: Bool = true, _ number: UInt8, _ payload: [UInt8], fragment: Int = 0
  ) -> [UInt8] {
    func bytes(_ text: String) -> [UInt8] { IPAddress(text)?.bytes ?? [] }
    if remote.contains(":") {
      let ends = [bytes("fd74::2"), bytes(remote)]
      return header + [0x60, 0, 0, 0] + big16(payload.count) + [number, 64]
        + (leaving ? ends[0] + ends[1] : ends[1] + ends[0]) + payload
    }
    let ends = [bytes("10.118.0.2"), bytes(remote)]
    return header + [0x45, 0] + big16(20 + payload.count) + [0, 1] + big16(fragment) + [64, number, 0, 0]
      + (leaving ? ends[0] + ends[1] : ends[1] + ends[0]) + payload
  }

  static let syn: UInt8 = 2
  static let answer: UInt8 = 0x12
  static let ack: UInt8 = 0x10
  static let fin: UInt8 = 0x11
  static let rst: UInt8 = 0x04

  /// A segment between the enclave's port 40000, unless said otherwise, and a port of the other end.
  static func tcp(
    _ remote: String, _ port: Int, leaving: Bool = true, local: Int = 40000, _ flags: UInt8,
    sequence: UInt32 = 1, acknowledging: UInt32 = 0, _ data: [UInt8] = [], fragment: Int = 0
  ) -> [UInt8] {
    let ports = leaving ? big16(local) + big16(port) : big16(port) + big16(local)
    return packet(
      remote, leaving: leaving, 6,
      ports + big32(sequence) + big32(acknowledging) + [0x50, flags, 0xff, 0xff, 0, 0, 0, 0] + data,
      fragment: fragment)
  }

  /// The same with port 443.
  static func tcp(
    _ remote: String, leaving: Bool = true, local: Int = 40000, _ flags: UInt8, sequence: UInt32 = 1,
    acknowledging: UInt32 = 0, _ data: [UInt8] = []
  ) -> [UInt8] {
    tcp(
      remote, 443, leaving: leaving, local: local, flags, sequence: sequence, acknowledging: acknowledging, data)
  }

  static func udp(
    _ remote: String, _ port: Int, leaving: Bool = true, local: Int = 40000, _ data: [UInt8] = [1, 2, 3, 4],
    fragment: Int = 0
  ) -> [UInt8] {
    let ports = leaving ? big16(local) + big16(port) : big16(port) + big16(local)
    return packet(
      remote, leaving: leaving, 17, ports + big16(8 + data.count) + [0, 0] + data, fragment: fragment)
  }

  static func icmp(_ remote: String, leaving: Bool = true, type: UInt8, _ rest: [UInt8] = [0, 7, 0, 1, 9]) -> [UInt8] {
    packet(remote, leaving: leaving, remote.contains(":") ? 58 : 1, [type, 0, 0, 0] + rest)
  }

  /// In one record, or in records of that many bytes.
  static func hello(_ name: String?, record: Int = 16384, padding: Int = 0) -> [UInt8] {
    func field(_ bytes: [UInt8]) -> [UInt8] { big16(bytes.count) + bytes }
    var extensions: [UInt8] = [0xaa, 0xaa] + field([UInt8](repeating: 3, count: padding))
    if let name { extensions += [0, 0] + field(field([0] + field(Array(name.utf8)))) }
    let body = [3, 3] + [UInt8](repeating: 7, count: 32) + [0, 0, 2, 0x13, 1, 1, 0] + field(extensions)
    let message: [UInt8] = [1, 0] + big16(body.count) + body
    return stride(from: 0, to: message.count, by: record).flatMap { start in
      let part = message[start..<min(start + record, message.count)]
      return [22, 3, 1] + big16(part.count) + part
    }
  }
}
