import DNS

/// A DNS message of a program or of a server.
let dns = Harness("dns", limit: 1024) { bytes in
  guard var message = DNSMessage(bytes) else { return }
  let question = message.question
  if let question {
    check(question.end <= bytes.count && !question.description.isEmpty, "\(question)")
    check(question.description.utf8.allSatisfy { (0x20...0x7e).contains($0) }, "a name that is not printable")
  }
  check((512...65535).contains(message.udpLimit), "\(message.udpLimit)")
  for short in [message.errorResponse(code: 2), message.truncated()] {
    check(short.question == question && short.id == message.id, "another question is answered")
    check(DNSMessage(short.bytes) == short && short.udpLimit == DNSMessage.plainUDPLimit, "what we make is no message")
  }
  message.id = ~message.id
  check(message.question == question, "the number changes the question")
}
