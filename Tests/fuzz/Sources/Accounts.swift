import EnclaveConfig

/// A program's user, with the enclave's passwd and group, which an image brings.
let accounts = Harness("accounts", limit: 1024) { bytes in
  let parts = String(decoding: bytes, as: UTF8.self).split(separator: "\u{0}", omittingEmptySubsequences: false)
  guard parts.count == 3 else { return }
  do throws(AccountError) {
    let account = try Account(String(parts[0]), passwd: String(parts[1]), group: String(parts[2]))
    check(account.uid != .max && account.gid != .max, "the id that stands for none")
  } catch {
    check(!error.description.isEmpty, "no reason")
  }
}
