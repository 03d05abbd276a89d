#include "CLinux.h"
#include <sys/syscall.h>

// Theory of operation. The child shares our memory and we stand still until it has exec'ed or exited (CLONE_VM |
// CLONE_VFORK), so it may report the step that failed in a plain variable and needs no heap. It calls nothing but
// system calls: no malloc, no locks, no glibc setuid (which signals other threads), no Swift.

struct child {
  const struct clinux_spawn *spec;
  volatile int stage, error;
  uint64_t old_mask;
};

static int fail(struct child *c, int stage) {
  c->stage = stage;
  c->error = errno ? errno : EINVAL;
  return -1;
}

static int drop_bounding(uint64_t keep) {
  for (int cap = 0; cap < 64; cap++) {
    int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
    if (has < 0) return 0; // past the kernel's last capability
    if (has && !(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) {
      // Dropping what one does not have the right to drop matters only where something would be left.
      return -1;
    }
  }
  return 0;
}

// Moves spec->fds into place. Sources that stand where another target belongs are moved out of the way first.
static int place_descriptors(const struct clinux_spawn *s) {
  int high[256];
  if (s->fd_count > 256) { errno = EMFILE; return -1; }
  for (unsigned i = 0; i < s->fd_count; i++) {
    high[i] = s->fds[i];
    if (high[i] >= 0 && (unsigned)high[i] < s->fd_count && (unsigned)high[i] != i) {
      high[i] = fcntl(high[i], F_DUPFD_CLOEXEC, (int)s->fd_count);
      if (high[i] < 0) return -1;
    }
  }
  for (unsigned i = 0; i < s->fd_count; i++) {
    if (high[i] < 0) continue;
    if ((unsigned)high[i] == i) {
      if (fcntl((int)i, F_SETFD, 0) < 0) return -1;
    } else if (dup2(high[i], (int)i) < 0) {
      return -1;
    }
  }
  return 0;
}

static int filter(const struct clinux_spawn *s) {
  if (s->filter_count == 0) return 0;
  struct sock_fprog program = {.len = (unsigned short)s->filter_count, .filter = (struct sock_filter *)s->filter};
  return (int)syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &program);
}

static int run(struct child *c) {
  const struct clinux_spawn *s = c->spec;
  // The kernel's own call and structure (handler, flags, restorer, mask): glibc's refuses 32 and 33, and those are ignored in
  // whatever glibc's posix_spawn has started.
  static const uint64_t standard[4];
  for (int sig = 1; sig <= 64; sig++) syscall(SYS_rt_sigaction, sig, standard, NULL, sizeof(uint64_t));
  if (s->parent_death_signal && prctl(PR_SET_PDEATHSIG, s->parent_death_signal) < 0) return fail(c, CLINUX_STAGE_CLONE);
  int exec_fd = s->exec_fd;
  if (exec_fd >= 0 && (unsigned)exec_fd < s->fd_count) {
    exec_fd = fcntl(exec_fd, F_DUPFD_CLOEXEC, (int)s->fd_count);
    if (exec_fd < 0) return fail(c, CLINUX_STAGE_DUP);
  }
  if (place_descriptors(s) < 0) return fail(c, CLINUX_STAGE_DUP);
  if (s->new_session && setsid() < 0) return fail(c, CLINUX_STAGE_SETSID);
  if (s->nofile) {
    struct rlimit limit, more = {(rlim_t)s->nofile, (rlim_t)s->nofile};
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return fail(c, CLINUX_STAGE_RLIMIT);
    if (s->nofile <= limit.rlim_max || setrlimit(RLIMIT_NOFILE, &more) < 0) {
      limit.rlim_cur = s->nofile < limit.rlim_max ? s->nofile : limit.rlim_max;
      if (setrlimit(RLIMIT_NOFILE, &limit) < 0) return fail(c, CLINUX_STAGE_RLIMIT);
    }
  }
  for (unsigned i = 0; i < s->limit_count; i++) {
    const struct clinux_limit *l = &s->limits[i];
    struct rlimit limit = {.rlim_cur = (rlim_t)l->soft, .rlim_max = (rlim_t)l->hard};
    if (setrlimit(l->resource, &limit) < 0) return fail(c, CLINUX_STAGE_RLIMIT);
  }
  // A kernel without keys (ENOSYS), or an init whose own filter refuses (EPERM): there is no other keyring then.
  if (s->new_keyring && syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 && errno != ENOSYS && errno != EPERM)
    return fail(c, CLINUX_STAGE_KEYRING);
  // Without no_new_privs the filter needs CAP_SYS_ADMIN, which goes with the user.
  if (!s->no_new_privileges && filter(s) < 0) return fail(c, CLINUX_STAGE_SECCOMP);
  if (drop_bounding(s->keep_capabilities) < 0) return fail(c, CLINUX_STAGE_BOUNDING);
  if (s->change_ids) {
    if (s->set_groups && syscall(SYS_setgroups, s->group_count, s->groups) < 0) return fail(c, CLINUX_STAGE_SETGROUPS);
    if (syscall(SYS_setresgid, s->gid, s->gid, s->gid) < 0) return fail(c, CLINUX_STAGE_SETGID);
    if (syscall(SYS_setresuid, s->uid, s->uid, s->uid) < 0) return fail(c, CLINUX_STAGE_SETUID);
  }
  // Another user's process has none any more (commit_creds in kernel/cred.c).
  if (s->change_ids && s->parent_death_signal && prctl(PR_SET_PDEATHSIG, s->parent_death_signal) < 0)
    return fail(c, CLINUX_STAGE_CLONE);
  // As the user, so that a directory only the user may enter works and one only root may enter does not.
  if (s->directory && chdir(s->directory) < 0) return fail(c, CLINUX_STAGE_CHDIR);
  if (s->clear_capabilities) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); // EINVAL before 4.3: nothing to clear
    if (syscall(SYS_capset, &header, none) < 0) return fail(c, CLINUX_STAGE_CAPSET);
  }
  if (s->no_new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return fail(c, CLINUX_STAGE_NO_NEW_PRIVS);
  if (s->no_new_privileges && filter(s) < 0) return fail(c, CLINUX_STAGE_SECCOMP);
  if (!s->keep_signal_mask) clinux_set_signal_mask(0, NULL);
  if (exec_fd >= 0)
    syscall(SYS_execveat, exec_fd, "", s->argv, s->envp, AT_EMPTY_PATH);
  else
    execve(s->path, s->argv, s->envp);
  return fail(c, CLINUX_STAGE_EXEC);
}

static int entry(void *argument) {
  run(argument);
  syscall(SYS_exit_group, 127);
  return 127;
}

int clinux_spawn_start(const struct clinux_spawn *spec, int *stage) {
  struct child c = {.spec = spec};
  static char stack[64 * 1024] __attribute__((aligned(16))); // one spawner, one thread: see the theory above
  clinux_set_signal_mask(~UINT64_C(0), &c.old_mask); // no handler of ours may run in the child
  int pid = clone(entry, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &c);
  int clone_errno = errno;
  clinux_set_signal_mask(c.old_mask, NULL);
  if (pid < 0) {
    *stage = CLINUX_STAGE_CLONE;
    return -clone_errno;
  }
  *stage = c.stage;
  if (c.stage != CLINUX_STAGE_NONE) {
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return -c.error;
  }
  return pid;
}

int clinux_spawn_in_namespaces(uint64_t flags, int gate, const struct clinux_spawn *spec) {
  struct child c = {.spec = spec};
  int pid = (int)syscall(SYS_clone, (unsigned long)flags | SIGCHLD, 0, 0, 0, 0);
  if (pid < 0) return -errno;
  if (pid > 0) return pid;
  // Before the gate too: the process that holds its other end may be killed now.
  if (spec->parent_death_signal) prctl(PR_SET_PDEATHSIG, spec->parent_death_signal);
  char byte;
  ssize_t got;
  do got = read(gate, &byte, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) syscall(SYS_exit_group, 126);
  run(&c);
  static const char text[] = "tombolo: the enclave's init could not be executed\n";
  (void)!write(2, text, sizeof text - 1);
  syscall(SYS_exit_group, 126);
  return -1;
}
