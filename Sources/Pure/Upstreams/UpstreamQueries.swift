import DNS

// Theory of operation.
//
// Which server is asked what, without a socket and without a clock:
//
//   query ▶ the first server that does not rest ▶ its connection ▶ answered, if its id and question fit
//                      ▲                              │ lost, or no answer in time
//                      └──────── the next one ◀───────┘   behind the last: SERVFAIL
//
// A server may end a connection on which it has answered whenever it likes (RFC 7766 section 6.2.3), and a query may just be
// under way then: it is asked once more on another connection. A server to which no good connection could be made, or that is
// silent, rests for a second, then for two, up to eight, so that a program that asks again and again does not make a handshake
// or wait each time.

/// The queries under way to several servers.
public struct UpstreamQueries {
  /// In nanoseconds: how long one server may take, its connection included.
  public static let patience: UInt64 = 5_000_000_000
  /// In nanoseconds: how long one that has failed is not asked; twice as long each time, up to eight times.
  public static let rest: UInt64 = 1_000_000_000
  /// More than the proxy has under way.
  public static let limit = 8192
  private static let servfail: UInt8 = 2

  public enum Action: Equatable {
    /// The server has something to ask: `take` has it.
    case ask(server: Int)
    /// No server has an answer; this is the response.
    case fail(DNSMessage)
  }

  private struct Entry {
    var query: DNSMessage
    var question: DNSMessage.Question
    var server: Int
    var deadline: UInt64
    var isSent = false
    var isRepeated = false
  }

  private var entries: [UInt16: Entry] = [:]
  /// Until when each server rests.
  private var resting: [UInt64]
  /// How often each has failed since its last answer.
  private var failures: [UInt64]
  /// For each server what it has not been sent yet, and perhaps what has gone meanwhile.
  private var unsent: [[UInt16]]

  public init(servers: Int) {
    resting = [UInt64](repeating: 0, count: servers)
    failures = resting
    unsent = [[UInt16]](repeating: [], count: servers)
  }

  public var isEmpty: Bool { entries.isEmpty }

  /// - Parameter query: with an id that no other query under way has; one that has replaces it.
  public mutating func add(_ query: DNSMessage, now: UInt64) -> Action? {
    guard !query.isResponse, let question = query.question else { return nil }
    guard entries.count < Self.limit else { return .fail(query.errorResponse(code: Self.servfail)) }
    let entry = Entry(query: query, question: question, server: -1, deadline: 0)
    return assign(query.id, entry, from: 0, now)
  }

  /// Gives a query to the first server from `first` on that does not rest.
  private mutating func assign(_ id: UInt16, _ entry: Entry, from first: Int, _ now: UInt64) -> Action {
    guard let server = resting.indices.dropFirst(first).first(where: { resting[$0] <= now }) else {
      entries[id] = nil
      return .fail(entry.query.errorResponse(code: Self.servfail))
    }
    var entry = entry
    entry.server = server
    entry.isSent = false
    entry.deadline = now &+ Self.patience
    entries[id] = entry
    unsent[server].append(id)
    return .ask(server: server)
  }

  public func isWaiting(for server: Int) -> Bool { entries.values.contains { $0.server == server } }

  /// What is to be sent to a server now.
  public mutating func take(for server: Int) -> [DNSMessage] {
    var queries: [DNSMessage] = []
    for id in unsent[server] {
      guard let entry = entries[id], entry.server == server, !entry.isSent else { continue }
      entries[id]?.isSent = true
      queries.append(entry.query)
    }
    unsent[server] = []
    return queries
  }

  /// - Returns: whether the response is one to a query that this server was asked, which then is no longer under way.
  public mutating func answered(_ response: DNSMessage, by server: Int) -> Bool {
    guard response.isResponse, let entry = entries[response.id], entry.server == server, entry.isSent,
      response.question?.asksTheSame(as: entry.question) ?? false
    else { return false }
    entries[response.id] = nil
    failures[server] = 0
    return true
  }

  /// The server has no answer to this query.
  public mutating func failed(_ id: UInt16, at server: Int, now: UInt64) -> Action? {
    guard let entry = entries[id], entry.server == server else { return nil }
    return assign(id, entry, from: server + 1, now)
  }

  /// A connection has ended.
  /// - Parameter hasAnswered: it was a good one. Otherwise the server rests.
  public mutating func lost(_ server: Int, hasAnswered: Bool, now: UInt64) -> [Action] {
    if !hasAnswered {
      resting[server] = now &+ Self.rest << min(failures[server], 3)
      failures[server] += 1
    }
    var actions: [Action] = []
    for (id, entry) in entries where entry.server == server {
      guard hasAnswered, !entry.isRepeated else {
        actions.append(assign(id, entry, from: server + 1, now))
        continue
      }
      var again = entry
      again.isRepeated = true
      actions.append(assign(id, again, from: server, now))
    }
    return actions
  }

  /// Those whose server has taken too long.
  public mutating func expired(now: UInt64) -> (servers: Set<Int>, actions: [Action]) {
    var servers: Set<Int> = []
    var actions: [Action] = []
    for (id, entry) in entries where entry.deadline <= now {
      servers.insert(entry.server)
      actions.append(assign(id, entry, from: entry.server + 1, now))
    }
    return (servers, actions)
  }
}
