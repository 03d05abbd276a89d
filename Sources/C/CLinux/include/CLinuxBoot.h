// What only a kernel's init does: modules, the clock, entropy, the security module, the end. Negative errno throughout.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
// True where nothing was on /proc when this process started: then a kernel started it, and nobody set anything up.
bool clinux_started_bare(void);
uint64_t clinux_started_at(void); // CLOCK_MONOTONIC in nanoseconds, before the Swift runtime
int clinux_finit_module(int fd, bool compressed);
// GetRandom of /dev/nsm (facts: ioctl 0xC0200A00, CBOR): the number of bytes written to out, at most size.
int clinux_nsm_request(int fd, const void *request, size_t length, void *response, size_t size);
int clinux_add_entropy(const void *bytes, size_t count); // RNDADDENTROPY on /dev/random, all of it credited
int clinux_read_clock(int fd, int64_t *seconds, int64_t *nanoseconds); // a dynamic POSIX clock such as /dev/ptp0
int clinux_set_clock(int64_t seconds, int64_t nanoseconds);
int clinux_slew_clock(int64_t microseconds); // adjtime(3)
int clinux_reboot(bool power_off);
int clinux_become_subreaper(void);
int clinux_set_process_name(const char *name); // at most 15 bytes; the rest is cut
int clinux_dup_to(int fd, int target);
// A bounded exchange of one byte with a vsock port: 0, or a negative errno (-EPROTO for another byte).
int clinux_vsock_exchange(uint32_t cid, uint32_t port, uint8_t byte, int timeout_ms);
// A bounded connect to a vsock port and at once its end: 0 where somebody listens.
int clinux_vsock_probe(uint32_t cid, uint32_t port, int timeout_ms);
