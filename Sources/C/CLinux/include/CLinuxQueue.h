// nfnetlink_queue (linux/netfilter/nfnetlink_queue.h; net/netfilter/nfnetlink_queue.c) and raw sockets.
#pragma once
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>

// NFQNL_MSG_VERDICT, or with `batch` NFQNL_MSG_VERDICT_BATCH: for `id` alone, or for all up to it. The socket must be the
// one that bound the queue, and the caller must have CAP_NET_ADMIN. Not acknowledged: a refusal arrives on the socket.
// Negative errno.
int clinux_queue_verdict(int fd, uint16_t queue, uint32_t id, uint32_t verdict, bool batch);

// A raw socket of AF_INET or AF_INET6 that takes whole packets (IP_HDRINCL, implied by IPPROTO_RAW; raw(7)) and sends them
// through `device` only (SO_BINDTODEVICE). Negative errno, *call is the call that failed.
int clinux_raw_socket(int family, const char *device, const char **call);

struct clinux_piece {
  const void *header, *payload;
  uint32_t header_length, payload_length;
};
// sendmmsg(2): at most CLINUX_PIECES packets, each a header and what follows it, all to one address. Returns how many were
// sent before the first that was not, or where none was a negative errno.
enum { CLINUX_PIECES = 64 };
int clinux_send_pieces(
    int fd, const struct sockaddr_storage *to, socklen_t to_length, const struct clinux_piece *pieces, int count);

enum {
  CLINUX_QUEUE_MESSAGE = NFNL_SUBSYS_QUEUE << 8,
  CLINUX_QUEUE_PACKET = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET,
  CLINUX_QUEUE_CONFIG = NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_CONFIG,
  CLINUX_NF_DROP = NF_DROP, CLINUX_NF_ACCEPT = NF_ACCEPT,
  // Not in older headers.
  CLINUX_NETLINK_NO_ENOBUFS = 5, CLINUX_SOL_NETLINK = 270,
};
