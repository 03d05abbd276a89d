import ArgumentParser
import CLinux
import HostRights
import LinuxSystem
import Seccomp
import VhostVsock

/// `tombolo vsock-device`: the vsock device of `tombolo boot` for anybody's QEMU.
struct VsockDeviceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "vsock-device",
    abstract: "Gives a virtual machine a vsock device whose other side is Unix sockets.",
    discussion: """
      QEMU: -chardev socket,id=c,path=VHOST.sock with -M nitro-enclave,vsock=c, or, with shared memory
      (-object memory-backend-memfd,id=m,size=SIZE,share=on -M q35,memory-backend=m),
      -device vhost-user-vsock-pci,chardev=c.
      A guest's connection to port N of CID 3 or 2 is a connection to UDS_N. A program that connects to UDS and writes
      "CONNECT N" and a newline is answered "OK PORT" when the guest has accepted. Ends on SIGTERM and SIGINT.
      """)

  @Option(name: .long, help: ArgumentHelp("Where QEMU connects.", valueName: "path"))
  var socket: String
  @Option(name: .long, help: "The guest's CID: 3 to 4294967294.")
  var cid: UInt32
  @Option(
    name: .long,
    help: ArgumentHelp("The host side's Unix socket; UDS_PORT for the guest's connections.", valueName: "path"))
  var uds: String
  @Option(name: .long, help: "The parent's CID that connections to the guest come from: 3 or 2.")
  var parentCid: UInt32 = 3
  @Flag(name: .long, help: "End when QEMU has disconnected, instead of waiting for the next one.")
  var once = false

  func run() throws {
    // One descriptor a stream: the usual soft limit of 1024 is too few.
    raiseOpenFilesLimits()
    let signals = OwnedFileDescriptor(
      try [SIGTERM, SIGINT].withUnsafeBufferPointer { list throws(SystemError) in
        try check("signalfd", "", clinux_signalfd(list.baseAddress, Int32(list.count)))
      })
    var options = VhostVsockDevice.Options()
    options.parentCID = parentCid
    options.endsWithMonitor = once
    do {
      let device = try VhostVsockDevice(socketPath: socket, guestCID: cid, hybridPath: uds, options: options)
      try reduceRights()
      try device.run(until: signals.rawValue)
    } catch {
      throw fail("\(error)")
    }
  }

  /// A guest's memory and messages are read from here on. It stays the user that it is: programs put their sockets where that
  /// user may connect.
  private func reduceRights() throws {
    let own = [socket, uds].map { path in path.lastIndex(of: "/").map { String(path[...$0]) } ?? "." }
    try HostRights.reduce(to: .vsockDevice, becoming: nil, readable: own, removable: true, note: { _ in })
  }
}
