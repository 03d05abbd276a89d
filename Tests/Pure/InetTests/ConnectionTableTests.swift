import Inet
import Testing

@Suite struct ConnectionTableTests {
  private static let four = """
      sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
       0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
       1: 020000C0:9C40 0200080A:01BB 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
       2: 020000C0:9C41 0200080A:01BB 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
       3: 020000C0:9C42 0200080A:01BB 02 00000000:00000000 00:00000000 00000000     0        0 0 3 0
       4: 020000C0:9C43 0200080A:0050 08 00000000:00000000 00:00000000 00000000     0        0 0 3 0

    """
  private static let six = """
      sl  local_address                         remote_address                        st tx_queue
       0: 6D6F54FD01006F620000000002000000:9C40 000008FD000000000000000002000000:1F90 05 00000000:00000000 00
       1: 0000000000000000FFFF0000020000C0:9C44 0000000000000000FFFF00000200080A:1F90 01 00000000:00000000 00

    """

  @Test("the connections of an earlier proxy are found, whatever their state, and no others")
  func reads() {
    var table = ConnectionTable()
    // In pieces, as a file is read.
    for byte in Array((Self.four + Self.six).utf8) { table.add([byte]) }
    #expect(
      table.connections.map { "\($0.local) \($0.remote)" } == [
        "192.0.0.2:40000 10.8.0.2:443", "192.0.0.2:40003 10.8.0.2:80",
        "[fd54:6f6d:626f:1::2]:40000 [fd08::2]:8080", "192.0.0.2:40004 10.8.0.2:8080",
      ])
  }

  @Test("whatever else a file has is passed over")
  func hostile() {
    var table = ConnectionTable()
    table.add(Array("1: x y 01\n2: 020000C0 0200080A 01\n3: 020000C:9C40 0200080A:01BB 01 \n: : : :\n".utf8))
    for _ in 0..<10_000 { table.add((0..<64).map { _ in UInt8.random(in: 0...127) }) }
    #expect(table.connections.isEmpty)
  }
}
