import Wire

/// The records of a log stream, however they are cut.
let logRecords = Harness("log-records") { bytes in
  var choices = Choices(bytes)
  let cut = 1 + choices.below(64)
  let stream = choices.remainder()
  let whole = decode([stream])
  check(
    decode(stride(from: 0, to: stream.count, by: cut).map { Array(stream[$0..<min(stream.count, $0 + cut)]) }) == whole,
    "cuts of \(cut) bytes give other records")
  let written = whole.flatMap { $0.encoded() }
  check(written == Array(stream.prefix(written.count)), "records are read otherwise than they are written")
}

private func decode(_ pieces: [[UInt8]]) -> [LogRecord] {
  var decoder = LogRecordDecoder()
  var records: [LogRecord] = []
  for piece in pieces {
    decoder.append(piece)
    do throws(WireError) {
      while let record = try decoder.next() { records.append(record) }
    } catch {
      return records
    }
  }
  return records
}
