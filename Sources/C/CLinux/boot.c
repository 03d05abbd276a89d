#include "CLinux.h"
#include <linux/random.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/timex.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

#ifndef MODULE_INIT_COMPRESSED_FILE
#define MODULE_INIT_COMPRESSED_FILE 4
#endif

int clinux_finit_module(int fd, bool compressed) {
  return (int)RESULT(syscall(SYS_finit_module, fd, "", compressed ? MODULE_INIT_COMPRESSED_FILE : 0));
}

int clinux_nsm_request(int fd, const void *request, size_t length, void *response, size_t size) {
  struct { uint64_t request, request_length, response, response_length; } message = {
    (uintptr_t)request, length, (uintptr_t)response, size};
  int result = (int)RESULT(ioctl(fd, 0xC0200A00ul, &message));
  return result < 0 ? result : (int)message.response_length;
}

int clinux_add_entropy(const void *bytes, size_t count) {
  struct { int entropy_count, buf_size; uint8_t buf[1024]; } info;
  if (count > sizeof info.buf) return -EINVAL;
  info.entropy_count = (int)count * 8;
  info.buf_size = (int)count;
  memcpy(info.buf, bytes, count);
  int fd = (int)RESULT(open("/dev/random", O_WRONLY | O_CLOEXEC));
  if (fd < 0) return fd;
  int result = (int)RESULT(ioctl(fd, RNDADDENTROPY, &info));
  close(fd);
  return result;
}

int clinux_read_clock(int fd, int64_t *seconds, int64_t *nanoseconds) {
  struct timespec now;
  // FD_TO_CLOCKID of clock_gettime(2).
  int result = (int)RESULT(clock_gettime((clockid_t)((~(unsigned)fd << 3) | 3), &now));
  *seconds = now.tv_sec;
  *nanoseconds = now.tv_nsec;
  return result;
}
int clinux_set_clock(int64_t seconds, int64_t nanoseconds) {
  struct timespec wanted = {.tv_sec = seconds, .tv_nsec = nanoseconds};
  return (int)RESULT(clock_settime(CLOCK_REALTIME, &wanted));
}
int clinux_slew_clock(int64_t microseconds) {
  struct timeval delta = {.tv_sec = microseconds / 1000000, .tv_usec = microseconds % 1000000};
  return (int)RESULT(adjtime(&delta, NULL));
}

int clinux_reboot(bool power_off) { return (int)RESULT(reboot(power_off ? RB_POWER_OFF : RB_AUTOBOOT)); }
int clinux_become_subreaper(void) { return (int)RESULT(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }
int clinux_set_process_name(const char *name) { return (int)RESULT(prctl(PR_SET_NAME, name, 0, 0, 0)); }
int clinux_dup_to(int fd, int target) { return (int)RESULT(dup2(fd, target)); }

static int connected(uint32_t cid, uint32_t port, int timeout_ms) {
  int fd = (int)RESULT(socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd < 0) return fd;
  struct sockaddr_storage address;
  socklen_t length = clinux_vsock_address(&address, cid, port);
  int result = clinux_connect(fd, &address, length);
  if (result == -EINPROGRESS) {
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    result = (int)RESULT(poll(&wait, 1, timeout_ms));
    result = result == 0 ? -ETIMEDOUT : result < 0 ? result : -clinux_socket_error(fd);
  }
  if (result < 0) { close(fd); return result; }
  return fd;
}

int clinux_vsock_probe(uint32_t cid, uint32_t port, int timeout_ms) {
  int fd = connected(cid, port, timeout_ms);
  if (fd < 0) return fd;
  close(fd);
  return 0;
}

int clinux_vsock_exchange(uint32_t cid, uint32_t port, uint8_t byte, int timeout_ms) {
  int fd = connected(cid, port, timeout_ms);
  if (fd < 0) return fd;
  uint8_t answer = 0;
  int result = (int)clinux_send(fd, &byte, 1, 0);
  if (result > 0) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    result = (int)RESULT(poll(&wait, 1, timeout_ms));
    if (result == 0) result = -ETIMEDOUT;
    else if (result > 0) {
      result = (int)clinux_read(fd, &answer, 1);
      result = result == 0 ? -ECONNRESET : result < 0 ? result : answer == byte ? 0 : -EPROTO;
    }
  }
  close(fd);
  return result;
}

