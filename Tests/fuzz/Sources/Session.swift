import Wire

/// The messages of a session, in both directions.
let session = Harness("session") { bytes in
  var choices = Choices(bytes)
  var decoder = SessionDecoder()
  for piece in choices.pieces() {
    decoder.append(piece)
    while true {
      let expected = decoder.hasMessage
      guard let message = try? decoder.next() else {
        check(!expected || (try? decoder.next()) == nil, "a message was promised")
        break
      }
      check(expected, "a message came that was not promised")
      if let report = try? EnclaveReport(type: message.type, payload: message.payload) {
        check(report.encoded() == form(message), "\(report)")
      }
      if let order = try? HostOrder(type: message.type, payload: message.payload) {
        check(order.encoded() == form(message), "\(order)")
      }
    }
  }
}

private func form(_ message: (type: UInt8, payload: [UInt8])) -> [UInt8] {
  [message.type, 0, UInt8(message.payload.count >> 8), UInt8(message.payload.count & 0xff)] + message.payload
}
