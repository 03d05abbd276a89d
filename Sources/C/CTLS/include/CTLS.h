// TLS clients over OpenSSL, without a socket: what came from the peer is fed in, what goes to it is drained. Verifies the
// server's certificate against given roots and one name or address, always.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ctls_roots;   // whom certificates may be of
struct ctls_session; // one connection

// Reads the certificates of a PEM bundle. NULL where there is none or one cannot be read; *count is how many were.
struct ctls_roots *ctls_roots_open(const uint8_t *pem, size_t size, int *count);
void ctls_roots_close(struct ctls_roots *roots);

// Exactly one of `name` (which is also sent as SNI) and `address` (4 or 16 bytes) is given; it must be in the certificate.
// `protocol` is what ALPN offers, or NULL. NULL when memory is short.
struct ctls_session *ctls_session_open(struct ctls_roots *roots, const char *name, const uint8_t *address,
                                       size_t address_size, const char *protocol);
void ctls_session_close(struct ctls_session *session);

// Takes what came from the peer; false when memory is short.
bool ctls_feed(struct ctls_session *session, const uint8_t *bytes, size_t size);
// Gives what is to be sent to the peer; 0 when there is nothing.
size_t ctls_drain(struct ctls_session *session, uint8_t *buffer, size_t capacity);

enum ctls_progress { CTLS_FAILED = -1, CTLS_WAITING = 0, CTLS_DONE = 1 };
// Goes on with the handshake. Done means that the certificate has been verified, and that `protocol` was chosen.
enum ctls_progress ctls_handshake(struct ctls_session *session);
// Bytes read; 0 when more has to come, -1 on a failure, -2 when the peer has ended the connection in order.
long ctls_read(struct ctls_session *session, uint8_t *buffer, size_t capacity);
bool ctls_write(struct ctls_session *session, const uint8_t *bytes, size_t size);
// Why the last call has failed; never NULL.
const char *ctls_reason(const struct ctls_session *session);
