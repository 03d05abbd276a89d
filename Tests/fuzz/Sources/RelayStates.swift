import Wire

@testable import Relaying

/// Any events at the two sockets of a relay: it never does the same for ever, and does nothing twice that may be done once.
let relayState = Harness("relay-state", limit: 512) { bytes in
  var choices = Choices(bytes)
  var state = RelayState(framed: choices.flag())
  var told = 0
  while !choices.isEmpty {
    event(&state, &choices)
    var steps = 0
    run: while true {
      steps += 1
      check(steps < 1000, "it does not come to rest")
      switch state.next {
      case .wait, .settle, .finish: break run
      case .read(let side):
        // Behind the input's end sockets are empty.
        switch choices.isEmpty ? 0 : choices.below(5) {
        case 0: state.drained(side)
        case 1: state.gave(side, short: true)
        case 2:
          state.gave(side, short: choices.flag())
          if state.takes(side.other), choices.flag() {
            state.wouldBlock(side.other)
            state.setQueued(side.other, true)
          }
        case 3: if isFramed(state, side), choices.flag() { state.closed(side) } else { state.ended(side) }
        default: state.conclude(.reset(.reset), by: side)
        }
      case .write(let side):
        if choices.flag() { state.wouldBlock(side) } else { state.setQueued(side, false) }
        if choices.below(8) == 7 { state.refused(side, .reset(.reset)) }
      case .shut(let side):
        check(!state[side].contains(.finSent), "an end is sent twice")
        state.happened(.finSent, side)
        if isFramed(state, side) { state.setQueued(side, true) }
      case .tell(let side, _):
        told += 1
        check(told == 1, "a reset is sent twice")
        state.didTell(side)
      case .ask(let side): state.asked(side, choices.flag() ? .reset(.reset) : nil)
      }
    }
    if case .finish = state.next { return }
  }
}

private func isFramed(_ state: RelayState, _ side: RelaySide) -> Bool { state[side].contains(.framed) }

private func event(_ state: inout RelayState, _ choices: inout Choices) {
  let side: RelaySide = choices.flag() ? .plain : .stream
  switch choices.below(6) {
  case 0, 1: state.happened(.readable, side)
  case 2: state.happened(.writable, side)
  case 3: state.happened([.readable, .hangup], side)
  case 4: state.happened([.readable, .hangup, .broken, .writable], side)
  default: state.happened([.readable, .urgent], side)
  }
}
