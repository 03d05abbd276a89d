import Supervision
import Testing

/// What becomes of a signal on its way to the program, without a process.
struct SignalRulesTests {
  @Test func allThatCanBePassedIs() {
    #expect(SignalRules.passed.count == 55)
    #expect(Set(1...64).subtracting(SignalRules.passed) == [4, 5, 7, 8, 9, 11, 17, 19, 31])
  }

  /// As a shell has it with a job: what does nothing about the signal stops, with its children, and all go on again.
  @Test func aJobStopsAndContinues() {
    for signal: Int32 in 20...22 {
      var job = JobControl()
      #expect(job.delivery(of: signal) { .standard } == .init(19, toGroup: true))
      #expect(job.isAskedToStop)
      #expect(job.delivery(of: 18) { .standard } == .init(18, toGroup: true))
      #expect(!job.isAskedToStop)
    }
  }

  @Test func whatAProgramHandlesItGetsAsItIs() {
    var job = JobControl()
    #expect(job.delivery(of: 18) { .handled } == .init(18))
    #expect(job.delivery(of: 20) { .handled } == .init(20))
    // It may stop by itself now, which is a stopped job too.
    #expect(job.isAskedToStop)
    var asked = 0
    for signal in SignalRules.passed where !JobControl.stopsJob(signal) && signal != 18 {
      let delivery = job.delivery(of: signal) {
        asked += 1
        return .handled
      }
      #expect(delivery == .init(signal))
    }
    #expect(asked == 0)
  }

  /// A status as proc(5) has it: SIGTSTP is bit 19.
  @Test(arguments: ["SigBlk", "SigIgn", "SigCgt"])
  func aDisposition(_ field: String) {
    func status(_ mask: String) -> String {
      "Name:\tsh\nSigQ:\t1/2\nSigPnd:\tffffffffffffffff\n\(field):\t\(mask)\nCapInh:\tff\n"
    }
    #expect(JobControl.Disposition(of: 20, status: status("0000000000080000")) == .handled)
    #expect(JobControl.Disposition(of: 21, status: status("0000000000080000")) == .standard)
    #expect(JobControl.Disposition(of: 64, status: status("8000000000000000")) == .handled)
    #expect(JobControl.Disposition(of: 20, status: status("fffffffffff7ffff")) == .standard)
    for text in ["", "\n", status(""), status("x"), status("fffffffffffffffff"), "\(field):", "\(field):\t"] {
      #expect(JobControl.Disposition(of: 20, status: text) == .standard)
    }
    for signal in [Int32.min, -1, 0, 65, .max] {
      #expect(JobControl.Disposition(of: signal, status: status("ffffffffffffffff")) == .standard)
    }
  }
}
