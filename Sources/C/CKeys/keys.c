#include "CKeys.h"
#include <errno.h>
#include <malloc.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The private half passes through buffers of the library's own (numbers, ASN.1, base64). Not each of them is wiped by whoever
// frees it, so all of them are, here.
static void *take(size_t size, const char *file, int line) {
  (void)file;
  (void)line;
  return malloc(size);
}

static void give(void *memory, const char *file, int line) {
  (void)file;
  (void)line;
  if (!memory) return;
  explicit_bzero(memory, malloc_usable_size(memory));
  free(memory);
}

static void *resize(void *memory, size_t size, const char *file, int line) {
  if (!memory) return malloc(size);
  if (size == 0) {
    give(memory, file, line);
    return NULL;
  }
  size_t old = malloc_usable_size(memory);
  void *other = malloc(size);
  if (!other) return NULL;
  memcpy(other, memory, old < size ? old : size);
  give(memory, file, line);
  return other;
}

static bool is_wiped;

static void prepare(void) {
  is_wiped = CRYPTO_set_mem_functions(take, resize, give) == 1;
  // No openssl.cnf: the image's own files must not say how keys are made.
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
}

bool ckeys_prepare(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, prepare);
  return is_wiped && RAND_status() == 1;
}

// No entropy is claimed for them: they can only make it better.
void ckeys_mix(const uint8_t *bytes, size_t size) {
  if (size <= INT32_MAX) RAND_add(bytes, (int)size, 0);
}

static const struct type { const char *name, *algorithm, *group; } types[] = {
  {"ed25519", "ED25519", NULL}, {"x25519", "X25519", NULL}, {"p256", "EC", "P-256"}, {"p384", "EC", "P-384"},
  {"secp256k1", "EC", "secp256k1"},
};

static const struct type *find(const char *name) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i].name, name) == 0) return &types[i];
  return NULL;
}

bool ckeys_has_type(const char *type) { return find(type) != NULL; }

static int write_all(int file, const char *bytes, size_t size) {
  if (lseek(file, 0, SEEK_SET) < 0) return -errno;
  while (size > 0) {
    ssize_t count = write(file, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -errno;
    bytes += count;
    size -= (size_t)count;
  }
  return 0;
}

static long public_half_of(EVP_PKEY *key, const struct type *type, bool raw, uint8_t *bytes) {
  if (!raw) {
    int size = i2d_PUBKEY(key, NULL);
    if (size <= 0 || size > CKEYS_PUBLIC_LIMIT) return -ENOTSUP;
    return i2d_PUBKEY(key, &bytes) == size ? size : -ENOTSUP;
  }
  uint8_t point[CKEYS_PUBLIC_LIMIT];
  size_t size = 0;
  if (!type->group) {
    size = sizeof point;
    if (EVP_PKEY_get_raw_public_key(key, bytes, &size) != 1) return -ENOTSUP;
    return (long)size;
  }
  // 4, x, y
  if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &size) != 1) return -ENOTSUP;
  if (size < 3 || size % 2 != 1 || size > sizeof point || point[0] != 4) return -ENOTSUP;
  memcpy(bytes, point + 1, size - 1);
  return (long)size - 1;
}

long ckeys_make(const char *type, int file, bool raw, uint8_t public_half[CKEYS_PUBLIC_LIMIT]) {
  const struct type *wanted = find(type);
  if (!wanted) return -ENOTSUP;
  EVP_PKEY *key = wanted->group ? EVP_PKEY_Q_keygen(NULL, NULL, wanted->algorithm, wanted->group)
                                : EVP_PKEY_Q_keygen(NULL, NULL, wanted->algorithm);
  BIO *text = BIO_new(BIO_s_mem());
  long result = -ENOTSUP;
  if (key && text && PEM_write_bio_PKCS8PrivateKey(text, key, NULL, NULL, 0, NULL, NULL) == 1) {
    char *bytes = NULL;
    long size = BIO_get_mem_data(text, &bytes);
    result = public_half_of(key, wanted, raw, public_half);
    if (result > 0 && size > 0) {
      int written = write_all(file, bytes, (size_t)size);
      if (written < 0) result = written;
    }
  }
  BIO_free(text);
  EVP_PKEY_free(key);
  ERR_clear_error();
  return result;
}
