#include "CDecompress.h"
#include <limits.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

// xz's own default limit when decompressing with --memlimit unset is none; a preset -9 file needs 65 MiB.
static const uint64_t xz_memory_limit = 256u << 20;

struct cdecompress {
  enum cdecompress_kind kind;
  z_stream gzip;
  lzma_stream xz;
  ZSTD_DStream *zstd;
};

struct cdecompress *cdecompress_open(enum cdecompress_kind kind) {
  struct cdecompress *stream = calloc(1, sizeof *stream);
  if (!stream) return NULL;
  stream->kind = kind;
  int ok = 0;
  switch (kind) {
  case CDECOMPRESS_GZIP: ok = inflateInit2(&stream->gzip, 15 + 16) == Z_OK; break; // 16: a gzip header, nothing else
  case CDECOMPRESS_XZ: ok = lzma_stream_decoder(&stream->xz, xz_memory_limit, 0) == LZMA_OK; break;
  case CDECOMPRESS_ZSTD: ok = (stream->zstd = ZSTD_createDStream()) != NULL; break;
  }
  if (ok) return stream;
  free(stream);
  return NULL;
}

void cdecompress_close(struct cdecompress *stream) {
  if (!stream) return;
  switch (stream->kind) {
  case CDECOMPRESS_GZIP: inflateEnd(&stream->gzip); break;
  case CDECOMPRESS_XZ: lzma_end(&stream->xz); break;
  case CDECOMPRESS_ZSTD: ZSTD_freeDStream(stream->zstd); break;
  }
  free(stream);
}

static int gzip_step(z_stream *z, const uint8_t *input, size_t input_count, uint8_t *output, size_t output_count,
                     size_t *consumed, size_t *produced) {
  uInt in = input_count > UINT_MAX ? UINT_MAX : (uInt)input_count;
  uInt out = output_count > UINT_MAX ? UINT_MAX : (uInt)output_count;
  z->next_in = (Bytef *)input; z->avail_in = in;
  z->next_out = output; z->avail_out = out;
  int result = inflate(z, Z_NO_FLUSH);
  *consumed = in - z->avail_in;
  *produced = out - z->avail_out;
  if (result == Z_STREAM_END) return inflateReset(z) == Z_OK ? 1 : -1;
  return result == Z_OK || result == Z_BUF_ERROR ? 0 : -1; // Z_BUF_ERROR: no progress was possible, not fatal
}

static int xz_step(lzma_stream *xz, const uint8_t *input, size_t input_count, uint8_t *output, size_t output_count,
                   size_t *consumed, size_t *produced) {
  xz->next_in = input; xz->avail_in = input_count;
  xz->next_out = output; xz->avail_out = output_count;
  lzma_ret result = lzma_code(xz, LZMA_RUN);
  *consumed = input_count - xz->avail_in;
  *produced = output_count - xz->avail_out;
  if (result == LZMA_STREAM_END) return lzma_stream_decoder(xz, xz_memory_limit, 0) == LZMA_OK ? 1 : -1;
  return result == LZMA_OK || result == LZMA_BUF_ERROR ? 0 : -1;
}

static int zstd_step(ZSTD_DStream *zstd, const uint8_t *input, size_t input_count, uint8_t *output,
                     size_t output_count, size_t *consumed, size_t *produced) {
  ZSTD_inBuffer in = { input, input_count, 0 };
  ZSTD_outBuffer out = { output, output_count, 0 };
  size_t result = ZSTD_decompressStream(zstd, &out, &in);
  *consumed = in.pos;
  *produced = out.pos;
  if (ZSTD_isError(result)) return -1;
  return result == 0;
}

int cdecompress_step(struct cdecompress *stream, const uint8_t *input, size_t input_count, uint8_t *output,
                     size_t output_count, size_t *consumed, size_t *produced) {
  *consumed = *produced = 0;
  switch (stream->kind) {
  case CDECOMPRESS_GZIP:
    return gzip_step(&stream->gzip, input, input_count, output, output_count, consumed, produced);
  case CDECOMPRESS_XZ: return xz_step(&stream->xz, input, input_count, output, output_count, consumed, produced);
  case CDECOMPRESS_ZSTD:
    return zstd_step(stream->zstd, input, input_count, output, output_count, consumed, produced);
  }
  return -1;
}

uint32_t cdecompress_crc32(uint32_t crc, const uint8_t *bytes, size_t count) {
  return (uint32_t)crc32_z(crc, bytes, count);
}

uint32_t cdecompress_crc32_combine(uint32_t first, uint32_t second, int64_t second_count) {
  return (uint32_t)crc32_combine(first, second, (z_off_t)second_count);
}
