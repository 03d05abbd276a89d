#include "CLinux.h"

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
