// What two processes share (memory.c): descriptors over a Unix socket, memory, and the order in which each sees what the
// other writes there. Those returning int give a negative errno on failure.
#pragma once

// recvmsg: bytes received (0 at end of file) or a negative errno. Received descriptors are close-on-exec; *count says
// how many there are (at most `capacity`: the kernel closes the rest and the result is -EMSGSIZE).
ssize_t clinux_receive_with_descriptors(int fd, void *buffer, size_t size, int *descriptors, int capacity, int *count);
// sendmsg with SCM_RIGHTS: bytes sent or a negative errno.
ssize_t clinux_send_with_descriptors(int fd, const void *buffer, size_t size, const int *descriptors, int count);

// A memfd of that length whose length nobody can change any more (F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL).
int clinux_sealed_memory(const char *name, size_t length);
// 0 where `fd` is a memfd of ordinary pages and exactly that length that cannot shrink: access to a mapping of it does not
// end in SIGBUS for the other side's doing (but where vm.overcommit_memory is 2 and the machine has no memory left for a page
// that the other side gave back). -EINVAL for every other file, -EMSGSIZE for another length, -EPERM without the seal.
int clinux_check_sealed_memory(int fd, size_t length);
// Maps `control` bytes and behind them two rings of `ring` bytes, each of them twice in a row, so that what runs over a
// ring's end goes on at its start. Both lengths are multiples of the page size.
int clinux_map_rings(int fd, size_t control, size_t ring, void **address);
int clinux_unmap_rings(void *address, size_t control, size_t ring);

static inline uint64_t clinux_load_acquire_u64(const void *address) {
  return __atomic_load_n((const uint64_t *)address, __ATOMIC_ACQUIRE);
}
static inline void clinux_store_release_u64(void *address, uint64_t value) {
  __atomic_store_n((uint64_t *)address, value, __ATOMIC_RELEASE);
}
static inline uint32_t clinux_load_u32(const void *address) {
  return __atomic_load_n((const uint32_t *)address, __ATOMIC_RELAXED);
}
static inline void clinux_store_u32(void *address, uint32_t value) {
  __atomic_store_n((uint32_t *)address, value, __ATOMIC_RELAXED);
}
static inline void clinux_full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
