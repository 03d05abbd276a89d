import DNS
import Inet

/// Messages as a server would send them.
enum Made {
  static func name(_ text: String) -> [UInt8] {
    text.split(separator: ".").flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) } + [0]
  }

  static func number(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }

  static func query(_ text: String, _ type: UInt16 = 1, id: UInt16 = 0x1234, option: [UInt8]? = nil) -> DNSMessage {
    let additional = option.map { [0, 0, 41, 4, 208, 0, 0, 0, 0] + number($0.count) + $0 } ?? []
    return DNSMessage(
      number(Int(id)) + [1, 0, 0, 1, 0, 0, 0, 0, 0, additional.isEmpty ? 0 : 1] + name(text) + number(Int(type)) + [
        0, 1,
      ]
        + additional)!
  }

  struct Record {
    var name: [UInt8]
    var type: UInt16
    var ttl: UInt32 = 60
    var data: [UInt8]
    init(_ text: String, _ type: UInt16, ttl: UInt32 = 60, _ data: [UInt8]) {
      self.init(raw: Made.name(text), type, ttl: ttl, data)
    }
    init(raw name: [UInt8], _ type: UInt16, ttl: UInt32 = 60, _ data: [UInt8]) {
      (self.name, self.type, self.ttl, self.data) = (name, type, ttl, data)
    }
    static func a(_ text: String, _ address: String, ttl: UInt32 = 60) -> Record {
      let bytes = IPAddress(address)!.bytes
      return Record(text, bytes.count == 4 ? 1 : 28, ttl: ttl, bytes)
    }
    var bytes: [UInt8] {
      name + number(Int(type)) + [0, 1] + number(Int(ttl >> 16)) + number(Int(ttl & 0xffff)) + number(data.count) + data
    }
  }

  static func response(
    to query: DNSMessage, _ answers: [Record], authority: [Record] = [], additional: [Record] = [], code: UInt8 = 0
  ) -> DNSMessage {
    var bytes = Array(query.bytes[..<query.question!.end])
    bytes[2] = 0x81
    bytes[3] = 0x80 | code
    bytes.replaceSubrange(6..<12, with: number(answers.count) + number(authority.count) + number(additional.count))
    for record in answers + authority + additional { bytes += record.bytes }
    return DNSMessage(bytes)!
  }
}
