// One way to read gzip, xz and zstd: zlib, liblzma and libzstd behind a single streaming call.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum cdecompress_kind { CDECOMPRESS_GZIP = 1, CDECOMPRESS_XZ, CDECOMPRESS_ZSTD };
struct cdecompress; // one stream

// NULL when memory is short or the kind is unknown.
struct cdecompress *cdecompress_open(enum cdecompress_kind kind);
void cdecompress_close(struct cdecompress *stream);
// Moves bytes from input to output; `*consumed` and `*produced` tell how many. Members (gzip), streams (xz) and frames
// (zstd) that follow one another are one text, as their command-line tools have it.
// Returns 1 at the end of a member, 0 when there is more to come, -1 on damaged input.
int cdecompress_step(struct cdecompress *stream, const uint8_t *input, size_t input_count, uint8_t *output,
                     size_t output_count, size_t *consumed, size_t *produced);
// zlib's CRC-32, which is the EIF's; `crc` is 0 at first.
uint32_t cdecompress_crc32(uint32_t crc, const uint8_t *bytes, size_t count);
// The CRC of two texts in a row, from that of each and the length of the second.
uint32_t cdecompress_crc32_combine(uint32_t first, uint32_t second, int64_t second_count);
