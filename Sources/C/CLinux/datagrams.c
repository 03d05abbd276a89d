// Datagrams, several with one call of the kernel.
#include "CLinux.h"

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

_Static_assert(sizeof(struct sockaddr_in6) <= CLINUX_PEER_BYTES, "an address of a peer has room");

static int prepare(struct mmsghdr *messages, struct iovec *vectors, struct clinux_datagram *datagrams, int count) {
  if (count > CLINUX_DATAGRAMS) count = CLINUX_DATAGRAMS;
  memset(messages, 0, sizeof messages[0] * (size_t)count);
  for (int i = 0; i < count; i++) {
    vectors[i] = (struct iovec){datagrams[i].bytes, datagrams[i].count};
    messages[i].msg_hdr.msg_name = datagrams[i].peer.bytes;
    messages[i].msg_hdr.msg_namelen = datagrams[i].peer.length;
    messages[i].msg_hdr.msg_iov = &vectors[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  return count;
}

int clinux_receive_datagrams(int fd, struct clinux_datagram *datagrams, int count) {
  struct mmsghdr messages[CLINUX_DATAGRAMS];
  struct iovec vectors[CLINUX_DATAGRAMS];
  for (int i = 0; i < count; i++) datagrams[i].peer.length = CLINUX_PEER_BYTES;
  count = prepare(messages, vectors, datagrams, count);
  int received = (int)RESULT(recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT, NULL));
  for (int i = 0; i < received; i++) {
    datagrams[i].count = messages[i].msg_len;
    // What the kernel would have needed may be more than there is.
    socklen_t length = messages[i].msg_hdr.msg_namelen;
    datagrams[i].peer.length = length < CLINUX_PEER_BYTES ? (uint32_t)length : CLINUX_PEER_BYTES;
  }
  return received;
}

int clinux_send_datagrams(int fd, struct clinux_datagram *datagrams, int count) {
  struct mmsghdr messages[CLINUX_DATAGRAMS];
  struct iovec vectors[CLINUX_DATAGRAMS];
  count = prepare(messages, vectors, datagrams, count);
  return (int)RESULT(sendmmsg(fd, messages, (unsigned)count, MSG_NOSIGNAL | MSG_DONTWAIT));
}
