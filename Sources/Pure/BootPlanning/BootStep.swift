import EnclaveConfig
import Inet
import Netfilter
import Policy

/// One step on the way from a started init to a started program. A boot is a list of these, so that it can be
/// printed, compared and tested without a kernel.
public enum BootStep: Equatable, Sendable, CustomStringConvertible {
  /// The options of mount(8), as names.
  case mount(source: String, target: String, type: String, options: [MountOption], data: String)
  case bind(source: String, target: String, recursive: Bool)
  case bindReadOnly(source: String, target: String)
  /// A device of the machine's, under its name; one that it does not have is left out.
  case bindDevice(String)
  /// A file of the machine's: its copy, or itself, read-only. One that has gone meanwhile is left out.
  case showFile(String, at: String, copied: Bool)
  /// What has this name in a tree that others may have made links in, with all that is mounted below.
  case bindFrom(tree: String, String, at: String)
  case remountReadOnly(String)
  /// Nothing below `path` can be written any more, but for these (relative to it). What is not there is passed over.
  case protect(String, but: [String])
  /// Each of these is covered: a directory reads as empty, a file as /dev/null. What is not there is passed over.
  case mask([String])
  /// Nothing mounted from here on is seen outside, and nothing outside here.
  case makeMountsPrivate
  case makeDirectory(String, mode: UInt32)
  /// A directory with the mode of another, and where we may its owner and group: the top of an overlay is as its upper
  /// directory is.
  case makeDirectoryLike(String, at: String)
  /// What is not there is no error.
  case changeGroup(String, to: UInt32)
  /// An empty file for something to be mounted on.
  case makeFile(String)
  case makeLink(String, to: String)
  /// From here on all paths are in this root, wherever links in it point; only what binds show is the machine's.
  case enterRoot(String)
  /// Makes `path`, a name outside, the root and forgets the old one.
  case pivotRoot(String)
  /// What a kernel leaves to its init: mounts, except where the kernel has mounted already.
  case mountIfMissing(source: String, target: String, type: String, options: [MountOption], data: String)
  /// Descriptors 0 to 2 become the console.
  case openConsole
  /// The modules of an ordered list, one path a line; a list that is not there is no error.
  case loadModules(list: String)
  /// One module, removed from the image afterwards; one that is not there is no error.
  case loadModule(String)
  /// Moves `path` over the root, with the mounts named (initramfs cannot be pivoted away).
  case switchRoot(String, moving: [String])
  /// Writable cgroups where the kernel has them: version 2, and version 1 for controllers that it lacks.
  case mountControlGroups
  case raiseLimits
  /// Random bytes from /dev/nsm, credited to the kernel's pool.
  case seedEntropy
  /// The clock, from /dev/ptp0 or left as it is.
  case setClock
  /// Makes `path` read as `text`, whatever stands there: through a dangling link, over a file of a read-only image.
  case provideFile(String, text: String)
  /// A `[[mount]]` that needs no network.
  case mountLocally(MountSettings)
  /// For a `[[mount]]` that a process of its own makes later: its target, where it is missing.
  case makeMountPoint(MountSettings)
  /// What NFS servers know this client by, besides its host name: random bytes, which no other enclave has.
  case nameNFSClient
  /// The mounts of the root file system can be read and not written from here on.
  case makeRootReadOnly([String])
  case setHostname(String)
  /// A key of sysctl(8), of our own network namespace or of a kernel of our own; one that the kernel does not have is no error.
  case setSysctl(String, value: String)
  /// lo up with its addresses; `routed`: everything has a route to it.
  case bringUpLoopback(routed: Bool)
  /// The interface of raw mode, with its addresses and the default routes.
  case createTunnel(TunnelPlan)
  /// The interface of TCP mode, where the kernel has TUN devices; its descriptor is the proxy's.
  case createPacketLink(PacketLinkPlan)
  /// Where the connections arrive that the host has made, on the interface of TCP mode, if there is one.
  case listenOnPacketLink(port: UInt16)
  case installRules(Ruleset, Configuration.Firewall)
  /// What becomes an orphan below us is ours to reap (prctl(2)).
  case becomeSubreaper
  /// What is not there is no error.
  case removeFiles([String])
  /// Capabilities, one bit each, that nothing started from here on can have.
  case dropBounding(UInt64)
  /// What PID 1 uses from here on, and what the program may have besides.
  case keepCapabilities(UInt64, permitting: UInt64)
  /// Sockets on both loopbacks where redirected connections and queries arrive.
  case listenForProxy(egress: UInt16, dns: UInt16)
  /// Sockets on both loopbacks where redirected queries arrive.
  case listenForQueries(dns: UInt16)
  /// The enclave's one port.
  case listenForHost(HostListener)
  /// Where the program's streams arrive, or the host's at a port of its own.
  case listenForForward(StaticForward, HostListener?)
  /// Of the interface of raw mode.
  case openTunnelQueues(Int)
  /// Packet queues of nfnetlink_queue, that many for TCP and one for datagrams, and the pipe to the keeper of verdicts.
  case openPacketQueues(Int)
  /// On the address that the enclave's resolv.conf names: no link of the host's could answer there.
  case listenAsNameServer
  /// The program that asks the servers of `dns.upstream`, which is beside init and out of reach when the root has changed; and
  /// the pair of sockets between it and the proxy.
  case openDNSClient
  /// Whose certificates count, as the image has them before the program has run; nil: at one of the usual places.
  case readCertificates(String?)
  /// The program beside init that is the attestation service.
  case openAttestationService
  /// The security module, for that service; and who else may open it from then on.
  case openSecurityModule(AttestationSettings.Device)
  /// There is none and the service makes do without, where it may.
  case simulateSecurityModule
  /// Where clients of the attestation service come, and who of the enclave's users that may be; nil: all.
  case listenForAttestation(ports: [UInt16], callers: [String]?)
  /// Empty files for the private halves of keys, each its user's alone, which that service fills.
  case makeKeyFiles([KeyFile])
  /// The files of documents, in a directory of that service's, and the name that the configuration has for the one.
  case makeDocument(at: String)

  public struct KeyFile: Equatable, Sendable {
    public var name: String
    /// As `program.user`.
    public var user: String
  }

  public enum MountOption: String, Sendable, CaseIterable {
    case readOnly = "ro"
    case noSetUID = "nosuid"
    case noDevices = "nodev"
    case noExecution = "noexec"
  }

  public var description: String {
    switch self {
    case .mount(let source, let target, let type, let options, let data):
      return Self.mount(source: source, target: target, type: type, options: options, data: data)
    case .bind(let source, let target, let recursive): return "mount --\(recursive ? "r" : "")bind \(source) \(target)"
    case .bindReadOnly(let source, let target): return "mount --bind -o ro \(source) \(target)"
    case .bindDevice(let path): return "mount --bind -o ro \(path) \(path), where the machine has it"
    case .showFile(let source, let target, let copied):
      return copied ? "cp -p \(source) \(target)" : "mount --bind -o ro \(source) \(target)"
    case .bindFrom(let tree, let path, let target): return "mount --rbind \(tree)\(path) \(target), within \(tree)"
    case .remountReadOnly(let path): return "mount -o remount,bind,ro \(path)"
    case .protect(let path, let exceptions):
      let rest = exceptions.isEmpty ? "" : ", but for \(exceptions.joined(separator: ", "))"
      return "mount --rbind \(path) \(path); mount -o remount,bind,ro \(path)\(rest)"
    case .mask(let paths): return "mask \(paths.joined(separator: ", "))"
    case .makeMountsPrivate: return "mount --make-rprivate /"
    case .makeDirectory(let path, let mode): return "mkdir -m \(String(mode, radix: 8)) \(path)"
    case .makeDirectoryLike(let model, let path): return "mkdir \(path), with the mode and the owner of \(model)"
    case .changeGroup(let path, let group): return "chgrp \(group) \(path)"
    case .makeFile(let path): return "touch \(path)"
    case .makeLink(let path, let target): return "ln -s \(target) \(path)"
    case .enterRoot(let path): return "chroot \(path), where bind mounts still show the machine's files"
    case .pivotRoot(let path): return "pivot_root \(path)"
    case .provideFile(let path, let text):
      return "provide \(path): \(text.split(whereSeparator: \.isNewline).joined(separator: "; "))"
    case .mountIfMissing(let source, let target, let type, let options, let data):
      return "\(Self.mount(source: source, target: target, type: type, options: options, data: data)), unless mounted"
    case .openConsole: return "console on descriptors 0 to 2"
    case .loadModules(let list): return "load the modules of \(list)"
    case .loadModule(let path): return "load \(path) and remove it, where it is there"
    case .switchRoot(let path, let moving): return "switch root to \(path), with \(moving.joined(separator: ", "))"
    case .mountControlGroups: return "mount the control groups"
    case .raiseLimits: return "raise the limit of open files"
    case .seedEntropy: return "seed the kernel's random numbers from /dev/nsm"
    case .setClock: return "set the clock from /dev/ptp0"
    case .mountLocally(let mount):
      return "\(Self.mount(mount))\(mount.isRequired ? "" : ", or go on without")"
    case .makeMountPoint(let mount): return "mkdir -m 755 \(mount.target), where it is missing"
    case .nameNFSClient: return "give NFS servers a random name of this client"
    case .makeRootReadOnly(let paths):
      return paths.reduce(into: "mount -o remount,bind,ro") { text, path in text += " " + path }
    case .setHostname(let name): return "hostname \(name)"
    case .setSysctl(let name, let value): return "sysctl \(name)=\(value)"
    case .bringUpLoopback(let routed):
      let routes =
        "ip route add default dev lo src 127.0.0.1; ip -6 route add local default dev lo src ::1"
      return "ip link set lo up" + (routed ? "; " + routes : "")
    case .createTunnel(let plan): return plan.description
    case .createPacketLink(let plan): return plan.description
    case .listenOnPacketLink(let port):
      return "open for the proxy: TCP port \(port) on the addresses of \(PacketLinkPlan.link), where it is"
    case .installRules(let ruleset, let firewall):
      return
        (["install with \(firewall == .auto ? "nftables or xtables" : firewall.rawValue):"]
        + ruleset.description.split(whereSeparator: \.isNewline).map { "  " + $0 })
        .joined(separator: "\n")
    case .becomeSubreaper: return "become the reaper of orphans"
    case .removeFiles(let paths): return "rm -f \(paths.joined(separator: " "))"
    case .dropBounding(let set): return "drop from the bounding set: \(PlannedCapabilities.names(set))"
    case .keepCapabilities(let own, let program):
      return
        "keep the capabilities: \(PlannedCapabilities.names(own)); for the program: \(PlannedCapabilities.names(program))"
    case .listenForProxy(let egress, let dns):
      return "listen for the proxy on 127.0.0.1 and ::1: TCP ports \(egress) and \(dns), UDP port \(dns)"
    case .listenForQueries(let dns): return "listen for the proxy on 127.0.0.1 and ::1: TCP and UDP port \(dns)"
    case .listenForHost(let listener): return "listen for the host on \(listener)"
    case .listenForForward(let forward, let listener):
      switch (forward.way, listener) {
      case (.incoming(let connect), let listener?): return "listen for the host on \(listener), for \(connect)"
      default: return "listen for the proxy on \(forward)"
      }
    case .openTunnelQueues(let count): return "open \(count == 1 ? "1 queue" : "\(count) queues") of \(TunnelPlan.link)"
    case .openPacketQueues(let count):
      return "open the packet queues \(TunnelPlan.firstQueue) to \(Int(TunnelPlan.firstQueue) + count)"
    case .openDNSClient: return "open \(EnclaveLayout.dnsClient), beside tombolo-init"
    case .readCertificates(let path): return "read the certificates of \(path ?? "the usual file")"
    case .openAttestationService: return "open \(EnclaveLayout.attestationService), beside tombolo-init"
    case .openSecurityModule(let device):
      switch device {
      case .closed: return "open \(EnclaveLayout.securityModule), and remove it"
      case .open: return "open \(EnclaveLayout.securityModule); chmod 666 \(EnclaveLayout.securityModule)"
      case .group(let group):
        return "open \(EnclaveLayout.securityModule); chgrp \(group) \(EnclaveLayout.securityModule); chmod 660 "
          + EnclaveLayout.securityModule
      }
    case .simulateSecurityModule: return "simulate a security module, whose documents nobody has signed"
    case .listenForAttestation(let ports, let callers):
      let places = ports.reduce(into: EnclaveLayout.attestationSocket) { text, port in text += ", 127.0.0.1:\(port)" }
      return "listen for the attestation service on \(places); callers: \(callers?.joined(separator: ", ") ?? "all")"
    case .makeKeyFiles(let files):
      return files.map { "make \(EnclaveLayout.keyFile($0.name)), of user \($0.user) alone, for a key" }
        .joined(separator: "\n")
    case .makeDocument(let path): return "make the document's file, and a link to it, \(path)"
    case .listenAsNameServer: return "listen for the proxy on \(AgreedAddresses.nameServer): TCP and UDP port 53"
    }
  }

  static func mount(_ mount: MountSettings) -> String {
    let options = mount.options.description
    let words = options.isEmpty ? "" : " -o \(options)"
    switch mount.kind {
    case .bind: return "mount --bind\(words) \(mount.source) \(mount.target)"
    case .nfs: return "mount -t nfs4\(words) \(mount.source) \(mount.target)"
    case .tmpfs, .overlay: return "mount -t \(mount.kind.name)\(words) \(mount.source) \(mount.target)"
    }
  }

  private static func mount(
    source: String, target: String, type: String, options: [MountOption], data: String
  ) -> String {
    let all = options.map(\.rawValue) + (data.isEmpty ? [] : [data])
    return "mount -t \(type)\(all.isEmpty ? "" : " -o " + all.joined(separator: ",")) \(source) \(target)"
  }
}

/// Where the host finds the enclave.
public enum HostListener: Equatable, Sendable, CustomStringConvertible {
  case vsock(port: UInt32)
  /// Open to the owner and the group.
  case unix(String)

  public var description: String {
    switch self {
    case .vsock(let port): "vsock port \(port)"
    case .unix(let path): path
    }
  }
}
