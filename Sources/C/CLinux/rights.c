// How a process of ours becomes one with the least rights: another user, no new rights, no files (landlock(7)).
#include "CLinux.h"
#include <poll.h>
#include <sys/syscall.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

// glibc's own calls, which change every thread.
int clinux_become(uint32_t user, uint32_t group) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) return -errno;
  if (setgroups(0, NULL) < 0 || setresgid(group, group, group) < 0 || setresuid(user, user, user) < 0) return -errno;
  return prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 ? -errno : 0;
}

int clinux_set_no_new_privileges(void) { return (int)RESULT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

int clinux_filter(const struct sock_filter *filter, unsigned count) {
  struct sock_fprog program = {.len = (unsigned short)count, .filter = (struct sock_filter *)filter};
  return (int)RESULT(syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &program));
}

int clinux_fork(void) { return (int)RESULT(fork()); }

void clinux_exit_now(int status) {
  syscall(SYS_exit_group, status);
  for (;;) {}
}

void clinux_keep_descriptors(const int *kept, int count) {
  int first = 3;
  for (;;) {
    // The lowest kept one from `first` on.
    int next = -1;
    for (int i = 0; i < count; i++)
      if (kept[i] >= first && (next < 0 || kept[i] < next)) next = kept[i];
    if (next != first) {
      unsigned last = next < 0 ? ~0u : (unsigned)next - 1;
      if (syscall(436 /* close_range */, first, last, 0) < 0) {
        struct rlimit limit;
        unsigned end = getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 1 << 20 ? 1 << 20 : (unsigned)limit.rlim_cur;
        for (unsigned fd = (unsigned)first; fd < end && fd <= last; fd++) close((int)fd);
      }
    }
    if (next < 0) return;
    first = next + 1;
  }
}

// linux/landlock.h of 6.12; the headers here may be older than the kernel.
struct ruleset { uint64_t files, network, scoped; };
struct __attribute__((packed)) beneath { uint64_t allowed; int32_t parent; };
enum { READ_FILE = 1 << 2, READ_DIR = 1 << 3, REMOVE_DIR = 1 << 4, REMOVE_FILE = 1 << 5, MAKE_FILE = 1 << 8, BIND_TCP = 1 << 0, SCOPE_ABSTRACT_UNIX = 1 << 0, SCOPE_SIGNAL = 1 << 1 };

int clinux_landlock_version(void) { return (int)RESULT(syscall(444, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */)); }

int clinux_landlock(const char *const *readable, int count, bool removable, bool replaceable, bool signals) {
  int version = clinux_landlock_version();
  if (version < 0) return version;
  // The first 13 rights came with version 1; then refer, truncate, ioctl on devices.
  int rights = version >= 5 ? 16 : version >= 3 ? 15 : version == 2 ? 14 : 13;
  struct ruleset handled = {.files = (UINT64_C(1) << rights) - 1, .network = BIND_TCP,
                            .scoped = SCOPE_ABSTRACT_UNIX | (signals ? 0 : SCOPE_SIGNAL)};
  size_t size = version >= 6 ? 24 : version >= 4 ? 16 : 8;
  int rules = (int)RESULT(syscall(444, &handled, size, 0));
  if (rules < 0) return rules;
  int result = 0;
  for (int i = 0; i < count && result == 0; i++) {
    int directory = open(readable[i], O_PATH | O_CLOEXEC | O_DIRECTORY);
    if (directory < 0) continue; // nothing is there to be read
    struct beneath rule = {.allowed = READ_FILE | READ_DIR | (removable ? REMOVE_FILE | REMOVE_DIR : 0) |
                                       (replaceable ? REMOVE_FILE | MAKE_FILE : 0), .parent = directory};
    result = (int)RESULT(syscall(445, rules, 1 /* LANDLOCK_RULE_PATH_BENEATH */, &rule, 0));
    close(directory);
  }
  if (result == 0) result = (int)RESULT(syscall(446, rules, 0));
  close(rules);
  return result;
}

int clinux_wait_readable(int fd) {
  struct pollfd wait = {.fd = fd, .events = POLLIN};
  return (int)RESULT(poll(&wait, 1, -1));
}
