import Wire

/// Hello, answer, and the parameters of every channel: the first bytes that either side reads of the other.
let handshake = Harness("handshake", limit: 1200) { bytes in
  if let (hello, length) = try? Hello.decode(bytes) {
    check(hello.encoded() == Array(bytes.prefix(length)), "a hello is read otherwise than it is written")
    parameters(hello)
  }
  if let (answer, length) = try? Answer.decode(bytes) {
    check(answer.encoded() == Array(bytes.prefix(length)), "an answer is read otherwise than it is written")
    if let packets = try? PacketsAnswer(parameters: answer.parameters) {
      check(packets.parameters == answer.parameters, "\(packets)")
    }
    if let addresses = try? AddressAnswer(parameters: answer.parameters) {
      check((try? AddressAnswer(parameters: addresses.parameters)) == addresses, "\(addresses)")
    }
  }
}

private func parameters(_ hello: Hello) {
  switch hello.channel {
  case .connect:
    guard let request = try? ConnectRequest(parameters: hello.parameters) else { return }
    check((try? ConnectRequest(parameters: request.hello.parameters)) == request, "\(request)")
  case .packets:
    guard let request = try? PacketsRequest(parameters: hello.parameters) else { return }
    check((try? PacketsRequest(parameters: request.hello.parameters)) == request, "\(request)")
  case .control:
    guard let request = try? AddressRequest(parameters: hello.parameters) else { return }
    check((try? AddressRequest(parameters: request.hello.parameters)) == request, "\(request)")
  case .session:
    guard let report = try? StartReport(parameters: hello.parameters) else { return }
    check(report.parameters == hello.parameters, "a start report is read otherwise than it is written")
  case .resolve, .logs, .listening, .datagrams: break
  }
  if let ports = try? ListeningPorts.decode(hello.parameters) {
    check(ListeningPorts.encode(ports) == hello.parameters, "\(ports)")
  }
}
