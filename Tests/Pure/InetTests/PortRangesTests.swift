import Inet
import Testing

/// Which ports are whose, where a host and an enclave have one address.
@Suite struct PortRangesTests {
  @Test func texts() {
    #expect(PortRanges.range("80") == 80...80)
    #expect(PortRanges.range("1024-61439") == 1024...61439)
    #expect(PortRanges.range("1-65535") == 1...65535)
    for text in ["", "0", "0-5", "-", "80-", "-80", "90-80", "1-2-3", "65536", "1-65536", " 80", "+80", "0x50"] {
      #expect(PortRanges.range(text) == nil, "\(text)")
    }
  }

  @Test func joinedAndInOrder() {
    let ports = PortRanges([443...443, 80...80, 1024...2000, 1500...3000, 3001...3001])
    #expect(ports.description == "80, 443, 1024-3001")
    #expect(ports.contains(80) && ports.contains(3001) && !ports.contains(81) && !ports.contains(3002))
    #expect(ports.widest == 1024...3001)
    #expect(PortRanges([0...65535, 5...6]).description == "0-65535")
  }

  @Test func rest() {
    #expect(PortRanges([80...80, 443...443, 1024...61439]).rest.description == "61440-65535")
    #expect(PortRanges([2000...3000]).rest.description == "1024-1999, 3001-65535")
    #expect(PortRanges([]).rest.description == "1024-65535")
    #expect(PortRanges([1...65535]).rest.ranges.isEmpty)
    #expect(PortRanges([1...65535]).rest.widest == nil)
    #expect(PortRanges([500...1500, 60000...65535]).rest.description == "1501-59999")
  }
}
