// A process of our own gives up every system call that its role does not need (Sources/Pure/Seccomp/RoleFilter.swift).
#include "CLinux.h"
#include <sys/syscall.h>

#ifndef SECCOMP_FILTER_FLAG_TSYNC
#define SECCOMP_FILTER_FLAG_TSYNC 1
#endif

// Names of what a process that was taken over would try first; others are told by their number.
static const char *name(int number) {
  switch (number) {
#define N(call) case SYS_##call: return #call
    N(open); N(openat); N(execve); N(execveat); N(fork); N(vfork); N(clone); N(clone3); N(ptrace); N(socket); N(connect);
    N(bind); N(listen); N(accept); N(mmap); N(mprotect); N(kill); N(tkill); N(unlink); N(unlinkat); N(rename); N(mkdir);
    N(mknod); N(mount); N(umount2); N(unshare); N(setns); N(setuid); N(setgid); N(setresuid); N(capset); N(prctl); N(chroot);
    N(pivot_root); N(keyctl); N(bpf); N(perf_event_open); N(process_vm_readv); N(process_vm_writev); N(memfd_create);
    N(userfaultfd); N(init_module); N(finit_module); N(reboot); N(io_uring_setup); N(ioctl); N(rt_sigaction); N(getdents64);
    N(readlink); N(stat); N(newfstatat); N(chmod); N(chown); N(link); N(symlink); N(truncate); N(sethostname); N(uname);
    N(getuid); N(getppid); N(setrlimit); N(prlimit64); N(socketpair); N(splice); N(sendfile); N(shmget); N(shmat);
#undef N
  }
  return NULL;
}

static size_t append(char *line, size_t at, const char *text) {
  while (*text) line[at++] = *text++;
  return at;
}

// Only calls that signal-safety(7) allows, and that every role's filter does.
static void refused(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)context;
  char line[160];
  size_t at = append(line, 0, "a system call that this process must not make: ");
  const char *known = name(info->si_syscall);
  if (known) at = append(line, at, known);
  char digits[12];
  int count = 0;
  unsigned number = (unsigned)info->si_syscall;
  do digits[count++] = (char)('0' + number % 10);
  while ((number /= 10) && count < 11);
  at = append(line, at, known ? " (" : "number ");
  while (count) line[at++] = digits[--count];
  if (known) line[at++] = ')';
  line[at++] = '\n';
  (void)!write(2, line, at);
  syscall(SYS_exit_group, 159); // 128 + SIGSYS, as a shell would say
}

int clinux_confine(const struct sock_filter *filter, unsigned count) {
  struct sigaction action = {.sa_sigaction = refused, .sa_flags = SA_SIGINFO};
  if (sigaction(SIGSYS, &action, NULL) < 0) return -errno;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGSYS);
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
  struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)filter};
  return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, SECCOMP_FILTER_FLAG_TSYNC, &program) < 0 ? -errno : 0;
}
