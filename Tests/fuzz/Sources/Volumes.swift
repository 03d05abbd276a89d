import EnclaveConfig
import Inet
import Volumes

/// What a mount's process reads: a server's sign of life, a name server's answer, PID 1's document.
let volume = Harness("volume") { bytes in
  // Bytes that come in pieces say the same as at once, and what is said never changes with what comes behind it.
  var said: NullCall.Reply?
  for length in 0...min(bytes.count, 40) {
    let reply = NullCall.reply(Array(bytes.prefix(length)), to: 0x0102_0304)
    if let said { check(reply == said, "a reply changes with what comes behind it") }
    if reply != .incomplete { said = reply }
  }
  check(said != nil || bytes.count < 28, "a whole reply is never enough")
  if let name = try? DomainName(text: "nfs.test") {
    for ipv6 in [false, true] {
      let query = AddressQuery(name, ipv6: ipv6, id: 7)
      guard let answer = query.addresses(bytes) else { continue }
      check(bytes.count >= 12 && bytes[0] == 0 && bytes[1] == 7, "an answer to another question is taken")
      for address in answer.addresses {
        if case .v4 = address { check(!ipv6, "an address of the other family") } else { check(ipv6, "the same") }
      }
    }
  }
  if let work = try? MountWork(document: bytes) {
    check((try? MountWork(document: work.document)) == work, "a document is read otherwise than it is written")
  }
}
