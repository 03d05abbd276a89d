// Key pairs over OpenSSL's libcrypto: made, and the private half written to a file, without ever being anywhere else.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CKEYS_PUBLIC_LIMIT = 256 };

// Before anything else, once or more: no memory is given back that has not been wiped. False where that cannot be so, or the
// library has no random numbers.
bool ckeys_prepare(void);

// Mixes these into the library's random numbers, which the kernel's getrandom(2) has seeded.
void ckeys_mix(const uint8_t *bytes, size_t size);

// Whether there is a type of this name: "ed25519", "x25519", "p256", "p384", "secp256k1".
bool ckeys_has_type(const char *type);

// Makes a pair. The private half becomes the contents of an open file: PKCS#8 in PEM. `public_half` gets a DER
// SubjectPublicKeyInfo, or raw: the 32 bytes of an Ed25519 or X25519 key, x and y of a point.
// Returns the length of that, -errno where the file could not be written, -ENOTSUP where the library fails.
long ckeys_make(const char *type, int file, bool raw, uint8_t public_half[CKEYS_PUBLIC_LIMIT]);
