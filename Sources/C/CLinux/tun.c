#include "CLinux.h"
#include <linux/filter.h>
#include <pthread.h>
#include <sys/file.h>

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

int clinux_tun_open(const char *name, bool multi_queue, char made[16], const char **call) {
  *call = "open /dev/net/tun";
  int fd = (int)RESULT(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (fd < 0) return fd;
  struct ifreq request = {0};
  if (strlen(name) >= sizeof request.ifr_name) {
    close(fd);
    return -ENAMETOOLONG;
  }
  strcpy(request.ifr_name, name);
  request.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | (multi_queue ? IFF_MULTI_QUEUE : 0));
  *call = "ioctl TUNSETIFF";
  int result = (int)RESULT(ioctl(fd, TUNSETIFF, &request));
  if (result == 0) {
    // The legacy header, without the count of merged buffers; little-endian on every machine.
    int size = sizeof(struct virtio_net_hdr), yes = 1;
    *call = "ioctl TUNSETVNETHDRSZ";
    result = (int)RESULT(ioctl(fd, TUNSETVNETHDRSZ, &size));
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    if (result == 0) result = (int)RESULT(ioctl(fd, TUNSETVNETLE, &yes));
#else
    (void)yes;
#endif
  }
  if (result < 0) {
    close(fd);
    return result;
  }
  memcpy(made, request.ifr_name, 16);
  return fd;
}

int clinux_tun_offload(int fd, unsigned features) {
  return (int)RESULT(ioctl(fd, TUNSETOFFLOAD, (unsigned long)features));
}
int clinux_tun_persist(int fd, bool on) { return (int)RESULT(ioctl(fd, TUNSETPERSIST, (unsigned long)on)); }
int clinux_make_device(const char *path, unsigned major_number, unsigned minor_number) {
  int result = (int)RESULT(mknod(path, S_IFCHR | 0666, makedev(major_number, minor_number)));
  return result < 0 ? result : (int)RESULT(chmod(path, 0666));
}

struct start {
  void (*body)(void *);
  void *context;
};
static void *run(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  start.body(start.context);
  return NULL;
}
int clinux_thread(void (*body)(void *), void *context) {
  struct start *start = malloc(sizeof *start);
  if (!start) return -ENOMEM;
  *start = (struct start){body, context};
  uint64_t before;
  // Inherited by the thread: the loop's signalfd must stay the only receiver. But for SIGSYS, which tells of the thread's own
  // faults: confine.c says which call it was.
  clinux_set_signal_mask(~(UINT64_C(1) << (SIGSYS - 1)), &before);
  pthread_t thread;
  int error = pthread_create(&thread, NULL, run, start);
  clinux_set_signal_mask(before, NULL);
  if (error) {
    free(start);
    return -error;
  }
  pthread_detach(thread);
  return 0;
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
