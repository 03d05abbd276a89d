// What AWS's own init does for an enclave's program, as far as the program sees it: console, heartbeat, /cmd and /env,
// /rootfs made the root, the usual mounts, the program in a session of its own, its status thrown away, reboot.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void need(int result, const char *what) {
  if (result >= 0) return;
  perror(what);
  reboot(RB_AUTOBOOT);
}

// One entry a line.
static char **lines(const char *path) {
  static char text[2][65536];
  static char *entries[2][256];
  static int next = 0;
  int slot = next++, count = 0, file = open(path, O_RDONLY);
  need(file, path);
  need((int)read(file, text[slot], sizeof text[slot] - 1), path);
  for (char *line = strtok(text[slot], "\n"); line && count < 255; line = strtok(NULL, "\n")) entries[slot][count++] = line;
  close(file);
  unlink(path);
  return entries[slot];
}

int main(void) {
  need(mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL), "/dev");
  int console = open("/dev/console", O_RDWR);
  for (int target = 0; target < 3; target++) dup2(console, target);
  struct sockaddr_vm parent = {.svm_family = AF_VSOCK, .svm_cid = 3, .svm_port = 9000};
  unsigned char beat = 0xb7;
  int heart = socket(AF_VSOCK, SOCK_STREAM, 0);
  need(connect(heart, (struct sockaddr *)&parent, sizeof parent), "heartbeat");
  need(write(heart, &beat, 1) == 1 && read(heart, &beat, 1) == 1 && beat == 0xb7 ? 0 : -1, "heartbeat");
  close(heart);
  char **environment = lines("/env"), **command = lines("/cmd");
  need(mount("/rootfs", "/rootfs", NULL, MS_BIND, NULL), "/rootfs");
  need(chdir("/rootfs"), "/rootfs");
  need(mount(".", "/", NULL, MS_MOVE, NULL), "move");
  need(chroot("."), "chroot");
  need(mount("dev", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, NULL), "/dev");
  need(mount("proc", "/proc", "proc", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL), "/proc");
  need(mount("tmpfs", "/run", "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, "mode=0755"), "/run");
  need(mount("tmpfs", "/tmp", "tmpfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL), "/tmp");
  need(mount("sysfs", "/sys", "sysfs", MS_NODEV | MS_NOSUID | MS_NOEXEC, NULL), "/sys");
  pid_t child = fork();
  if (child == 0) {
    setsid();
    clearenv();
    for (char **entry = environment; *entry; entry++) putenv(*entry);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
  }
  while (wait(NULL) != child) {}
  sync();
  reboot(RB_AUTOBOOT);
  return 1;
}
