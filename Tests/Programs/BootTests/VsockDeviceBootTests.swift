import CLinux
import Foundation
import LinuxSystem
import Testing
import VhostVsock

/// Real kernels in a real QEMU on our vsock device: what a program in an enclave has of the network at all.
@Suite(.serialized) struct VsockDeviceBootTests {
  enum Machine: String, CaseIterable, Sendable { case nitroEnclave, q35Linux61, q35Linux612 }

  @Test(arguments: Machine.allCases) func everythingAVsockDeviceIsFor(_ machine: Machine) throws {
    let assets = try BootAssets()
    let directory = "/tmp/tombolo-boot-\(UInt32.random(in: 0...UInt32.max))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
    defer { removeTree(directory) }
    let arguments = try prepare(machine, assets, directory)

    let device = try VhostVsockDevice(socketPath: directory + "/vhost", guestCID: 4, hybridPath: directory + "/uds")
    let stop = clinux_eventfd()
    defer { _ = clinux_vhost_close(stop) }
    let ended = DispatchSemaphore(value: 0)
    let fault = Box<VhostVsockError?>(nil)
    Thread {
      do throws(VhostVsockError) { try device.run(until: stop) } catch { fault.value = error }
      ended.signal()
    }.start()
    let host = try BootHost(path: directory + "/uds")

    let qemu = Process()
    qemu.executableURL = URL(fileURLWithPath: assets.folder + "/qemu/qemu-system-x86_64")
    qemu.arguments = arguments
    qemu.standardInput = Foundation.FileHandle.nullDevice
    let console = Pipe()
    qemu.standardOutput = console
    qemu.standardError = console
    try qemu.run()
    let pid = qemu.processIdentifier
    let limit = DispatchWorkItem { kill(pid, SIGKILL) }
    DispatchQueue.global().asyncAfter(deadline: .now() + 90, execute: limit)
    let text = String(decoding: console.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    qemu.waitUntilExit()
    limit.cancel()
    var one: UInt64 = 1
    _ = clinux_write(stop, &one, 8)
    #expect(ended.wait(timeout: .now() + 10) == .success)
    #expect(fault.value == nil)

    for expected in [
      "ok heartbeat", "ok refused", "ok upload in pieces of 1048576", "ok upload in pieces of 65536", "ok download",
      "ok 1000 of 1000 streams", "ok host's turn",
    ] { #expect(text.contains(expected), "\(machine): \(text)") }
    #expect(!text.contains("FAIL"), "\(text)")
    #expect(qemu.terminationStatus == 0)
    #expect(host.outcome() == ["last words", "refused port closed", "echo with half-close"])
  }

  final class Box<Value>: @unchecked Sendable {
    var value: Value
    init(_ value: Value) { self.value = value }
  }

  private func prepare(_ machine: Machine, _ assets: BootAssets, _ directory: String) throws -> [String] {
    let program = directory + "/init"
    try output(
      "/usr/bin/env", ["cc", "-O2", "-static", "-o", program, BootAssets.repository + "/Tests/boot-guests/vsock.c"])
    var arguments = [
      "-L", assets.folder + "/qemu/share", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
      "-serial", "stdio", "-accel", "tcg", "-cpu", "max", "-m", "512M", "-smp", "1",
      "-chardev", "socket,id=c,path=\(directory)/vhost",
    ]
    if machine == .nitroEnclave {
      let kernel = try Data(contentsOf: URL(fileURLWithPath: assets.folder + "/kernel-enclave/bzImage"))
      let image = GuestImage.eif(
        kernel: kernel,
        commandLine: "reboot=k panic=30 pci=off nomodules console=ttyS0 i8042.noaux i8042.nomux i8042.nopnp "
          + "i8042.dumbkbd random.trust_cpu=on",
        ramdisk: try GuestImage.initramfs(initProgram: program, modules: []))
      try image.write(to: URL(fileURLWithPath: directory + "/image.eif"))
      arguments += [
        "-M", "nitro-enclave,vsock=c,id=test", "-kernel", directory + "/image.eif", "-append", "quiet reboot=t",
      ]
    } else {
      let kernel = machine == .q35Linux61 ? "kernel-6.1" : "kernel-6.12"
      let modules = try assets.modules(["virtio_pci", "vmw_vsock_virtio_transport"], kernel: kernel)
      try GuestImage.initramfs(initProgram: program, modules: modules).write(
        to: URL(fileURLWithPath: directory + "/initrd"))
      arguments += [
        "-object", "memory-backend-memfd,id=m,size=512M,share=on", "-M", "q35,memory-backend=m",
        "-device", "vhost-user-vsock-pci,chardev=c", "-kernel", "\(assets.folder)/\(kernel)/vmlinuz",
        "-initrd", directory + "/initrd", "-append", "console=ttyS0 quiet panic=-1 reboot=t",
      ]
    }
    return arguments
  }
}

/// The programs on the host's side, a thread for each connection; their sockets end with QEMU.
final class BootHost: @unchecked Sendable {
  private let path: String
  private let lock = NSLock()
  private var results: Set<String> = []
  private let done = DispatchSemaphore(value: 0)

  init(path: String) throws {
    self.path = path
    try serve(9000) { fd in Self.copy(fd, fd) }
    try serve(9003) { fd in Self.copy(fd, fd) }
    // What the guest sends repeats after 1 MiB; twice that, so that any piece of it can be compared at once.
    let pattern = (0..<2 << 20).map { UInt8(truncatingIfNeeded: ($0 & 0xfffff) &* 7 &+ ($0 & 0xfffff) / 251) }
    try serve(9001) { fd in
      var (count, wrong) = (0, 0)
      Self.readAll(fd) { bytes in
        let same = bytes.withUnsafeBytes { got in
          pattern.withUnsafeBytes { expected in
            guard let one = got.baseAddress, let other = expected.baseAddress else { return false }
            return memcmp(one, other + (count & 0xfffff), got.count) == 0
          }
        }
        if !same { wrong += 1 }
        count += bytes.count
      }
      Self.write(fd, Array("\(count) bytes, \(wrong) wrong pieces".utf8))
    }
    try serve(9002) { fd in
      let piece = (0..<251 * 256).map { UInt8($0 % 251) }
      var left = 64 << 20
      while left > 0 {
        guard Self.write(fd, Array(piece.prefix(left))) else { return }
        left -= min(left, piece.count)
      }
    }
    try serve(9004) { [self] _ in
      if connect(5999, []) == nil { record("refused port closed") }
      if let echo = connect(5000, Array("early ".utf8)) {
        let bytes = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let writer = Thread {
          Self.write(echo, bytes)
          _ = clinux_vhost_shutdown(echo, Int32(SHUT_WR))
        }
        writer.start()
        var got: [UInt8] = []
        Self.readAll(echo) { got += $0 }
        _ = clinux_vhost_close(echo)
        if got == Array("early ".utf8) + bytes + Array("END".utf8) { record("echo with half-close") }
      }
    }
    try serve(9005) { [self] fd in
      var got: [UInt8] = []
      Self.readAll(fd) { got += $0 }
      record(String(decoding: got, as: UTF8.self))
      done.signal()
    }
  }

  func outcome() -> Set<String> {
    _ = done.wait(timeout: .now() + 5)
    return lock.withLock { results }
  }

  private func record(_ text: String) { _ = lock.withLock { results.insert(text) } }

  private func serve(_ port: UInt32, _ body: @escaping @Sendable (Int32) -> Void) throws {
    let listener = clinux_vhost_unix_listen("\(path)_\(port)", 1024)
    guard listener >= 0, clinux_set_nonblocking(listener, false) == 0 else { throw BootFailure("listen on \(port)") }
    Thread {
      while true {
        let fd = clinux_accept(listener, nil)
        guard fd >= 0 else { return }
        _ = clinux_set_nonblocking(fd, false)
        Thread {
          body(fd)
          _ = clinux_vhost_close(fd)
        }.start()
      }
    }.start()
  }

  /// A connection to the guest through `CONNECT`; nil where it is refused.
  private func connect(_ port: UInt32, _ early: [UInt8]) -> Int32? {
    let fd = clinux_vhost_unix_stream("")
    _ = clinux_set_nonblocking(fd, false)
    guard clinux_vhost_unix_connect(fd, path) == 0, Self.write(fd, Array("CONNECT \(port)\n".utf8) + early) else {
      return nil
    }
    var line: [UInt8] = []
    var byte: UInt8 = 0
    while clinux_read(fd, &byte, 1) == 1 {
      line.append(byte)
      if byte == UInt8(ascii: "\n") { return line.starts(with: Array("OK ".utf8)) ? fd : nil }
    }
    _ = clinux_vhost_close(fd)
    return nil
  }

  @discardableResult
  private static func write(_ fd: Int32, _ bytes: [UInt8]) -> Bool {
    var done = 0
    while done < bytes.count {
      let result = bytes.withUnsafeBytes { clinux_send(fd, $0.baseAddress.map { $0 + done }, $0.count - done, 0) }
      if result <= 0 { return false }
      done += result
    }
    return true
  }

  private static func readAll(_ fd: Int32, _ body: (ArraySlice<UInt8>) -> Void) {
    var chunk = [UInt8](repeating: 0, count: 1 << 17)
    while true {
      let result = chunk.withUnsafeMutableBytes { clinux_read(fd, $0.baseAddress, $0.count) }
      if result <= 0 { return }
      body(chunk[..<result])
    }
  }

  private static func copy(_ from: Int32, _ to: Int32) { readAll(from) { write(to, Array($0)) } }
}
