/// Which of the kernel's own files a local enclave may write and read: its kernel is the machine's.
enum KernelInterfaces {
  /// The settings that an enclave has for itself: all of its network namespace, and those of its IPC and UTS namespaces
  /// (ipc/ipc_sysctl.c, ipc/mq_sysctl.c, kernel/utsname_sysctl.c).
  static let ownSettings =
    ["net"]
    + [
      "shmmax", "shmall", "shmmni", "shm_rmid_forced", "shm_next_id", "msgmax", "msgmnb", "msgmni", "msg_next_id",
      "sem",
      "sem_next_id", "auto_msgmni", "hostname", "domainname",
    ].map { "kernel/" + $0 }
    + ["fs/mqueue"]

  /// The read-only and the masked paths that OCI runtimes give a container (moby, oci/defaults.go).
  static let protection: [BootStep] =
    [.protect("/proc/sys", but: ownSettings)]
    + ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"].map { .protect($0, but: []) }
    + [
      .mask([
        "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
      ])
    ]
}
