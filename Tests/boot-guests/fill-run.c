// Init of an enclave whose /run is full from the moment that it is there: starts a process that fills whatever PID 1
// mounts on its /run, and becomes /rootfs/tombolo-init. A real-time process, so that on one CPU it runs as soon as the
// mount wakes it, before init can take another step. Nothing is mounted on /proc when init starts, as it expects.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static int is_mounted(void) {
  struct stat root, run;
  return stat("/p/1/root", &root) == 0 && stat("/p/1/root/run", &run) == 0 && root.st_dev != run.st_dev;
}

int main(void) {
  int ready[2];
  char byte = 0;
  if (pipe(ready) < 0) return 1;
  if (fork() == 0) {
    struct sched_param priority = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &priority);
    mkdir("/p", 0755);
    if (mount("proc", "/p", "proc", 0, NULL) < 0) return 1;
    // Says POLLPRI whenever a mount is added or removed (proc_pid_mounts(5)).
    struct pollfd mounts = {.fd = open("/p/self/mounts", O_RDONLY), .events = POLLPRI};
    if (mounts.fd < 0 || write(ready[1], "r", 1) != 1) return 1;
    while (!is_mounted()) poll(&mounts, 1, -1);
    // Half of the machine's memory takes longer than the kernel lets a real-time process run at a stretch.
    if (mount(NULL, "/p/1/root/run", NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, "size=1M") < 0) return 1;
    static char block[1 << 20];
    int file = open("/p/1/root/run/filling", O_WRONLY | O_CREAT, 0600);
    while (write(file, block, sizeof block) > 0) {}
    return 0;
  }
  if (read(ready[0], &byte, 1) != 1) return 1;
  close(ready[0]);
  close(ready[1]);
  execl("/rootfs/tombolo-init", "/init", (char *)NULL);
  return 1;
}
