#include "CLinux.h"
#include <linux/filter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/magic.h>
#include <linux/errqueue.h>
#include <linux/icmp.h>
#include <linux/sockios.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

// Not in every libc header the module is built against.
int clinux_processor_count(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) < 0 ? -errno : CPU_COUNT(&set);
}
int clinux_pivot_root(const char *new_root, const char *put_old) {
  return (int)RESULT(syscall(SYS_pivot_root, new_root, put_old));
}
bool clinux_exited(int status) { return WIFEXITED(status); }
int clinux_exit_status(int status) { return WEXITSTATUS(status); }
int clinux_term_signal(int status) { return WTERMSIG(status); }

bool clinux_stopped(int status) { return WIFSTOPPED(status); }

int clinux_reap(pid_t *pid, int *status, bool stops) {
  *pid = (pid_t)RESULT(waitpid(-1, status, WNOHANG | (stops ? WUNTRACED : 0)));
  if (*pid < 0) return *pid;
  return *pid == 0 ? -EAGAIN : 0;
}

int clinux_open(const char *path, int flags, mode_t mode) { return (int)RESULT(open(path, flags | O_CLOEXEC, mode)); }

int clinux_open_at(int directory, const char *path, int flags, mode_t mode) {
  return (int)RESULT(openat(directory, path, flags | O_CLOEXEC, mode));
}

int clinux_last_capability(void) {
  int cap = 0;
  while (cap < 63 && prctl(PR_CAPBSET_READ, cap + 1, 0, 0, 0) >= 0) cap++;
  return cap;
}

socklen_t clinux_inet_address(struct sockaddr_storage *out, const uint8_t *bytes, int count, uint16_t port) {
  memset(out, 0, sizeof *out);
  if (count == 4) {
    struct sockaddr_in *in = (struct sockaddr_in *)out;
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    memcpy(&in->sin_addr, bytes, 4);
    return sizeof *in;
  }
  if (count == 16) {
    struct sockaddr_in6 *in = (struct sockaddr_in6 *)out;
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(port);
    memcpy(&in->sin6_addr, bytes, 16);
    return sizeof *in;
  }
  return 0;
}

int clinux_inet_address_parts(const struct sockaddr_storage *in, uint8_t *bytes, uint16_t *port) {
  if (in->ss_family == AF_INET) {
    const struct sockaddr_in *a = (const struct sockaddr_in *)in;
    memcpy(bytes, &a->sin_addr, 4);
    *port = ntohs(a->sin_port);
    return 4;
  }
  if (in->ss_family == AF_INET6) {
    const struct sockaddr_in6 *a = (const struct sockaddr_in6 *)in;
    memcpy(bytes, &a->sin6_addr, 16);
    *port = ntohs(a->sin6_port);
    return 16;
  }
  return 0;
}

socklen_t clinux_unix_address(struct sockaddr_storage *out, const char *path) {
  struct sockaddr_un *un = (struct sockaddr_un *)out;
  memset(out, 0, sizeof *out);
  if (strlen(path) >= sizeof un->sun_path) return 0;
  un->sun_family = AF_UNIX;
  strcpy(un->sun_path, path);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
}

socklen_t clinux_vsock_address(struct sockaddr_storage *out, uint32_t cid, uint32_t port) {
  struct sockaddr_vm *vm = (struct sockaddr_vm *)out;
  memset(out, 0, sizeof *out);
  vm->svm_family = AF_VSOCK;
  vm->svm_cid = cid;
  vm->svm_port = port;
  return sizeof *vm;
}

int clinux_original_destination(int fd, bool v6, struct sockaddr_storage *out) {
  socklen_t length = sizeof *out;
  return (int)RESULT(getsockopt(fd, v6 ? SOL_IPV6 : SOL_IP, v6 ? IP6T_SO_ORIGINAL_DST : SO_ORIGINAL_DST, out, &length));
}

int clinux_set_option(int fd, int level, int name, int value) {
  return (int)RESULT(setsockopt(fd, level, name, &value, sizeof value));
}
int clinux_set_linger(int fd, bool on, int seconds) {
  struct linger linger = {.l_onoff = on, .l_linger = seconds};
  return (int)RESULT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
}
int clinux_connect(int fd, const struct sockaddr_storage *address, socklen_t length) {
  return (int)RESULT(connect(fd, (const struct sockaddr *)address, length));
}
int clinux_bind(int fd, const struct sockaddr_storage *address, socklen_t length) {
  return (int)RESULT(bind(fd, (const struct sockaddr *)address, length));
}
int clinux_accept(int fd, struct sockaddr_storage *address) {
  socklen_t length = sizeof *address;
  return (int)RESULT(accept4(fd, (struct sockaddr *)address, address ? &length : NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}
int clinux_socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) return errno;
  return error;
}

ssize_t clinux_read(int fd, void *buffer, size_t count) { return RESULT(read(fd, buffer, count)); }
ssize_t clinux_write(int fd, const void *buffer, size_t count) { return RESULT(write(fd, buffer, count)); }
ssize_t clinux_send(int fd, const void *buffer, size_t count, int flags) {
  return RESULT(send(fd, buffer, count, flags | MSG_NOSIGNAL));
}
ssize_t clinux_writev(int fd, const struct iovec *vectors, int count) { return RESULT(writev(fd, vectors, count)); }
ssize_t clinux_send_vectors(int fd, struct iovec *vectors, size_t count) {
  struct msghdr message = {.msg_iov = vectors, .msg_iovlen = count};
  return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL));
}
ssize_t clinux_recvfrom(int fd, void *buffer, size_t count, struct sockaddr_storage *from) {
  socklen_t length = sizeof *from;
  return RESULT(recvfrom(fd, buffer, count, 0, (struct sockaddr *)from, &length));
}
ssize_t clinux_peek(int fd, void *buffer, size_t count) { return RESULT(recv(fd, buffer, count, MSG_PEEK)); }
ssize_t clinux_sendto(int fd, const void *buffer, size_t count, const struct sockaddr_storage *to, socklen_t length) {
  return RESULT(sendto(fd, buffer, count, MSG_NOSIGNAL, (const struct sockaddr *)to, length));
}
ssize_t clinux_send_urgent(int fd, unsigned char byte) { return clinux_send(fd, &byte, 1, MSG_OOB); }
int clinux_receive_urgent(int fd) {
  int is_at = 0;
  unsigned char byte = 0;
  if (ioctl(fd, SIOCATMARK, &is_at) < 0) return -errno;
  if (!is_at) return -EAGAIN;
  // EINVAL where it has been taken already, and only its place is left.
  long result = RESULT(recv(fd, &byte, 1, MSG_OOB | MSG_DONTWAIT));
  return result == 1 ? byte : result < 0 ? (int)result : -EAGAIN;
}
int clinux_receive_error(int fd, uint32_t *mtu, struct clinux_peer *peer) {
  char control[512], data[1];
  struct iovec vector = {.iov_base = data, .iov_len = sizeof data};
  struct msghdr message = {
      .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  if (peer) {
    message.msg_name = peer->bytes;
    message.msg_namelen = sizeof peer->bytes;
  }
  long result = RESULT(recvmsg(fd, &message, MSG_ERRQUEUE | MSG_DONTWAIT));
  if (result < 0) return (int)result;
  if (peer) peer->length = message.msg_namelen < sizeof peer->bytes ? message.msg_namelen : sizeof peer->bytes;
  *mtu = 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    bool is4 = part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_RECVERR;
    bool is6 = part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_RECVERR;
    if ((!is4 && !is6) || part->cmsg_len < CMSG_LEN(sizeof(struct sock_extended_err))) continue;
    struct sock_extended_err error;
    memcpy(&error, CMSG_DATA(part), sizeof error);
    if (error.ee_errno == EMSGSIZE) *mtu = error.ee_info;
    // The kernel makes "host unreachable" of these, and a plain socket hears of them, but not of that.
    if (error.ee_origin == SO_EE_ORIGIN_ICMP && error.ee_type == ICMP_DEST_UNREACH &&
        (error.ee_code == ICMP_HOST_ANO || error.ee_code == ICMP_PKT_FILTERED))
      return EACCES;
    return (int)error.ee_errno;
  }
  return 0;
}
int clinux_int_option(int fd, int level, int name) {
  int value = 0;
  socklen_t length = sizeof value;
  return getsockopt(fd, level, name, &value, &length) < 0 ? -errno : value;
}
int clinux_path_mtu(int fd, bool v6) {
  return clinux_int_option(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU);
}
int64_t clinux_peer_user(int fd) {
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) return -errno;
  return peer.uid;
}

const char *clinux_errno_name(int error) { return strerrorname_np(error); }
int clinux_lock_byte(int fd, int64_t offset) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return 1;
  return errno == EAGAIN || errno == EACCES ? 0 : -errno;
}
int clinux_dup_cloexec(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 3); }
int clinux_set_nonblocking(int fd, bool on) {
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -1;
  return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

int clinux_eventfd(void) { return (int)RESULT(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }
int clinux_pipe(int pair[2]) { return (int)RESULT(pipe2(pair, O_CLOEXEC)); }
bool clinux_is_anonymous_pipe(int fd) {
  struct statfs info;
  return fstatfs(fd, &info) == 0 && info.f_type == PIPEFS_MAGIC;
}
int clinux_local_address(int fd, struct sockaddr_storage *out) {
  socklen_t length = sizeof *out;
  return (int)RESULT(getsockname(fd, (struct sockaddr *)out, &length));
}
int clinux_signalfd(const int *signals, int count) {
  uint64_t set = 0;
  for (int i = 0; i < count; i++)
    if (signals[i] >= 1 && signals[i] <= 64) set |= UINT64_C(1) << (signals[i] - 1);
  if (syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, sizeof set) < 0) return -errno;
  return (int)RESULT(syscall(SYS_signalfd4, -1, &set, sizeof set, SFD_CLOEXEC | SFD_NONBLOCK));
}
int clinux_signalfd_read(int fd) {
  struct signalfd_siginfo info;
  do {
    long got = RESULT(read(fd, &info, sizeof info));
    if (got < 0) return (int)got;
    if (got != sizeof info) return -EIO;
  } while (info.ssi_code == SI_USER && info.ssi_pid == (uint32_t)getpid());
  return (int)info.ssi_signo;
}
void clinux_set_signal_mask(uint64_t mask, uint64_t *before) {
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, before, sizeof mask);
}

#include <poll.h>
int clinux_syncfs(int fd) { return syncfs(fd); }

int clinux_poll(int fd, bool writing, int milliseconds) {
  struct pollfd one = {.fd = fd, .events = writing ? POLLOUT : POLLIN};
  struct timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  int left = milliseconds;
  for (;;) {
    int ready = poll(&one, 1, left);
    if (ready >= 0 || errno != EINTR) return ready < 0 ? -errno : ready;
    if (milliseconds < 0) continue;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long long spent = (now.tv_sec - start.tv_sec) * 1000LL + (now.tv_nsec - start.tv_nsec) / 1000000;
    left = spent < milliseconds ? (int)(milliseconds - spent) : 0;
  }
}

int clinux_poll_writable(int fd) {
  struct pollfd p = {.fd = fd, .events = POLLOUT};
  return poll(&p, 1, 0) > 0;
}

// The hard limit before it was raised.
static uint64_t given_nofile;

void clinux_raise_nofile(uint64_t most) {
  struct rlimit limit, more = {(rlim_t)most, (rlim_t)most};
  if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  if (!given_nofile) given_nofile = limit.rlim_max;
  if (most > limit.rlim_max && setrlimit(RLIMIT_NOFILE, &more) == 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

uint64_t clinux_given_nofile(void) {
  struct rlimit limit;
  if (given_nofile) return given_nofile;
  return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_max;
}

int clinux_memfd(const char *name) { return (int)RESULT(syscall(SYS_memfd_create, name, 1u /* MFD_CLOEXEC */)); }
void clinux_wait(pid_t pid) {
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
}

uint32_t clinux_peer_cid(int fd) {
  struct sockaddr_storage peer;
  socklen_t length = sizeof peer;
  if (getpeername(fd, (struct sockaddr *)&peer, &length) < 0 || peer.ss_family != AF_VSOCK) return 0;
  return ((const struct sockaddr_vm *)&peer)->svm_cid;
}

int clinux_unacknowledged(int fd) {
  int protocol = 0, count = 0;
  socklen_t length = sizeof protocol;
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) < 0) return -errno;
  if (protocol != IPPROTO_TCP) return 0;
  return ioctl(fd, SIOCOUTQ, &count) < 0 ? -errno : count;
}

int clinux_since_last_sent(int fd) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0) return -errno;
  return info.tcpi_last_data_sent > INT_MAX ? INT_MAX : (int)info.tcpi_last_data_sent;
}

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
void clinux_close_on_exec_from(int first) {
  if (syscall(SYS_close_range, first, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */) == 0) return;
  // Before 5.11: one by one, as far as this process may have any.
  struct rlimit limit;
  int last = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;
  for (int fd = first; fd < last; fd++) {
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0) fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
  }
}

bool clinux_has_ended(pid_t pid) {
  siginfo_t info = {0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

int clinux_set_dumpable(bool on) { return prctl(PR_SET_DUMPABLE, on ? 1 : 0, 0, 0, 0) < 0 ? -errno : 0; }

bool clinux_has_seccomp(void) {
  // seccomp(2): SECCOMP_SET_MODE_FILTER with a null pointer is EFAULT where filters exist, EINVAL where they do not.
  return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, NULL) < 0 && errno == EFAULT;
}

int clinux_make_device(const char *path, unsigned major_number, unsigned minor_number) {
  int result = (int)RESULT(mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)));
  return result < 0 ? result : (int)RESULT(chmod(path, 0666));
}

int clinux_receive_nothing(int fd) {
  struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
  struct sock_fprog program = {1, code};
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) < 0 ? -errno : 0;
}

int clinux_bind_to_device(int fd, const char *name) {
  return (int)RESULT(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)));
}
int clinux_flock(int fd, bool wait) { return (int)RESULT(flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB))); }
