#include "CLinux.h"

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

int clinux_queue_verdict(int fd, uint16_t queue, uint32_t id, uint32_t verdict, bool batch) {
  struct {
    struct nlmsghdr header;
    struct nfgenmsg family;
    struct nlattr attribute;
    struct nfqnl_msg_verdict_hdr verdict;
  } message = {
      .header = {.nlmsg_len = sizeof message,
                 .nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | (batch ? NFQNL_MSG_VERDICT_BATCH : NFQNL_MSG_VERDICT),
                 .nlmsg_flags = NLM_F_REQUEST},
      .family = {.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(queue)},
      .attribute = {.nla_len = sizeof message.attribute + sizeof message.verdict, .nla_type = NFQA_VERDICT_HDR},
      .verdict = {.verdict = htonl(verdict), .id = htonl(id)},
  };
  struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
  long result = RESULT(sendto(fd, &message, sizeof message, 0, (struct sockaddr *)&kernel, sizeof kernel));
  return result < 0 ? (int)result : 0;
}

int clinux_raw_socket(int family, const char *device, const char **call) {
  *call = "socket SOCK_RAW";
  int fd = (int)RESULT(socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (fd < 0) return fd;
  *call = "setsockopt SO_BINDTODEVICE";
  int result = (int)RESULT(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)));
  if (result < 0) {
    close(fd);
    return result;
  }
  // A device that is slower than the enclave holds the sender up for a moment; one that stands still does not for ever.
  struct timeval limit = {.tv_sec = 0, .tv_usec = 100 * 1000};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  int size = 4 << 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
  // Nothing is ever read here: packets of protocol 255, which these sockets receive, are not to pile up.
  size = 0;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  return fd;
}

int clinux_send_pieces(
    int fd, const struct sockaddr_storage *to, socklen_t to_length, const struct clinux_piece *pieces, int count) {
  struct mmsghdr messages[CLINUX_PIECES];
  struct iovec vectors[CLINUX_PIECES][2];
  if (count > CLINUX_PIECES) count = CLINUX_PIECES;
  memset(messages, 0, sizeof messages[0] * (size_t)count);
  for (int i = 0; i < count; i++) {
    vectors[i][0] = (struct iovec){(void *)(uintptr_t)pieces[i].header, pieces[i].header_length};
    vectors[i][1] = (struct iovec){(void *)(uintptr_t)pieces[i].payload, pieces[i].payload_length};
    messages[i].msg_hdr = (struct msghdr){.msg_name = (void *)(uintptr_t)to,
                                          .msg_namelen = to_length,
                                          .msg_iov = vectors[i],
                                          .msg_iovlen = 2};
  }
  return (int)RESULT(sendmmsg(fd, messages, (unsigned)count, 0));
}
