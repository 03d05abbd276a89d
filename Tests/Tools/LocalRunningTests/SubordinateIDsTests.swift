import Testing

@testable import LocalRunning

struct SubordinateIDsTests {
  static let text = """
    # comment
    other:50000:1000
    alice:100000:65536
    1000:300000:10
    alice:x:5
    alice:4294967290:100
    alice:1:2:3
    alice:7:0
    """

  /// The ids of this user, by name and by number, one behind the other; of nobody else.
  @Test func allRangesOfTheUser() {
    let ids = SubordinateIDs(own: 1000, text: Self.text, name: "alice", uid: 1000)
    #expect(ids.ranges == [.init(start: 100_000, count: 65_536), .init(start: 300_000, count: 10)])
    #expect(ids.total == 65_547)
    #expect(ids.mapping == [0, 1000, 1, 1, 100_000, 65_536, 65_537, 300_000, 10])
  }

  @Test func nobodyElses() {
    let ids = SubordinateIDs(own: 1001, text: Self.text, name: nil, uid: 1001)
    #expect(ids.ranges.isEmpty && ids.total == 1 && ids.mapping == [0, 1001, 1])
  }
}
