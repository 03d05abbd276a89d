// Datagrams, several with one call of the kernel.
#include "CLinux.h"

#define RESULT(call) ({ long r_; do r_ = (call); while (r_ < 0 && errno == EINTR); r_ < 0 ? -errno : r_; })

_Static_assert(sizeof(struct sockaddr_in6) <= CLINUX_PEER_BYTES, "an address of a peer has room");

// One control message with our own address.
union control {
  struct cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

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

static void take_local(struct msghdr *message, struct clinux_peer *peer) {
  peer->local_length = peer->local_interface = 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO &&
        part->cmsg_len >= CMSG_LEN(sizeof(struct in_pktinfo))) {
      struct in_pktinfo info;
      memcpy(&info, CMSG_DATA(part), sizeof info);
      // Of a broadcast it is the address that answers come from.
      memcpy(peer->local, &info.ipi_spec_dst, 4);
      peer->local_length = 4;
    } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO &&
               part->cmsg_len >= CMSG_LEN(sizeof(struct in6_pktinfo))) {
      struct in6_pktinfo info;
      memcpy(&info, CMSG_DATA(part), sizeof info);
      if (IN6_IS_ADDR_MULTICAST(&info.ipi6_addr)) continue;
      memcpy(peer->local, &info.ipi6_addr, 16);
      peer->local_length = 16;
      if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) peer->local_interface = info.ipi6_ifindex;
    }
  }
}

static void put_local(struct msghdr *message, union control *control, const struct clinux_peer *peer) {
  if (peer->local_length == 0) return;
  memset(control, 0, sizeof *control);
  message->msg_control = control;
  if (peer->local_length == 4) {
    struct in_pktinfo info = {0};
    memcpy(&info.ipi_spec_dst, peer->local, 4);
    message->msg_controllen = CMSG_SPACE(sizeof info);
    control->header.cmsg_level = IPPROTO_IP;
    control->header.cmsg_type = IP_PKTINFO;
    control->header.cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(&control->header), &info, sizeof info);
  } else {
    struct in6_pktinfo info = {.ipi6_ifindex = peer->local_interface};
    memcpy(&info.ipi6_addr, peer->local, 16);
    message->msg_controllen = CMSG_SPACE(sizeof info);
    control->header.cmsg_level = IPPROTO_IPV6;
    control->header.cmsg_type = IPV6_PKTINFO;
    control->header.cmsg_len = CMSG_LEN(sizeof info);
    memcpy(CMSG_DATA(&control->header), &info, sizeof info);
  }
}

int clinux_receive_datagrams(int fd, struct clinux_datagram *datagrams, int count) {
  struct mmsghdr messages[CLINUX_DATAGRAMS];
  struct iovec vectors[CLINUX_DATAGRAMS];
  union control controls[CLINUX_DATAGRAMS];
  for (int i = 0; i < count; i++) datagrams[i].peer.length = CLINUX_PEER_BYTES;
  count = prepare(messages, vectors, datagrams, count);
  for (int i = 0; i < count; i++) {
    messages[i].msg_hdr.msg_control = &controls[i];
    messages[i].msg_hdr.msg_controllen = sizeof controls[i];
  }
  int received = (int)RESULT(recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT, NULL));
  for (int i = 0; i < received; i++) {
    datagrams[i].count = messages[i].msg_len;
    // What the kernel would have needed may be more than there is.
    socklen_t length = messages[i].msg_hdr.msg_namelen;
    datagrams[i].peer.length = length < CLINUX_PEER_BYTES ? (uint32_t)length : CLINUX_PEER_BYTES;
    take_local(&messages[i].msg_hdr, &datagrams[i].peer);
  }
  return received;
}

int clinux_send_datagrams(int fd, struct clinux_datagram *datagrams, int count) {
  struct mmsghdr messages[CLINUX_DATAGRAMS];
  struct iovec vectors[CLINUX_DATAGRAMS];
  union control controls[CLINUX_DATAGRAMS];
  count = prepare(messages, vectors, datagrams, count);
  for (int i = 0; i < count; i++) put_local(&messages[i].msg_hdr, &controls[i], &datagrams[i].peer);
  return (int)RESULT(sendmmsg(fd, messages, (unsigned)count, MSG_NOSIGNAL | MSG_DONTWAIT));
}

int clinux_receive_local_addresses(int fd, bool v6) {
  int on = 1;
  return (int)RESULT(
      setsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_RECVPKTINFO : IP_PKTINFO, &on, sizeof on));
}

int clinux_disconnect(int fd) {
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  return (int)RESULT(connect(fd, &none, sizeof none));
}
