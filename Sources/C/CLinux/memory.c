#include "CLinux.h"
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

enum { MOST_DESCRIPTORS = 128 };

ssize_t clinux_receive_with_descriptors(int fd, void *buffer, size_t size, int *descriptors, int capacity, int *count) {
  union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int) * MOST_DESCRIPTORS)]; } control;
  struct iovec vector = {buffer, size};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  *count = 0;
  ssize_t received = RESULT(recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT));
  if (received < 0) return received;
  bool overflow = (message.msg_flags & MSG_CTRUNC) != 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    size_t found = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < found; i++) {
      int one;
      memcpy(&one, CMSG_DATA(part) + i * sizeof(int), sizeof one);
      if (*count < capacity) descriptors[(*count)++] = one;
      else { close(one); overflow = true; }
    }
  }
  return overflow ? -EMSGSIZE : received;
}

ssize_t clinux_send_with_descriptors(int fd, const void *buffer, size_t size, const int *descriptors, int count) {
  union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int) * MOST_DESCRIPTORS)]; } control;
  struct iovec vector = {(void *)buffer, size};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (count < 0 || count > MOST_DESCRIPTORS) return -EINVAL;
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)count);
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)count);
    memcpy(CMSG_DATA(part), descriptors, sizeof(int) * (size_t)count);
  }
  return RESULT(sendmsg(fd, &message, MSG_NOSIGNAL));
}

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

int clinux_sealed_memory(const char *name, size_t length) {
  // Kernels before 6.3 do not know MFD_NOEXEC_SEAL; later ones may insist on it (vm.memfd_noexec).
  int fd = (int)RESULT(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
  if (fd == -EINVAL) fd = (int)RESULT(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd < 0) return fd;
  int result = (int)RESULT(ftruncate(fd, (off_t)length));
  if (result == 0) result = (int)RESULT(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL));
  if (result == 0) return fd;
  close(fd);
  return result;
}

int clinux_check_sealed_memory(int fd, size_t length) {
  // Only files of tmpfs and hugetlbfs have seals (fcntl(2)).
  int seals = (int)RESULT(fcntl(fd, F_GET_SEALS));
  if (seals < 0) return -EINVAL;
  if (!(seals & F_SEAL_SHRINK)) return -EPERM;
  // Huge pages that were given back may not be there again.
  struct statfs system;
  struct stat info;
  int result = (int)RESULT(fstatfs(fd, &system));
  if (result == 0) result = (int)RESULT(fstat(fd, &info));
  if (result < 0) return result;
  if (system.f_type != TMPFS_MAGIC) return -EINVAL;
  return info.st_size == (off_t)length ? 0 : -EMSGSIZE;
}

int clinux_map_rings(int fd, size_t control, size_t ring, void **address) {
  size_t whole = control + 4 * ring;
  char *start = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) return -errno;
  const struct { size_t place, length, offset; } parts[] = {
      {0, control, 0},
      {control, ring, control},
      {control + ring, ring, control},
      {control + 2 * ring, ring, control + ring},
      {control + 3 * ring, ring, control + ring},
  };
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
    void *made = mmap(start + parts[i].place, parts[i].length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                      (off_t)parts[i].offset);
    if (made != MAP_FAILED) continue;
    int error = errno;
    munmap(start, whole);
    return -error;
  }
  *address = start;
  return 0;
}

int clinux_unmap_rings(void *address, size_t control, size_t ring) {
  return (int)RESULT(munmap(address, control + 4 * ring));
}
