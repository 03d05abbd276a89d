// What a vhost-user device needs of Linux (vhost.c): shared mappings, vectored data calls, epoll, and the memory ordering of a virtqueue that another process writes at the same time.
#pragma once

// readv, and writev to a socket (sendmsg with MSG_NOSIGNAL). EINTR is retried.
ssize_t clinux_vhost_readv(int fd, const struct iovec *vectors, int count);
ssize_t clinux_vhost_send_vectors(int fd, const struct iovec *vectors, int count);
ssize_t clinux_vhost_peek(int fd, void *buffer, size_t size); // recv with MSG_PEEK

// mmap of a descriptor, shared, readable and writable, from its start. 0 or a negative errno.
int clinux_vhost_map_shared(int fd, size_t length, void **address);
int clinux_vhost_unmap(void *address, size_t length);
int clinux_vhost_memfd(const char *name, size_t length);
// The length of a regular file (memfds are), or -EINVAL for anything else.
int64_t clinux_vhost_regular_file_length(int fd);

// A stream socket, close-on-exec and non-blocking. `name`, where not empty, binds it in the abstract namespace, so that
// the other side can read it with getpeername; a name that is taken is ignored.
int clinux_vhost_unix_stream(const char *name);
int clinux_vhost_unix_listen(const char *path, int backlog); // bound and listening; -ENAMETOOLONG where it does not fit
int clinux_vhost_unix_connect(int fd, const char *path);
// The abstract name of a Unix socket's other end, zero-terminated: its length, or -ENOENT where it has none.
int clinux_vhost_peer_name(int fd, char *name, size_t size);
int clinux_vhost_shutdown(int fd, int how);
int clinux_vhost_close(int fd);
// Device and inode of a path itself (no link followed): 0 or a negative errno.
int clinux_vhost_file_identity(const char *path, uint64_t *device, uint64_t *inode);

int clinux_vhost_epoll_create(void);
int clinux_vhost_epoll_control(int epoll, int operation, int fd, uint32_t events, uint64_t token);
int clinux_vhost_epoll_wait(int epoll, struct epoll_event *events, int capacity, int milliseconds);
uint64_t clinux_vhost_epoll_token(const struct epoll_event *event); // the struct is packed

// A ring's index fields are shared with a guest that runs meanwhile (virtio 1.2, 2.7.13 and 2.7.14).
static inline uint16_t clinux_vhost_load_acquire_u16(const void *address) {
  return __atomic_load_n((const uint16_t *)address, __ATOMIC_ACQUIRE);
}
static inline void clinux_vhost_store_release_u16(void *address, uint16_t value) {
  __atomic_store_n((uint16_t *)address, value, __ATOMIC_RELEASE);
}
