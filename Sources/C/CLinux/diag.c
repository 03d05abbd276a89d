#include "CLinux.h"
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

int clinux_diag_open(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_SOCK_DIAG);
  return fd < 0 ? -errno : fd;
}

// inet_diag_find_one_icsk in net/ipv4/inet_diag.c: with the addresses of a connection and a remote port that nobody has,
// the kernel answers with the socket that would take the connection, or with ENOENT.
int clinux_diag_listens(int fd, bool v6, uint16_t port) {
  static uint32_t sequence;
  struct {
    struct nlmsghdr header;
    struct inet_diag_req_v2 request;
  } ask = {
    .header = {.nlmsg_len = sizeof ask, .nlmsg_type = SOCK_DIAG_BY_FAMILY, .nlmsg_flags = NLM_F_REQUEST,
               .nlmsg_seq = ++sequence},
    .request = {.sdiag_family = v6 ? AF_INET6 : AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = ~0u,
                // `lo` is link 1 (LOOPBACK_IFINDEX): so sockets bound to it are found too.
                .id = {.idiag_sport = htons(port), .idiag_if = 1,
                       .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
  };
  struct inet_diag_sockid *id = &ask.request.id;
  if (v6) {
    id->idiag_src[3] = id->idiag_dst[3] = htonl(1);
  } else {
    id->idiag_src[0] = id->idiag_dst[0] = htonl(INADDR_LOOPBACK);
  }
  if (send(fd, &ask, sizeof ask, 0) < 0) return -errno;
  // The kernel answers within send(2). An answer to an earlier question, which was given up, is passed over.
  for (int i = 0; i < 16; i++) {
    union {
      struct nlmsghdr header;
      char bytes[4096];
    } answer;
    ssize_t got = recv(fd, &answer, sizeof answer, 0);
    if (got < 0) return errno == EINTR ? -EAGAIN : -errno;
    if (got < (ssize_t)sizeof answer.header || answer.header.nlmsg_seq != sequence) continue;
    if (answer.header.nlmsg_type == NLMSG_ERROR) {
      if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr))) return -EBADMSG;
      int error = ((struct nlmsgerr *)NLMSG_DATA(&answer.header))->error;
      return error == -ENOENT ? 0 : error < 0 ? error : -EBADMSG;
    }
    if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct inet_diag_msg))) return -EBADMSG;
    return ((struct inet_diag_msg *)NLMSG_DATA(&answer.header))->idiag_state == TCP_LISTEN;
  }
  return -EAGAIN;
}
