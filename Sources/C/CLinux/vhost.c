#include "CLinux.h"
#include <sys/mman.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

ssize_t clinux_vhost_readv(int fd, const struct iovec *vectors, int count) { return RESULT(readv(fd, vectors, count)); }
ssize_t clinux_vhost_send_vectors(int fd, const struct iovec *vectors, int count) {
  struct msghdr message = {.msg_iov = (struct iovec *)vectors, .msg_iovlen = (size_t)count};
  return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL));
}
ssize_t clinux_vhost_peek(int fd, void *buffer, size_t size) { return RESULT(recv(fd, buffer, size, MSG_PEEK)); }

int clinux_vhost_map_shared(int fd, size_t length, void **address) {
  void *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (mapped == MAP_FAILED) return -errno;
  *address = mapped;
  return 0;
}
int clinux_vhost_unmap(void *address, size_t length) { return (int)RESULT(munmap(address, length)); }
int clinux_vhost_memfd(const char *name, size_t length) {
  int fd = (int)RESULT(memfd_create(name, MFD_CLOEXEC));
  if (fd < 0) return fd;
  if (ftruncate(fd, (off_t)length) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}
int64_t clinux_vhost_regular_file_length(int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) return -errno;
  return S_ISREG(info.st_mode) ? (int64_t)info.st_size : -EINVAL;
}

int clinux_vhost_unix_stream(const char *name) {
  int fd = (int)RESULT(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  size_t length = strlen(name);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (fd < 0 || length == 0 || length >= sizeof address.sun_path) return fd;
  memcpy(address.sun_path + 1, name, length);
  (void)bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length));
  return fd;
}
int clinux_vhost_unix_listen(const char *path, int backlog) {
  struct sockaddr_storage address;
  socklen_t length = clinux_unix_address(&address, path);
  if (length == 0) return -ENAMETOOLONG;
  int fd = clinux_vhost_unix_stream("");
  if (fd < 0) return fd;
  int result = (int)RESULT(bind(fd, (struct sockaddr *)&address, length));
  if (result == 0) result = (int)RESULT(listen(fd, backlog));
  if (result < 0) {
    close(fd);
    return result;
  }
  return fd;
}
int clinux_vhost_unix_connect(int fd, const char *path) {
  struct sockaddr_storage address;
  socklen_t length = clinux_unix_address(&address, path);
  if (length == 0) return -ENAMETOOLONG;
  return (int)RESULT(connect(fd, (struct sockaddr *)&address, length));
}
int clinux_vhost_peer_name(int fd, char *name, size_t size) {
  struct sockaddr_un address;
  socklen_t length = sizeof address;
  int result = (int)RESULT(getpeername(fd, (struct sockaddr *)&address, &length));
  if (result < 0) return result;
  size_t start = offsetof(struct sockaddr_un, sun_path) + 1;
  if (address.sun_family != AF_UNIX || length <= start || address.sun_path[0] != 0) return -ENOENT;
  size_t count = length - start;
  if (count >= size) return -ERANGE;
  memcpy(name, address.sun_path + 1, count);
  name[count] = 0;
  return (int)count;
}
int clinux_vhost_shutdown(int fd, int how) { return (int)RESULT(shutdown(fd, how)); }
int clinux_vhost_close(int fd) { return close(fd) < 0 ? -errno : 0; }
int clinux_vhost_file_identity(const char *path, uint64_t *device, uint64_t *inode) {
  struct stat info;
  if (lstat(path, &info) < 0) return -errno;
  *device = info.st_dev;
  *inode = info.st_ino;
  return 0;
}

int clinux_vhost_epoll_create(void) { return (int)RESULT(epoll_create1(EPOLL_CLOEXEC)); }
int clinux_vhost_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t token) {
  struct epoll_event event = {.events = events, .data = {.u64 = token}};
  return (int)RESULT(epoll_ctl(epoll, operation, fd, &event));
}
int clinux_vhost_epoll_wait(int epoll, struct epoll_event *events, int capacity, int milliseconds) {
  int found = epoll_wait(epoll, events, capacity, milliseconds);
  return found < 0 ? (errno == EINTR ? 0 : -errno) : found;
}
uint64_t clinux_vhost_epoll_token(const struct epoll_event *event) { return event->data.u64; }
