import BootPlanning

/// What `tombolo run` hands to its `tombolo-init`.
let localDocument = Harness("local-document") { bytes in
  guard let content = LocalDocument.decode(bytes) else { return }
  check(LocalDocument.decode(LocalDocument.encode(content)) == content, "\(content)")
}
