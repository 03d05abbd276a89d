import AttestationCalls
import HTTP
import SecurityModule

/// What programs of an enclave send to the attestation service: in one piece and byte by byte it is the same.
let http = Harness("http") { bytes in
  func read(_ size: Int) -> ([HTTPRequest], HTTPDefect?) {
    var parser = HTTPParser()
    var requests: [HTTPRequest] = []
    var rest = bytes[...]
    do throws(HTTPDefect) {
      while !rest.isEmpty {
        parser.feed(Array(rest.prefix(size)))
        rest = rest.dropFirst(size)
        while let request = try parser.next() {
          check(request.body.count <= HTTPParser.bodyLimit, "a body is longer than its limit")
          requests.append(request)
        }
      }
      return (requests, nil)
    } catch {
      return (requests, error)
    }
  }
  let whole = read(bytes.count + 1)
  guard bytes.count <= 4096 else { return }
  let pieces = read(1)
  check(whole.0 == pieces.0 && whole.1 == pieces.1, "pieces give something else than the whole")
  for request in whole.0 { _ = try? AttestationCall(request) }
  _ = JSONText.object(bytes)
  let text = String(decoding: bytes, as: UTF8.self)
  if let decoded = TextCodings.bytes(base64: text) {
    check(TextCodings.bytes(base64: TextCodings.base64(decoded)) == decoded, "base64 is read otherwise than written")
  }
  _ = TextCodings.bytes(pem: text)
}

/// What the security module answers, and what the one in memory is asked.
let securityModule = Harness("security-module") { bytes in
  for request in [
    ModuleRequest.describePCR(16), .extendPCR(17, [1]), .lockPCR(16), .lockPCRs(17), .describe, .random,
    .attestation(.init()),
  ] {
    if let answer = try? ModuleAnswer(bytes, to: request) {
      check((try? ModuleAnswer(answer.bytes(to: request), to: request)) == answer, "an answer is written otherwise")
    }
  }
  _ = DocumentLife.remaining(bytes)
  if let request = ModuleRequest(bytes: bytes) {
    check(ModuleRequest(bytes: request.bytes) == request, "a request is written otherwise")
  }
  var module = SimulatedModule()
  let answer = module.answer(bytes, milliseconds: 1) { [UInt8](repeating: 1, count: $0) }
  if let request = ModuleRequest(bytes: bytes) {
    do throws(ModuleFailure) { _ = try ModuleAnswer(answer, to: request) } catch {
      if case .refused = error { return }
      check(false, "the module in memory answers what is no answer")
    }
  }
}

/// When the certificate ends that the security module has signed with.
let certificateDates = Harness("certificate-dates") { bytes in
  // Bytes that end too early are no certificate; with one more they may be.
  guard let end = CertificateDates.end(bytes) else { return }
  // What stands behind a certificate is none of its business.
  check(CertificateDates.end(bytes + [0]) == end, "a byte behind the certificate changes when it ends")
}
