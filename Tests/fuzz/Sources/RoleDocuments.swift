import Proxying
import Roles

/// What PID 1 hands to the proxy.
let roleDocument = Harness("role-document") { bytes in
  guard let reader = try? RoleReader(bytes, role: "proxy") else { return }
  var writer = RoleWriter()
  check(reader.has("") == false, "a field without a name")
  writer.put("a", bytes)
  var again = try? RoleReader(writer.bytes, role: "proxy")
  check((try? again?.take("a")).map { Array($0) } == bytes, "a value is read otherwise than it is written")
  _ = try? ProxyPlan(document: bytes)
}
