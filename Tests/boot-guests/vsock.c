// The init of a guest that tries its vsock device from every side and says `ok` or `FAIL` on the console.
// Built by BootTests with `cc -static`. Host ports: 9000 heartbeat, 9001 checks and counts bytes, 9002 sends 64 MiB, 9003 echoes,
// 9004 holds its connection until the host has tried the echo server on the guest's port 5000, 9999 nobody.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

enum { STREAMS = 1000 };
static const long bulk = 64L << 20;
static unsigned char big[1 << 20];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static int dial(unsigned cid, unsigned port) {
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
  if (connect(fd, (struct sockaddr *)&to, sizeof to) == 0) return fd;
  int error = errno;
  close(fd);
  errno = error;
  return -1;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void load_modules(void) {
  char *names[64], path[300];
  int count = 0;
  DIR *directory = opendir("/modules");
  if (!directory) return;
  for (struct dirent *entry; (entry = readdir(directory)) && count < 64;)
    if (entry->d_name[0] != '.') names[count++] = strdup(entry->d_name);
  qsort(names, (size_t)count, sizeof *names, by_name);
  for (int i = 0; i < count; i++) {
    snprintf(path, sizeof path, "/modules/%s", names[i]);
    int fd = open(path, O_RDONLY);
    int flags = strstr(names[i], ".xz") ? 4 : 0; // MODULE_INIT_COMPRESSED_FILE
    if (syscall(SYS_finit_module, fd, "", flags) != 0 && errno != EEXIST) printf("FAIL module %s: %m\n", names[i]);
    close(fd);
  }
}

static void echo_server(unsigned port) {
  int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
  struct sockaddr_vm at = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
  if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 16)) printf("FAIL listen: %m\n");
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) exit(1);
    if (fork() == 0) {
      for (ssize_t n; (n = read(fd, big, sizeof big)) > 0;)
        for (ssize_t done = 0, k; done < n; done += k)
          if ((k = write(fd, big + done, (size_t)(n - done))) < 0) exit(1);
      // The other half has ended; this one goes on for these bytes.
      if (write(fd, "END", 3) != 3) exit(1);
      exit(0);
    }
    close(fd);
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
  }
}

static void heartbeat(void) {
  unsigned char byte = 0xB7, answer = 0;
  int fd = dial(3, 9000);
  int good = fd >= 0 && write(fd, &byte, 1) == 1 && read(fd, &answer, 1) == 1 && answer == byte;
  printf("%s heartbeat\n", good ? "ok" : "FAIL");
  close(fd);
}

static void refused(void) {
  double start = now();
  int fd = dial(2, 9999);
  int error = errno;
  double took = now() - start;
  printf("%s refused: %s after %.0f ms\n", fd < 0 && error == ECONNRESET && took < 1 ? "ok" : "FAIL",
         fd < 0 ? strerror(error) : "accepted", took * 1e3);
}

static void upload(unsigned cid, size_t piece) {
  int fd = dial(cid, 9001);
  double start = now();
  long sent = 0;
  for (size_t i = 0; i < sizeof big; i++) big[i] = (unsigned char)(i * 7 + i / 251);
  while (sent < bulk) {
    size_t at = (size_t)sent % sizeof big, left = sizeof big - at;
    ssize_t n = write(fd, big + at, left < piece ? left : piece);
    if (n <= 0) break;
    sent += n;
  }
  shutdown(fd, SHUT_WR);
  char line[64] = {0}, expected[64];
  size_t got = 0;
  for (ssize_t n; got < sizeof line - 1 && (n = read(fd, line + got, sizeof line - 1 - got)) > 0;) got += (size_t)n;
  snprintf(expected, sizeof expected, "%ld bytes, 0 wrong pieces", bulk);
  printf("%s upload in pieces of %zu: %.0f MB/s\n", strcmp(line, expected) == 0 ? "ok" : "FAIL", piece,
         (double)sent / (now() - start) / 1e6);
  close(fd);
}

static void download(void) {
  int fd = dial(3, 9002), bad = 0;
  double start = now();
  long got = 0;
  for (ssize_t n; (n = read(fd, big, sizeof big)) > 0; got += n)
    for (ssize_t i = 0; i < n; i++) bad += big[i] != (unsigned char)((got + i) % 251);
  printf("%s download: %.0f MB/s\n", got == bulk && bad == 0 ? "ok" : "FAIL", (double)got / (now() - start) / 1e6);
  close(fd);
}

static void streams(void) {
  static int fds[STREAMS];
  int good = 0;
  for (unsigned i = 0; i < STREAMS; i++) {
    unsigned value = i * 2654435761u;
    fds[i] = dial(2 + (i & 1), 9003);
    if (fds[i] >= 0 && write(fds[i], &value, 4) == 4) shutdown(fds[i], SHUT_WR);
  }
  for (unsigned i = 0; i < STREAMS; i++) {
    unsigned value = 0;
    char more;
    size_t got = 0;
    for (ssize_t n; got < 4 && (n = read(fds[i], (char *)&value + got, 4 - got)) > 0;) got += (size_t)n;
    good += got == 4 && value == i * 2654435761u && read(fds[i], &more, 1) == 0;
    close(fds[i]);
  }
  printf("%s %d of %d streams\n", good == STREAMS ? "ok" : "FAIL", good, STREAMS);
}

int main(void) {
  mkdir("/dev", 0755);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  int console = open("/dev/console", O_RDWR);
  for (int fd = 0; fd < 3; fd++) dup2(console, fd);
  setvbuf(stdout, NULL, _IONBF, 0);
  struct rlimit files = {4096, 4096};
  setrlimit(RLIMIT_NOFILE, &files);
  load_modules();
  if (fork() == 0) echo_server(5000);
  heartbeat();
  refused();
  upload(3, sizeof big);
  upload(2, 65536);
  download();
  streams();
  int fd = dial(3, 9004);
  char byte;
  printf("%s host's turn\n", read(fd, &byte, 1) == 0 ? "ok" : "FAIL");
  // The last words before the machine goes off must arrive too, once they have left this kernel: Linux hands packets
  // to the device from a work queue, which a reboot does not wait for.
  fd = dial(3, 9005);
  if (write(fd, "last words", 10) != 10) printf("FAIL last words\n");
  usleep(200000);
  reboot(RB_AUTOBOOT);
}
