// Many connections, most of them idle: the two ends of Tests/bench/idle.
//
//   idle serve PORT PORTS                            echoes on so many ports; says "up"
//   idle load ADDRESS PORT PORTS [SOURCE SOURCES]    takes orders on standard input, answers each with a line:
//     open N           opens N more, in turn to each port and from each source address
//     alive            says how many of them have not been reset
//     ping N COUNT     exchanges one byte COUNT times, one at a time, over N of them in turn; N at random places
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void must(int ok, const char *what) {
  if (!ok) perror(what), exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static struct sockaddr_in address(const char *text, int port, uint32_t plus) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  must(inet_pton(AF_INET, text, &a.sin_addr) == 1, text);
  a.sin_addr.s_addr = htonl(ntohl(a.sin_addr.s_addr) + plus);
  return a;
}

static void serve(int port, int ports) {
  int loop = epoll_create1(0), on = 1;
  struct epoll_event events[256];
  for (int i = 0; i < ports; i++) {
    int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in a = address("0.0.0.0", port + i, 0);
    must(bind(s, (struct sockaddr *)&a, sizeof a) == 0, "bind");
    must(listen(s, 4096) == 0, "listen");
    struct epoll_event e = {EPOLLIN, {.u64 = 1ull << 32 | (unsigned)s}};
    must(epoll_ctl(loop, EPOLL_CTL_ADD, s, &e) == 0, "epoll_ctl");
  }
  puts("up");
  fflush(stdout);
  for (;;) {
    int count = epoll_wait(loop, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = (int)(uint32_t)events[i].data.u64;
      if (events[i].data.u64 >> 32) {
        int c;
        while ((c = accept4(fd, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
          setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
          struct epoll_event e = {EPOLLIN, {.u64 = (unsigned)c}};
          must(epoll_ctl(loop, EPOLL_CTL_ADD, c, &e) == 0, "epoll_ctl");
        }
      } else {
        char data[4096];
        ssize_t n = read(fd, data, sizeof data);
        if (n <= 0 || write(fd, data, (size_t)n) != n) close(fd);
      }
    }
  }
}

static int *all, count;

static int order(const void *a, const void *b) {
  double d = *(const double *)a - *(const double *)b;
  return d < 0 ? -1 : d > 0;
}

static void ping(int active, int exchanges) {
  double *times = calloc((size_t)exchanges, sizeof *times);
  int failed = 0;
  srandom(1);
  // Places at random, so that they lie between the idle ones.
  for (int i = 0; i < active && i < count; i++) {
    int j = i + (int)(random() % (count - i)), t = all[i];
    all[i] = all[j], all[j] = t;
  }
  for (int i = 0; i < exchanges; i++) {
    int fd = all[i % (active < count ? active : count)];
    char byte = (char)i, back = 0;
    struct pollfd p = {fd, POLLIN, 0};
    double start = now();
    if (write(fd, &byte, 1) != 1 || poll(&p, 1, 10000) != 1 || read(fd, &back, 1) != 1 || back != byte) failed++;
    times[i] = now() - start;
  }
  qsort(times, (size_t)exchanges, sizeof *times, order);
  printf("p50 %.1f p99 %.1f failed %d\n", times[exchanges / 2], times[exchanges * 99 / 100], failed);
}

static void open_more(int more, const char *host, int port, int ports, const char *source, int sources) {
  int first = count, started = 0, waiting = 0, failed = 0, loop = epoll_create1(0), on = 1, reason = 0;
  double start = now();
  struct epoll_event events[256];
  all = realloc(all, sizeof *all * (size_t)(count + more));
  while (started < more || waiting > 0) {
    while (started < more && waiting < 256) {
      int number = first + started++;
      int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      must(s >= 0, "socket");
      setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      if (source) {
        struct sockaddr_in a = address(source, 0, (uint32_t)(number % sources));
        setsockopt(s, IPPROTO_IP, 24 /* IP_BIND_ADDRESS_NO_PORT */, &on, sizeof on);
        must(bind(s, (struct sockaddr *)&a, sizeof a) == 0, "bind");
      }
      struct sockaddr_in a = address(host, port + number % ports, 0);
      if (connect(s, (struct sockaddr *)&a, sizeof a) < 0 && errno != EINPROGRESS) {
        reason = errno, failed++, close(s);
        continue;
      }
      struct epoll_event e = {EPOLLOUT, {.fd = s}};
      must(epoll_ctl(loop, EPOLL_CTL_ADD, s, &e) == 0, "epoll_ctl");
      waiting++;
    }
    int n = epoll_wait(loop, events, 256, 20000);
    if (n == 0) break;
    for (int i = 0; i < n; i++) {
      int fd = events[i].data.fd, error = 0;
      socklen_t length = sizeof error;
      getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
      epoll_ctl(loop, EPOLL_CTL_DEL, fd, NULL);
      waiting--;
      if (error) {
        reason = error, failed++, close(fd);
      } else {
        all[count++] = fd;
      }
    }
  }
  close(loop);
  printf("open %d failed %d waiting %d %s seconds %.2f\n", count, failed, waiting, reason ? strerrorname_np(reason) : "-",
         (now() - start) / 1e6);
}

static void alive(void) {
  int found = 0;
  for (int i = 0; i < count; i++) {
    struct pollfd p = {all[i], POLLIN, 0};
    found += poll(&p, 1, 0) == 0;
  }
  printf("alive %d of %d\n", found, count);
}

int main(int argc, char **argv) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  if (argc == 4 && !strcmp(argv[1], "serve")) serve(atoi(argv[2]), atoi(argv[3]));
  if (argc < 5 || strcmp(argv[1], "load")) return fputs("usage: see the source\n", stderr), 2;
  char line[100];
  int a, b;
  puts("up");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    if (sscanf(line, "open %d", &a) == 1)
      open_more(a, argv[2], atoi(argv[3]), atoi(argv[4]), argc > 6 ? argv[5] : NULL, argc > 6 ? atoi(argv[6]) : 1);
    else if (sscanf(line, "ping %d %d", &a, &b) == 2)
      ping(a, b);
    else if (!strncmp(line, "alive", 5))
      alive();
    fflush(stdout);
  }
}
