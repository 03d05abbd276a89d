import Policy

extension Configuration {
  /// The limits of connections in [network].
  mutating func readConnections(_ table: inout TableReader) throws(ConfigurationError) {
    if let most = try table.integer("max_outgoing", in: ConnectionLimits.range) { connections.outgoing = most }
    if let most = try table.integer("max_incoming", in: ConnectionLimits.range) { connections.incoming = most }
    connections.idle =
      try table.value("idle_timeout", ConnectionLimits.limitForm, connectionLimit) ?? connections.idle
    connections.halfClosed =
      try table.value("half_closed_timeout", ConnectionLimits.limitForm, connectionLimit) ?? connections.halfClosed
    connections.connect =
      try table.value("connect_timeout", ConnectionLimits.timeForm, connectionTime) ?? connections.connect
    connections.hello = try table.value("hello_timeout", ConnectionLimits.timeForm, connectionTime) ?? connections.hello
  }
}

/// A time limit of connections, from "1s".
public func connectionTime(_ text: String) -> Duration? {
  parseDuration(text).flatMap { ConnectionLimits.isTime($0) ? $0 : nil }
}

/// The same, or `.some(nil)` for "forever".
public func connectionLimit(_ text: String) -> Duration?? {
  if text == "forever" { return .some(nil) }
  return connectionTime(text).map { .some($0) } ?? nil
}
