// What Swift needs of Linux and cannot say itself: headers that the Glibc module lacks, macros as functions, system
// calls without a wrapper, and the only code that runs between fork and exec. Functions are named after the call;
// those returning int give a negative errno on failure unless they say otherwise.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <pthread.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>
// After libc's own, which they then leave alone (linux/libc-compat.h).
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netfilter.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/securebits.h>
#include <linux/vm_sockets.h>

// --- Process start (start.c) ---------------------------------------------------------------------------------------
// argc and argv as the kernel gave them: Swift's own CommandLine is empty when /proc was not mounted at start.
const char *clinux_argument(int index); // NULL behind the last
int clinux_memfd(const char *name); // negative errno

// --- Child processes (spawn.c) -------------------------------------------------------------------------------------
enum clinux_spawn_stage {
  CLINUX_STAGE_NONE = 0, CLINUX_STAGE_CLONE, CLINUX_STAGE_DUP, CLINUX_STAGE_SETSID, CLINUX_STAGE_CHDIR,
  CLINUX_STAGE_BOUNDING, CLINUX_STAGE_SETGROUPS, CLINUX_STAGE_SETGID, CLINUX_STAGE_SETUID, CLINUX_STAGE_CAPSET,
  CLINUX_STAGE_NO_NEW_PRIVS, CLINUX_STAGE_RLIMIT, CLINUX_STAGE_EXEC, CLINUX_STAGE_SECCOMP, CLINUX_STAGE_KEYRING
};
struct clinux_limit { int resource; uint64_t soft, hard; }; // setrlimit(2); UINT64_MAX for none
struct clinux_spawn {
  const char *path;           // what execve gets; used when exec_fd is -1
  int exec_fd;                // execveat(fd, "", AT_EMPTY_PATH) when not -1
  char *const *argv;
  char *const *envp;
  const char *directory;      // or NULL
  const int *fds;             // fds[i] becomes descriptor i; every other descriptor must be close-on-exec
  unsigned fd_count;
  bool new_session;
  bool change_ids;
  uint32_t uid, gid;
  const uint32_t *groups;
  unsigned group_count;
  bool set_groups;            // false in a user namespace where setgroups is denied
  uint64_t keep_capabilities; // what stays in the bounding set (all others are dropped), one bit each
  bool clear_capabilities;    // no capability in any set after exec
  bool no_new_privileges;
  int parent_death_signal;    // 0 for none
  uint64_t nofile;            // RLIMIT_NOFILE, or the hard limit where more is not allowed; 0 to leave it
  bool keep_signal_mask;      // what is blocked here waits for the program; otherwise it starts with nothing blocked
  const struct clinux_limit *limits;
  unsigned limit_count;
  const struct sock_filter *filter; // seccomp(2), after everything that it might forbid; needs CAP_SYS_ADMIN or no_new_privileges
  unsigned filter_count;      // 0 for none
  bool new_keyring;           // a session keyring of its own (keyctl(2)), where the kernel has keys
};
// Starts a child: everything between fork and exec happens in C in a CLONE_VFORK child. Returns the pid, or a negative
// errno with *stage telling which step failed (in the child too: then the child has already been reaped).
int clinux_spawn_start(const struct clinux_spawn *spec, int *stage);
// fork with namespaces: clone(flags | SIGCHLD) without sharing memory, then in the child: wait until one byte can be
// read from `gate` (end of file: exit), then exec. Returns the pid or a negative errno; exec failures exit with 126.
int clinux_spawn_in_namespaces(uint64_t flags, int gate, const struct clinux_spawn *spec);

// --- System calls and macros (calls.c) -----------------------------------------------------------------------------
int clinux_processor_count(void); // that this thread may run on; negative errno
int clinux_pivot_root(const char *new_root, const char *put_old);
bool clinux_exited(int status);
int clinux_exit_status(int status);
int clinux_term_signal(int status);
// 0 when a child changed state was found (pid and status set), -ECHILD without children, -EAGAIN when none has ended.
// With `stops`, a child that was stopped is one, too: clinux_stopped(status).
int clinux_reap(pid_t *pid, int *status, bool stops);
bool clinux_stopped(int status);
int clinux_open(const char *path, int flags, mode_t mode);
int clinux_open_at(int directory, const char *path, int flags, mode_t mode);
int clinux_last_capability(void);

// --- Sockets (calls.c) ---------------------------------------------------------------------------------------------
socklen_t clinux_inet_address(struct sockaddr_storage *out, const uint8_t *bytes, int count, uint16_t port);
// The number of address bytes written (4 or 16), or 0 for another family.
int clinux_inet_address_parts(const struct sockaddr_storage *in, uint8_t *bytes, uint16_t *port);
socklen_t clinux_unix_address(struct sockaddr_storage *out, const char *path); // 0 when too long
socklen_t clinux_vsock_address(struct sockaddr_storage *out, uint32_t cid, uint32_t port);
int clinux_original_destination(int fd, bool v6, struct sockaddr_storage *out);
int clinux_set_option(int fd, int level, int name, int value);
int clinux_set_linger(int fd, bool on, int seconds);
int clinux_connect(int fd, const struct sockaddr_storage *address, socklen_t length);
int clinux_bind(int fd, const struct sockaddr_storage *address, socklen_t length);
int clinux_accept(int fd, struct sockaddr_storage *address);
int clinux_socket_error(int fd);
int clinux_diag_open(void); // a NETLINK_SOCK_DIAG socket (diag.c); negative errno
// Whether a connection to 127.0.0.1 or ::1 at `port` would find a listener: 1 or 0, or a negative errno.
int clinux_diag_listens(int fd, bool v6, uint16_t port);
int clinux_since_last_sent(int fd); // milliseconds since a TCP socket last sent data, in the kernel's ticks; negative errno
int clinux_unacknowledged(int fd); // SIOCOUTQ of a TCP socket, 0 for every other; negative errno

// Data calls: bytes moved (0 at end of file for reads), or a negative errno. EINTR is retried.
ssize_t clinux_read(int fd, void *buffer, size_t count);
ssize_t clinux_write(int fd, const void *buffer, size_t count);
ssize_t clinux_send(int fd, const void *buffer, size_t count, int flags);
ssize_t clinux_send_vectors(int fd, struct iovec *vectors, size_t count); // sendmsg, without SIGPIPE
ssize_t clinux_writev(int fd, const struct iovec *vectors, int count);
ssize_t clinux_recvfrom(int fd, void *buffer, size_t count, struct sockaddr_storage *from);
ssize_t clinux_peek(int fd, void *buffer, size_t count); // leaves the bytes in the socket
ssize_t clinux_sendto(int fd, const void *buffer, size_t count, const struct sockaddr_storage *to, socklen_t length);
// The urgent byte of a TCP socket, where it is the next one (tcp(7)); negative errno otherwise, EAGAIN also where it has not come yet.
int clinux_receive_urgent(int fd);
ssize_t clinux_send_urgent(int fd, unsigned char byte);
// The next entry of a socket's queue of errors (ip(7), IP_RECVERR): its errno, and the MTU where that is EMSGSIZE, else 0;
// EACCES where ICMP has said "prohibited", also of IPv4; negative errno, -EAGAIN where there is none.
struct clinux_peer;
int clinux_receive_error(int fd, uint32_t *mtu, struct clinux_peer *peer); // `peer`: whom what failed was for, or NULL
int clinux_path_mtu(int fd, bool v6); // of a connected socket, IP_MTU; negative errno
// At most CLINUX_DATAGRAMS with one call (recvmmsg(2), sendmmsg(2)); they return how many, or a negative errno. Received are as
// many as there are, each in the `count` bytes that there are for it; what is sent ends before the first that is not taken.
enum { CLINUX_DATAGRAMS = 32, CLINUX_PEER_BYTES = 28 };
struct clinux_peer {
  uint8_t bytes[CLINUX_PEER_BYTES]; // sockaddr_in or sockaddr_in6
  uint32_t length;
  // Our address to which it has sent, and from which it is answered: in_addr or in6_addr; of sockets with IP_PKTINFO.
  uint8_t local[16];
  uint32_t local_length;    // 0: the kernel chooses
  uint32_t local_interface; // of a link-local one
};
struct clinux_datagram {
  void *bytes;
  uint32_t count;
  struct clinux_peer peer;
};
int clinux_receive_datagrams(int fd, struct clinux_datagram *datagrams, int count);
int clinux_send_datagrams(int fd, struct clinux_datagram *datagrams, int count);
int clinux_receive_local_addresses(int fd, bool v6); // IP_PKTINFO, IPV6_RECVPKTINFO
int clinux_int_option(int fd, int level, int name); // getsockopt(2) of what is not negative; negative errno
// Not in every libc header: asm-generic/socket.h.
enum { CLINUX_SO_BINDTOIFINDEX = 62 };
int clinux_disconnect(int fd); // connect(2) with AF_UNSPEC
int64_t clinux_peer_user(int fd); // SO_PEERCRED; negative errno
const char *clinux_errno_name(int error); // or NULL
// A lock on one byte that the kernel lets go of with the open file (F_OFD_SETLK): 1, 0 where somebody has it, or a negative errno.
int clinux_lock_byte(int fd, int64_t offset);
int clinux_dup_cloexec(int fd);           // -1 and errno
int clinux_set_nonblocking(int fd, bool on); // -1 and errno
int clinux_pipe(int pair[2]);
int clinux_eventfd(void); // non-blocking; negative errno
bool clinux_is_anonymous_pipe(int fd); // made by pipe(2), without a name in a file system
int clinux_local_address(int fd, struct sockaddr_storage *out);
// rt_sigprocmask(2) with SIG_SETMASK, signal n as bit n-1. glibc's own refuses to block 32 and 33, and unblocks them.
void clinux_set_signal_mask(uint64_t mask, uint64_t *before); // `before` may be NULL
int clinux_signalfd(const int *signals, int count); // 1 to 64; blocks them too; negative errno
// The next signal of a signalfd that we have not sent ourselves, or a negative errno: while SIGPIPE and SIGXFSZ are
// blocked, a write of ours that fails leaves one.
int clinux_signalfd_read(int fd);
// Enumerators that Swift would see as types of their own.
enum {
  CLINUX_SOCK_STREAM = SOCK_STREAM, CLINUX_SOCK_DGRAM = SOCK_DGRAM, CLINUX_SOCK_SEQPACKET = SOCK_SEQPACKET, CLINUX_SOCK_CLOEXEC = SOCK_CLOEXEC,
  CLINUX_SOCK_NONBLOCK = SOCK_NONBLOCK, CLINUX_SHUT_WR = SHUT_WR, CLINUX_AF_VSOCK = AF_VSOCK,
  CLINUX_EPOLL_CLOEXEC = EPOLL_CLOEXEC,
};
int clinux_syncfs(int fd); // -1 and errno
int clinux_poll(int fd, bool writing, int milliseconds); // poll(2) of one descriptor: 1 ready, 0 not within that time
int clinux_poll_writable(int fd); // 1 when a write of PIPE_BUF bytes would not block (or would fail), else 0
enum { CLINUX_MNT_DETACH = MNT_DETACH };
void clinux_raise_nofile(uint64_t most); // the hard limit to `most`, where that may be done, and the soft one to the hard one
uint64_t clinux_given_nofile(void); // the hard limit before that
void clinux_close_on_exec_from(int first); // every open descriptor from `first` on
bool clinux_has_ended(pid_t pid); // a child that is still to be waited for
void clinux_wait(pid_t pid); // until that child has ended
bool clinux_has_seccomp(void); // filters: seccomp(2), CONFIG_SECCOMP_FILTER
// no_new_privs and a filter for all threads; what it traps is named on stderr and ends the process (confine.c).
int clinux_confine(const struct sock_filter *filter, unsigned count);
int clinux_set_dumpable(bool on); // prctl(PR_SET_DUMPABLE)
// A character device's node, mode 0666. Negative errno.
int clinux_make_device(const char *path, unsigned major_number, unsigned minor_number);

// A detached thread with every signal blocked but SIGSYS (thread.c). Negative errno.
int clinux_thread(void (*body)(void *), void *context);
// SO_ATTACH_FILTER: packets for the socket are dropped, and for a listening one SYNs. Negative errno.
int clinux_receive_nothing(int fd);
int clinux_bind_to_device(int fd, const char *name); // negative errno
int clinux_flock(int fd, bool wait); // exclusive; negative errno, -EAGAIN when held by another
#include "CLinuxMemory.h"
#include "CLinuxVhost.h"
#include "CLinuxNetfilter.h"
#include "CLinuxBoot.h"
#include "CLinuxRights.h"

uint32_t clinux_peer_cid(int fd); // of a connected AF_VSOCK socket, else 0
#include "CLinuxTun.h"
#include "CLinuxQueue.h"
