// TUN devices (linux/if_tun.h; drivers/net/tun.c).
#pragma once
#include <linux/if_tun.h>
#include <linux/virtio_net.h>

// Opens a queue of the TUN device `name` (at most 15 bytes; a %d in it lets the kernel choose a number), made anew where
// there is none: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR, with `multi_queue` IFF_MULTI_QUEUE too. Non-blocking. The device's
// name comes back in `made`. Returns the descriptor or a negative errno; *call is the call that failed.
int clinux_tun_open(const char *name, bool multi_queue, char made[16], const char **call);
// TUNSETOFFLOAD: what the kernel may leave to the reader of the packets (TUN_F_*). Negative errno.
int clinux_tun_offload(int fd, unsigned features);
// Whether the device outlives its descriptors.
int clinux_tun_persist(int fd, bool on);

enum {
  CLINUX_TUN_F_CSUM = TUN_F_CSUM, CLINUX_TUN_F_TSO4 = TUN_F_TSO4, CLINUX_TUN_F_TSO6 = TUN_F_TSO6,
  CLINUX_TUN_F_TSO_ECN = TUN_F_TSO_ECN,
  // Linux 6.2; not in older headers.
  CLINUX_TUN_F_USO4 = 0x20, CLINUX_TUN_F_USO6 = 0x40,
};
