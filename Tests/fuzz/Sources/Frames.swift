import Wire

/// The frames of a connect stream: however they are cut, the same bytes and the same end.
let frames = Harness("frames") { bytes in
  var choices = Choices(bytes)
  let cut = 1 + choices.below(64)
  let stream = choices.remainder()
  let whole = decode([stream])
  let pieces = stride(from: 0, to: stream.count, by: cut).map { Array(stream[$0..<min(stream.count, $0 + cut)]) }
  check(decode(pieces) == whole, "cuts of \(cut) bytes give other frames")
}

private struct Decoded: Equatable {
  var data: [UInt8] = []
  var ends: [FrameDecoder.Event] = []
  var error: WireError?
}

private func decode(_ pieces: [[UInt8]]) -> Decoded {
  var decoder = FrameDecoder()
  var decoded = Decoded()
  for piece in pieces where decoded.error == nil {
    piece.withUnsafeBytes { buffer in
      var offset = 0
      do throws(WireError) {
        while let event = try decoder.next(in: buffer, offset: &offset) {
          if case .data(let range) = event {
            decoded.data += buffer[range]
          } else {
            decoded.ends.append(event)
          }
        }
        check(offset == buffer.count, "bytes are left")
      } catch {
        decoded.error = error
      }
    }
  }
  return decoded
}
