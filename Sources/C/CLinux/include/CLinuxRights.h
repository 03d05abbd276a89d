// How a process of ours becomes one with the least rights (rights.c). Those returning int give a negative errno on failure.
#pragma once
#include <stdbool.h>
#include <stdint.h>
// Another user with one group, in every thread; what capabilities are permitted stays so in the calling one.
int clinux_become(uint32_t user, uint32_t group);
int clinux_set_no_new_privileges(void);
struct sock_filter;
int clinux_filter(const struct sock_filter *filter, unsigned count); // seccomp(2), for this thread
int clinux_fork(void); // while there is one thread: 0 in the child
void clinux_exit_now(int status) __attribute__((noreturn)); // without destructors and buffers of the process before the fork
// Closes every descriptor from 3 on but those.
void clinux_keep_descriptors(const int *kept, int count);
int clinux_landlock_version(void); // what the kernel can, from 1 on
// No file but those below some directories, which can be read, and with `removable` also removed, with `replaceable`
// files get other names; no new listening port; signals to others only with `signals`.
int clinux_landlock(const char *const *readable, int count, bool removable, bool replaceable, bool signals);
int clinux_wait_readable(int fd); // poll(2) without a limit; 1, or a negative errno
