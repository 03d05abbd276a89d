// The least that an init of an enclave can ask of the kernel before it starts a program in TCP mode: lo up, its addresses
// and routes, the four xtables read and written back. No log, no configuration, no proxy, no checks: what it takes is what
// no init can be faster than on the same machine. Tests/bench/boot prints it beside tombolo-init's own time.
#include <arpa/inet.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void need(int ok, const char *what) {
  if (ok) return;
  perror(what);
  reboot(RB_AUTOBOOT);
}

static int route;
static struct {
  struct nlmsghdr head;
  char body[256];
} message;

static void begin(int type, int flags, const void *header, int size) {
  memset(&message, 0, sizeof message);
  message.head.nlmsg_len = NLMSG_LENGTH(size);
  message.head.nlmsg_type = type;
  message.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
  memcpy(NLMSG_DATA(&message.head), header, size);
}

static void attribute(int type, const void *data, int size) {
  struct rtattr *a = (void *)((char *)&message + NLMSG_ALIGN(message.head.nlmsg_len));
  a->rta_type = type;
  a->rta_len = RTA_LENGTH(size);
  memcpy(RTA_DATA(a), data, size);
  message.head.nlmsg_len = NLMSG_ALIGN(message.head.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static void ask(const char *what) {
  char answer[4096];
  need(send(route, &message, message.head.nlmsg_len, 0) > 0 && recv(route, answer, sizeof answer, 0) > 0, what);
  int error = ((struct nlmsgerr *)NLMSG_DATA((struct nlmsghdr *)answer))->error;
  if (error && error != -17) fprintf(stderr, "%s: %s\n", what, strerror(-error));
}

static void address(int family, const char *text, int length) {
  unsigned char bytes[16];
  inet_pton(family, text, bytes);
  struct ifaddrmsg header = {.ifa_family = family, .ifa_prefixlen = length, .ifa_flags = IFA_F_NODAD, .ifa_index = 1};
  begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header);
  attribute(IFA_LOCAL, bytes, family == AF_INET ? 4 : 16);
  attribute(IFA_ADDRESS, bytes, family == AF_INET ? 4 : 16);
  ask(text);
}

static void defaultRoute(int family) {
  struct rtmsg header = {.rtm_family = family, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                         .rtm_scope = family == AF_INET ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST};
  int link = 1;
  begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &header, sizeof header);
  attribute(RTA_OIF, &link, sizeof link);
  ask("default route");
}

// The structures and options of IPv4 and IPv6 tables differ by name alone (linux/netfilter_ipv6/ip6_tables.h).
static void table(int family, const char *name) {
  int level = family == AF_INET ? SOL_IP : SOL_IPV6, s = socket(family, SOCK_RAW, IPPROTO_RAW);
  struct ipt_getinfo info = {0};
  socklen_t size = sizeof info;
  strcpy(info.name, name);
  need(s >= 0 && getsockopt(s, level, IPT_SO_GET_INFO, &info, &size) == 0, name);
  size = sizeof(struct ipt_get_entries) + info.size;
  struct ipt_get_entries *entries = calloc(1, size);
  strcpy(entries->name, name);
  entries->size = info.size;
  need(getsockopt(s, level, IPT_SO_GET_ENTRIES, entries, &size) == 0, name);
  struct ipt_replace *change = calloc(1, sizeof *change + info.size);
  strcpy(change->name, name);
  change->valid_hooks = info.valid_hooks;
  change->num_entries = change->num_counters = info.num_entries;
  change->size = info.size;
  memcpy(change->hook_entry, info.hook_entry, sizeof info.hook_entry);
  memcpy(change->underflow, info.underflow, sizeof info.underflow);
  change->counters = calloc(info.num_entries, sizeof(struct xt_counters));
  memcpy(change->entries, entries->entrytable, info.size);
  need(setsockopt(s, level, IPT_SO_SET_REPLACE, change, sizeof *change + info.size) == 0, name);
}

int main(void) {
  double start = now();
  route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  struct ifinfomsg lo = {.ifi_index = 1, .ifi_flags = 1, .ifi_change = 1};
  begin(RTM_NEWLINK, 0, &lo, sizeof lo);
  ask("lo");
  address(AF_INET, "127.0.1.1", 8);
  address(AF_INET6, "fd74:6f6d:626f::1", 128);
  defaultRoute(AF_INET);
  defaultRoute(AF_INET6);
  for (int i = 0; i < 4; i++) table(i & 1 ? AF_INET6 : AF_INET, i & 2 ? "filter" : "nat");
  double end = now();
  pid_t child = fork();
  if (child == 0) {
    execl("/bin/program", "program", NULL);
    _exit(127);
  }
  while (wait(NULL) != child) {}
  printf("the floor is %.0f ms\n", end - start);
  fflush(stdout);
  usleep(50000);
  reboot(RB_AUTOBOOT);
  return 1;
}
