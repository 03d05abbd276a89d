import HostStatus
import VhostVsock

/// What another process says of itself when `tombolo status` asks it, and the name of a hybrid socket's peer.
let status = Harness("status") { bytes in
  let text = String(decoding: bytes, as: UTF8.self)
  _ = HybridPeerName(abstractName: text)
  let shown = HostStatus.printable(text)
  check(
    shown.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f..<0xa0).contains($0.value) },
    "a name that a terminal obeys")
  guard let status = try? HostStatus(json: bytes) else { return }
  check(!"\(status)".isEmpty, "no words")
  guard let again = try? status.encoded() else { return check(false, "it is not written again") }
  check((try? HostStatus(json: again)) == status, "it is read otherwise than it was written")
}
