#include "CLinux.h"

static int saved_argc = 0;
static char *const *saved_argv = NULL;
static bool started_bare = false;
static uint64_t started_at = 0;

const char *clinux_argument(int index) { return index >= 0 && index < saved_argc ? saved_argv[index] : NULL; }
uint64_t clinux_started_at(void) { return started_at; }
bool clinux_started_bare(void) { return started_bare; }

// Runs before the Swift runtime's own initialisers (they have no priority, so later than 101): without /proc its
// backtracer aborts before main, and CommandLine.arguments stays empty for good. glibc passes argc, argv and envp to
// constructors of static executables too.
__attribute__((constructor(101))) static void clinux_start(int argc, char **argv, char **envp) {
  (void)envp;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  started_at = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  saved_argc = argc;
  saved_argv = argv;
  if (getpid() != 1) return;
  // A kernel's init may have been started without a console: descriptors 0 to 2 must exist before anything opens one.
  for (int fd = 0; fd < 3; fd++)
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      int opened = open("/dev/null", O_RDWR);
      if (opened < 0) opened = open("/", O_PATH); // an empty root: anything that takes the number
      if (opened >= 0 && opened != fd) { dup2(opened, fd); close(opened); }
    }
  struct stat self;
  if (stat("/proc/self/exe", &self) == 0) return;
  started_bare = true;
  mkdir("/proc", 0555);
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
    // What is wrong with it is said by the boot plan, which tries again.
    // The runtime would abort at once; with these it starts all the same.
    setenv("SWIFT_BACKTRACE", "enable=no,swift-backtrace=/", 0);
  }
}
