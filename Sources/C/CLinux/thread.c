#include "CLinux.h"
#include <pthread.h>

struct start {
  void (*body)(void *);
  void *context;
};
static void *run(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  start.body(start.context);
  return NULL;
}
int clinux_thread(void (*body)(void *), void *context) {
  struct start *start = malloc(sizeof *start);
  if (!start) return -ENOMEM;
  *start = (struct start){body, context};
  uint64_t before;
  // Inherited by the thread: the loop's signalfd must stay the only receiver. But for SIGSYS, which tells of the thread's own
  // faults: confine.c says which call it was.
  clinux_set_signal_mask(~(UINT64_C(1) << (SIGSYS - 1)), &before);
  pthread_t thread;
  int error = pthread_create(&thread, NULL, run, start);
  clinux_set_signal_mask(before, NULL);
  if (error) {
    free(start);
    return -error;
  }
  pthread_detach(thread);
  return 0;
}
